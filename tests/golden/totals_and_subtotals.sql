-- Sales per region and product, per region, and in all, per hour: one pass over the rows.
CREATE TABLE sales (
  region STRING, product STRING, amount INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts
) WITH ('connector' = 'filesystem', 'path' = '{in}/sales', 'format' = 'json');

CREATE TABLE totals (window_end TIMESTAMP(3), region STRING, product STRING, level BIGINT, amount INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/totals', 'format' = 'json');

INSERT INTO totals
SELECT window_end, region, product, CAST(GROUPING_ID(region, product) AS BIGINT), SUM(amount)
FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, ROLLUP (region, product);
