-- A row per item of a basket, by the words that people paste: statement sets, LIKE, hints, arrays and maps.
CREATE TEMPORARY TABLE baskets (
  id INT, items ARRAY<STRING>, prices MAP<STRING, INT>
) WITH ('connector' = 'filesystem', 'path' = '{in}/baskets', 'format' = 'csv');

CREATE TABLE lines (id INT, item STRING, price INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/lines', 'format' = 'json');

CREATE TABLE sizes WITH ('path' = '{out}/sizes') LIKE lines (EXCLUDING CONSTRAINTS OVERWRITING OPTIONS);

EXECUTE STATEMENT SET
BEGIN
  INSERT INTO lines
  SELECT id, item, prices[item]
  FROM baskets /*+ OPTIONS('format' = 'json') */ CROSS JOIN UNNEST(items) AS t (item);

  INSERT INTO sizes
  SELECT id, items[1], CARDINALITY(items) FROM baskets /*+ OPTIONS('format' = 'json') */ WHERE items IS NOT NULL;
END;
