-- The bids of each auction and day.
CREATE TABLE results (auction BIGINT, day VARCHAR, total BIGINT, rank1 BIGINT, rank2 BIGINT, rank3 BIGINT, lowest BIGINT, highest BIGINT,
  average DOUBLE, sum_price BIGINT)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT auction, TO_CHAR(`dateTime`, '%Y-%m-%d'),
       COUNT(*),
       COUNT(*) FILTER (WHERE price < 10000),
       COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000),
       COUNT(*) FILTER (WHERE price >= 1000000),
       MIN(price), MAX(price), AVG(CAST(price AS DOUBLE)), SUM(price)
FROM bid
GROUP BY auction, TO_CHAR(`dateTime`, '%Y-%m-%d');
