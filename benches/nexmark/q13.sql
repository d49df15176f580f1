-- Every bid with a value from a side table of 10,000 rows.
CREATE TABLE side_input (
  key BIGINT, value VARCHAR
) WITH ('connector' = 'filesystem', 'path' = '${directory}/side_input.csv', 'format' = 'csv');

CREATE TABLE results (auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), value VARCHAR)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT B.auction, B.bidder, B.price, B.`dateTime`, S.value
FROM (SELECT *, PROCTIME() AS now FROM bid) AS B
JOIN side_input FOR SYSTEM_TIME AS OF B.now AS S ON B.auction % 10000 = S.key;
