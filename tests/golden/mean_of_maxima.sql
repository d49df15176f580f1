-- The mean over rooms of each room's highest temperature: what is averaged changes, and the old value must be taken back.
CREATE TABLE readings (
  building STRING, room INT, celsius DOUBLE
) WITH ('connector' = 'filesystem', 'path' = '{in}/readings', 'format' = 'json');

CREATE TABLE buildings (
  building STRING, rooms BIGINT, mean DOUBLE, coolest DOUBLE
) WITH ('connector' = 'filesystem', 'path' = '{out}/buildings', 'format' = 'debezium-json');

INSERT INTO buildings
SELECT building, COUNT(*), AVG(hottest), MIN(hottest)
FROM (SELECT building, room, MAX(celsius) AS hottest FROM readings GROUP BY building, room) AS rooms
GROUP BY building;
