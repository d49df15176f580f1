-- Two tables become one stream; its watermark is the slower one's.
CREATE TABLE web (
  id BIGINT, text STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/web', 'format' = 'json');

CREATE TABLE app (
  id BIGINT, body ROW<text STRING, lang STRING>, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/app', 'format' = 'json');

CREATE TABLE messages (
  origin STRING, id BIGINT, text STRING
) WITH ('connector' = 'filesystem', 'path' = '{out}/messages', 'format' = 'json');

CREATE TABLE per_second (
  window_start TIMESTAMP(3), origin STRING, messages BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/per_second', 'format' = 'json');

CREATE VIEW both_of_them AS
SELECT 'web' AS origin, id, text, ts FROM web WHERE text IS NOT NULL
UNION ALL
SELECT 'app', id, UPPER(body.text), ts FROM app WHERE body.lang = 'en';

INSERT INTO messages SELECT origin, id, text FROM both_of_them;

INSERT INTO per_second
SELECT window_start, origin, COUNT(*) FROM TABLE(TUMBLE(TABLE both_of_them, DESCRIPTOR(ts), INTERVAL '1' SECOND))
GROUP BY window_start, window_end, origin;
