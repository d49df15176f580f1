-- Bids between two prices, with the time of day and how often extra has the letter c.
-- The original counts with a function of the user's own; here two built-in ones do it.
CREATE TABLE results (auction BIGINT, bidder BIGINT, price DECIMAL(24, 3), bidTimeType VARCHAR, `dateTime` TIMESTAMP(3), extra VARCHAR,
  c_counts BIGINT)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT auction, bidder, 0.908 * price,
       CASE
         WHEN HOUR(`dateTime`) >= 8 AND HOUR(`dateTime`) <= 18 THEN 'dayTime'
         WHEN HOUR(`dateTime`) <= 6 OR HOUR(`dateTime`) >= 20 THEN 'nightTime'
         ELSE 'otherTime'
       END,
       `dateTime`, extra,
       CHAR_LENGTH(extra) - CHAR_LENGTH(REPLACE(extra, 'c', ''))
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;
