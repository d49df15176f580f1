-- The bids on every 123rd auction.
CREATE TABLE results (auction BIGINT, price BIGINT)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT auction, price FROM bid WHERE auction % 123 = 0;
