-- Results without a window change as rows come.
CREATE TABLE votes (
  voter BIGINT, choice STRING, points INT
) WITH ('connector' = 'filesystem', 'path' = '{in}/votes', 'format' = 'json');

CREATE TABLE tally (
  choice STRING, votes BIGINT, voters BIGINT, points INT, best INT, worst INT, mean DOUBLE, high BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{out}/tally', 'format' = 'debezium-json');

CREATE TABLE popular (
  choice STRING
) WITH ('connector' = 'filesystem', 'path' = '{out}/popular', 'format' = 'debezium-json');

INSERT INTO tally
SELECT choice, COUNT(*), COUNT(DISTINCT voter), SUM(points), MAX(points), MIN(points), AVG(CAST(points AS DOUBLE)),
  COUNT(*) FILTER (WHERE points > 5)
FROM votes GROUP BY choice;

-- A row that passes a limit from below appears; nobody falls here, but fewer than two points on average disappear again.
INSERT INTO popular
SELECT choice FROM votes GROUP BY choice HAVING COUNT(*) >= 2 AND AVG(CAST(points AS DOUBLE)) >= 2;
