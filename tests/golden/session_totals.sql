-- Sessions per user with a gap of a minute: rows exactly the gap apart are one session, and a row between two joins them.
CREATE TABLE actions (
  user_id BIGINT, points INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' MINUTE
) WITH ('connector' = 'filesystem', 'path' = '{in}/actions', 'format' = 'json');

CREATE TABLE sessions (
  user_id BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3), actions BIGINT, points INT
) WITH ('connector' = 'filesystem', 'path' = '{out}/sessions', 'format' = 'json');

INSERT INTO sessions
SELECT user_id, window_start, window_end, COUNT(*), SUM(points)
FROM TABLE(SESSION(TABLE actions PARTITION BY user_id, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end, user_id;
