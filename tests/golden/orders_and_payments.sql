-- Payments within an hour after their order; both ends belong to it. Orders without one, and payments without an order, too.
CREATE TABLE orders (
  id BIGINT, customer STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' MINUTE
) WITH ('connector' = 'filesystem', 'path' = '{in}/orders', 'format' = 'json');

CREATE TABLE payments (
  order_id BIGINT, amount DECIMAL(8, 2), ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' MINUTE
) WITH ('connector' = 'filesystem', 'path' = '{in}/payments', 'format' = 'json');

CREATE TABLE paid (
  id BIGINT, customer STRING, amount DECIMAL(8, 2)
) WITH ('connector' = 'filesystem', 'path' = '{out}/paid', 'format' = 'json');

CREATE TABLE everything (
  id BIGINT, order_id BIGINT, amount DECIMAL(8, 2)
) WITH ('connector' = 'filesystem', 'path' = '{out}/everything', 'format' = 'json');

INSERT INTO paid
SELECT o.id, o.customer, p.amount FROM orders AS o JOIN payments AS p
ON o.id = p.order_id AND p.ts BETWEEN o.ts AND o.ts + INTERVAL '1' HOUR;

INSERT INTO everything
SELECT o.id, p.order_id, p.amount FROM orders AS o FULL JOIN payments AS p
ON o.id = p.order_id AND p.ts BETWEEN o.ts AND o.ts + INTERVAL '1' HOUR;
