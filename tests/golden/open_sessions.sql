-- Sessions are told while they are open, and again for rows behind their end: what was told under other bounds is taken back.
SET 'table.exec.emit.early-fire.enabled' = 'true';
SET 'table.exec.emit.early-fire.delay' = '0 s';
SET 'table.exec.emit.allow-lateness' = '10 min';

CREATE TABLE visits (
  user_id BIGINT, points INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' HOUR
) WITH ('connector' = 'filesystem', 'path' = '{in}/visits', 'format' = 'json');

CREATE TABLE sessions (
  user_id BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3), visits BIGINT, points INT, best INT
) WITH ('connector' = 'filesystem', 'path' = '{out}/sessions', 'format' = 'debezium-json');

CREATE TABLE longest (
  sessions BIGINT, most BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/longest', 'format' = 'debezium-json');

CREATE VIEW told AS
SELECT user_id, window_start, window_end, COUNT(*) AS visits, SUM(points) AS points, MAX(points) AS best
FROM TABLE(SESSION(TABLE visits PARTITION BY user_id, DESCRIPTOR(ts), INTERVAL '3' MINUTE))
GROUP BY user_id, window_start, window_end;

INSERT INTO sessions SELECT * FROM told;

INSERT INTO longest SELECT COUNT(*), MAX(visits) FROM told;
