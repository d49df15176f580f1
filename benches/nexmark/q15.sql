-- Bids, bidders and auctions of each day, by price.
CREATE TABLE results (day VARCHAR, total BIGINT, rank1 BIGINT, rank2 BIGINT, rank3 BIGINT, bidders BIGINT, bidders1 BIGINT, bidders2 BIGINT,
  bidders3 BIGINT, auctions BIGINT, auctions1 BIGINT, auctions2 BIGINT, auctions3 BIGINT)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT TO_CHAR(`dateTime`, '%Y-%m-%d'),
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
GROUP BY TO_CHAR(`dateTime`, '%Y-%m-%d');
