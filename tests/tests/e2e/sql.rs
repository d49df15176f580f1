//! The SQL texts that the tests run.

/// Counts clicks per page in windows of one second, from the stream `clicks` into the stream `counts`.
pub(super) const COUNTS: &str = "
CREATE TABLE clicks (page STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
WITH ('connector' = 'kinesis', 'stream' = 'clicks', 'source.init.position' = 'TRIM_HORIZON', 'format' = 'json');
CREATE TABLE counts (page STRING, window_start TIMESTAMP(3), clicks BIGINT)
WITH ('connector' = 'kinesis', 'stream' = 'counts', 'format' = 'json');
INSERT INTO counts SELECT page, window_start, COUNT(*)
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY page, window_start, window_end;
";

/// Makes rows for ever and drops them.
pub(super) const ENDLESS: &str = "
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '100');
CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO nowhere SELECT n FROM numbers;
";

/// Makes a thousand rows, drops them and ends.
pub(super) const BOUNDED: &str = "
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1000');
CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO nowhere SELECT n FROM numbers;
";
