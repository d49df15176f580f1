-- The two highest bids of each item with their rank, without it, and the last bid of each bidder.
CREATE TABLE bids (
  item STRING, bidder STRING, price INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/bids', 'format' = 'json');

CREATE TABLE ranked (item STRING, place BIGINT, bidder STRING, price INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/ranked', 'format' = 'debezium-json');

CREATE TABLE best (item STRING, bidder STRING, price INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/best', 'format' = 'debezium-json');

CREATE TABLE latest (bidder STRING, item STRING, price INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/latest', 'format' = 'debezium-json');

INSERT INTO ranked
SELECT item, place, bidder, price FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY item ORDER BY price DESC, ts) AS place FROM bids
) WHERE place <= 2;

INSERT INTO best
SELECT item, bidder, price FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY item ORDER BY price DESC, ts) AS place FROM bids
) WHERE place <= 2;

INSERT INTO latest
SELECT bidder, item, price FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder ORDER BY ts DESC) AS place FROM bids
) WHERE place = 1;
