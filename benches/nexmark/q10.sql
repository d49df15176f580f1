-- Every bid into files, a directory for each minute.
CREATE TABLE results (
  auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), extra VARCHAR, dt VARCHAR, hm VARCHAR
) PARTITIONED BY (dt, hm)
WITH ('connector' = 'filesystem', 'path' = '${directory}/q10', 'format' = 'csv');

INSERT INTO results
SELECT auction, bidder, price, `dateTime`, extra, TO_CHAR(`dateTime`, '%Y-%m-%d'), TO_CHAR(`dateTime`, '%H:%M')
FROM bid;
