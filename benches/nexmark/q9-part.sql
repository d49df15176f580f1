-- Part of q4 and q9: every bid that was made while its auction was open, with the auction.
CREATE TABLE results (id BIGINT, category BIGINT, itemName VARCHAR, seller BIGINT, bidder BIGINT, price BIGINT,
  `dateTime` TIMESTAMP(3))
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT A.id, A.category, A.itemName, A.seller, B.bidder, B.price, B.`dateTime`
FROM auction AS A, bid AS B
WHERE A.id = B.auction AND B.`dateTime` BETWEEN A.`dateTime` AND A.expires;
