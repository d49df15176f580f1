-- Every movement with its account's balance so far, and the sum of the last ten minutes and of the last two movements.
CREATE TABLE movements (
  account INT, amount INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' MINUTE
) WITH ('connector' = 'filesystem', 'path' = '{in}/movements', 'format' = 'json');

CREATE TABLE balances (account INT, amount INT, balance INT, movements BIGINT)
WITH ('connector' = 'filesystem', 'path' = '{out}/balances', 'format' = 'json');

CREATE TABLE recent (account INT, amount INT, in_ten_minutes INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/recent', 'format' = 'json');

CREATE TABLE pairs (account INT, amount INT, in_two INT, most INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/pairs', 'format' = 'json');

INSERT INTO balances
SELECT account, amount,
  SUM(amount) OVER (PARTITION BY account ORDER BY ts RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
  COUNT(*) OVER (PARTITION BY account ORDER BY ts RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
FROM movements;

INSERT INTO recent
SELECT account, amount,
  SUM(amount) OVER (PARTITION BY account ORDER BY ts RANGE BETWEEN INTERVAL '10' MINUTE PRECEDING AND CURRENT ROW)
FROM movements;

INSERT INTO pairs
SELECT account, amount, SUM(amount) OVER w, MAX(amount) OVER w
FROM movements WINDOW w AS (PARTITION BY account ORDER BY ts ROWS BETWEEN 1 PRECEDING AND CURRENT ROW);
