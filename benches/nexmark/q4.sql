-- The average winning price of each category.
CREATE TABLE results (category BIGINT, price BIGINT)
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT category, AVG(best)
FROM (
  SELECT A.id, A.category, MAX(B.price) AS best
  FROM auction AS A INNER JOIN bid AS B ON A.id = B.auction
  WHERE B.`dateTime` BETWEEN A.`dateTime` AND A.expires
  GROUP BY A.id, A.category
)
GROUP BY category;
