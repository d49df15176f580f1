-- The rows of sessions per region: their totals by region and product, and the best row of each.
CREATE TABLE sales (
  region STRING, product STRING, amount INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' HOUR
) WITH ('connector' = 'filesystem', 'path' = '{in}/sales', 'format' = 'json');

CREATE TABLE totals (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), region STRING, product STRING, level BIGINT, amount INT
) WITH ('connector' = 'filesystem', 'path' = '{out}/totals', 'format' = 'json');

CREATE TABLE best (
  region STRING, window_end TIMESTAMP(3), product STRING, amount INT
) WITH ('connector' = 'filesystem', 'path' = '{out}/best', 'format' = 'json');

CREATE VIEW in_sessions AS
SELECT * FROM TABLE(SESSION(TABLE sales PARTITION BY region, DESCRIPTOR(ts), INTERVAL '1' MINUTE));

INSERT INTO totals
SELECT window_start, window_end, region, product, CAST(GROUPING_ID(region, product) AS BIGINT), SUM(amount)
FROM in_sessions GROUP BY window_start, window_end, ROLLUP (region, product);

INSERT INTO best
SELECT region, window_end, product, amount FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY region, window_start, window_end ORDER BY amount DESC) AS n FROM in_sessions)
WHERE n = 1;
