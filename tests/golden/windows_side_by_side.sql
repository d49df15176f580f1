-- Two streams counted per minute and key, side by side: a window join.
CREATE TABLE shown (
  ad INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/shown', 'format' = 'json');

CREATE TABLE clicked (
  ad INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{in}/clicked', 'format' = 'json');

CREATE TABLE rates (
  window_end TIMESTAMP(3), ad INT, shown BIGINT, clicked BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/rates', 'format' = 'json');

INSERT INTO rates
SELECT COALESCE(s.window_end, c.window_end), COALESCE(s.ad, c.ad), s.n, c.n
FROM (
  SELECT window_start, window_end, ad, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE shown, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
  GROUP BY window_start, window_end, ad
) AS s
FULL JOIN (
  SELECT window_start, window_end, ad, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE clicked, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
  GROUP BY window_start, window_end, ad
) AS c
ON s.window_start = c.window_start AND s.window_end = c.window_end AND s.ad = c.ad;
