-- Each order with the exchange rate that held when it was made: a temporal join.
CREATE TABLE orders (
  id INT, currency STRING, amount INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE
) WITH ('connector' = 'filesystem', 'path' = '{in}/orders', 'format' = 'json');

CREATE TABLE rates (
  currency STRING, rate INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE,
  PRIMARY KEY (currency) NOT ENFORCED
) WITH ('connector' = 'filesystem', 'path' = '{in}/rates', 'format' = 'json');

CREATE TABLE converted (id INT, worth INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/converted', 'format' = 'json');

INSERT INTO converted
SELECT o.id, o.amount * r.rate
FROM orders AS o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency;
