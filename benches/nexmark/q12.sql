-- How many bids each bidder makes in ten seconds of the wall clock. A window that is open when the events end is not
-- written (as in Flink), so the rows written depend on how long the run takes: none in a run that ends in one window.
CREATE TABLE results (bidder BIGINT, num BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3))
WITH ('connector' = 'blackhole');

CREATE VIEW bid_now AS SELECT bidder, PROCTIME() AS now FROM bid;

INSERT INTO results
SELECT bidder, COUNT(*), window_start, window_end
FROM TABLE(TUMBLE(TABLE bid_now, DESCRIPTOR(now), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end;
