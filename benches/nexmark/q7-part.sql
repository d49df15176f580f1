-- A part of q7: the highest price of each ten seconds.
CREATE TABLE results (price BIGINT, window_end TIMESTAMP(3))
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT MAX(price), window_end
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
GROUP BY window_start, window_end;
