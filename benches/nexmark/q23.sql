-- Bids with the bidder as a person and the auctions that this person sells.
CREATE TABLE results (auction BIGINT, bidder BIGINT, price BIGINT, name VARCHAR, id BIGINT, itemName VARCHAR)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT B.auction, B.bidder, B.price, P.name, A.id, A.itemName
FROM bid AS B
INNER JOIN person AS P ON B.bidder = P.id
INNER JOIN auction AS A ON A.seller = B.bidder;
