-- Clicks, users and revenue per page, in windows of 5 seconds of event time.
CREATE TABLE clicks (
  page    STRING,
  user_id STRING,
  cents   BIGINT,
  ts      TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) WITH (
  'connector' = 'kinesis',
  'stream' = 'clicks',
  'source.init.position' = 'TRIM_HORIZON',
  'format' = 'json'
);

CREATE TABLE clicks_per_page (
  page STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), clicks BIGINT, users BIGINT, cents BIGINT
) WITH (
  'connector' = 'kinesis',
  'stream' = 'clicks_per_page',
  'format' = 'json'
);

CREATE TABLE clicks_per_page_files (
  page STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), clicks BIGINT, users BIGINT, cents BIGINT
) WITH (
  'connector' = 'filesystem',
  'path' = '{files}',
  'format' = 'parquet'
);

CREATE VIEW per_page AS
SELECT page, window_start, window_end, COUNT(*) AS clicks, COUNT(DISTINCT user_id) AS users, SUM(cents) AS cents
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '5' SECOND))
GROUP BY page, window_start, window_end;

INSERT INTO clicks_per_page SELECT page, window_start, window_end, clicks, users, cents FROM per_page;
INSERT INTO clicks_per_page_files SELECT page, window_start, window_end, clicks, users, cents FROM per_page;
