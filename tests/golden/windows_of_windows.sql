-- The most that any sensor measured in a minute, averaged over sensors; and the busiest of those minutes in five.
CREATE TABLE measures (
  sensor STRING, val DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/measures', 'format' = 'json');

CREATE TABLE averages (
  window_start TIMESTAMP(3), sensors BIGINT, average DOUBLE
) WITH ('connector' = 'filesystem', 'path' = '{out}/averages', 'format' = 'json');

CREATE TABLE busiest (
  window_start TIMESTAMP(3), measures BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/busiest', 'format' = 'json');

CREATE VIEW per_minute AS
SELECT window_start, window_end, window_time AS t, sensor, COUNT(*) AS n, MAX(val) AS most
FROM TABLE(TUMBLE(TABLE measures, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end, window_time, sensor;

INSERT INTO averages
SELECT window_start, COUNT(*), AVG(most) FROM per_minute GROUP BY window_start, window_end;

CREATE VIEW counts AS SELECT t, n FROM per_minute;

INSERT INTO busiest
SELECT window_start, MAX(n) FROM TABLE(TUMBLE(TABLE counts, DESCRIPTOR(t), INTERVAL '5' MINUTE))
GROUP BY window_start, window_end;
