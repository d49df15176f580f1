-- Bids, bidders and auctions of each channel and day, by price, with the latest minute.
CREATE TABLE results (channel VARCHAR, day VARCHAR, minute VARCHAR, total BIGINT, rank1 BIGINT, rank2 BIGINT, rank3 BIGINT, bidders BIGINT, bidders1 BIGINT, bidders2 BIGINT,
  bidders3 BIGINT, auctions BIGINT, auctions1 BIGINT, auctions2 BIGINT, auctions3 BIGINT)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT channel, TO_CHAR(`dateTime`, '%Y-%m-%d'), MAX(TO_CHAR(`dateTime`, '%H:%M')),
       COUNT(*),
       COUNT(*) FILTER (WHERE price < 10000),
       COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000),
       COUNT(*) FILTER (WHERE price >= 1000000),
       COUNT(DISTINCT bidder),
       COUNT(DISTINCT bidder) FILTER (WHERE price < 10000),
       COUNT(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000),
       COUNT(DISTINCT bidder) FILTER (WHERE price >= 1000000),
       COUNT(DISTINCT auction),
       COUNT(DISTINCT auction) FILTER (WHERE price < 10000),
       COUNT(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000),
       COUNT(DISTINCT auction) FILTER (WHERE price >= 1000000)
FROM bid
GROUP BY channel, TO_CHAR(`dateTime`, '%Y-%m-%d');
