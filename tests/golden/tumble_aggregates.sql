-- Every aggregate over tumbling windows of ten seconds, with nulls, a filter, and rows out of order.
CREATE TABLE sales (
  shop STRING, item STRING, amount INT, price DECIMAL(8, 2), ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/sales', 'format' = 'json');

CREATE TABLE totals (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), shop STRING, sales BIGINT, amounts BIGINT, amount INT,
  least INT, most INT, items BIGINT, revenue DECIMAL(38, 2), dear BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/totals', 'format' = 'json');

INSERT INTO totals
SELECT window_start, window_end, shop, COUNT(*), COUNT(amount), SUM(amount), MIN(amount), MAX(amount),
  COUNT(DISTINCT item), SUM(price), COUNT(*) FILTER (WHERE price >= 10)
FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, shop;
