-- Windows that grow by six hours to a day.
CREATE TABLE visits (
  visitor BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts
) WITH ('connector' = 'filesystem', 'path' = '{in}/visits', 'format' = 'json');

CREATE TABLE so_far (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), visits BIGINT, visitors BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/so_far', 'format' = 'json');

INSERT INTO so_far
SELECT window_start, window_end, COUNT(*), COUNT(DISTINCT visitor)
FROM TABLE(CUMULATE(TABLE visits, DESCRIPTOR(ts), INTERVAL '6' HOUR, INTERVAL '1' DAY))
GROUP BY window_start, window_end;
