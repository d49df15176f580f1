-- The shop with the most sales of each ten minutes, and each till's first sale in them: final, told once.
CREATE TABLE sales (
  shop STRING, till INT, amount INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE
) WITH ('connector' = 'filesystem', 'path' = '{in}/sales', 'format' = 'json');

CREATE TABLE winners (window_end TIMESTAMP(3), shop STRING, sales BIGINT)
WITH ('connector' = 'filesystem', 'path' = '{out}/winners', 'format' = 'json');

CREATE TABLE firsts (window_end TIMESTAMP(3), shop STRING, till INT, amount INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/firsts', 'format' = 'json');

INSERT INTO winners
SELECT window_end, shop, n FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, shop) AS place FROM (
    SELECT window_start, window_end, shop, COUNT(*) AS n
    FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '10' MINUTE)) GROUP BY window_start, window_end, shop
  )
) WHERE place = 1;

INSERT INTO firsts
SELECT window_end, shop, till, amount FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, shop, till ORDER BY ts) AS place
  FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '10' MINUTE))
) WHERE place = 1;
