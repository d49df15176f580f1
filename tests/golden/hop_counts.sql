-- Windows of ten seconds every four: the size is no multiple of the slide.
CREATE TABLE clicks (
  page STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/clicks', 'format' = 'json');

CREATE TABLE counts (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), page STRING, clicks BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/counts', 'format' = 'json');

INSERT INTO counts
SELECT window_start, window_end, page, COUNT(*)
FROM TABLE(HOP(TABLE clicks, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '10' SECOND))
GROUP BY window_start, window_end, page
HAVING COUNT(*) > 1;
