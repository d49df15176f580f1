-- First, last and all values of a group in the order in which they arrive, which is not that of event time.
CREATE TABLE steps (
  trip BIGINT, place STRING, fare INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' HOUR
) WITH ('connector' = 'filesystem', 'path' = '{in}/steps', 'format' = 'json');

CREATE TABLE trips (
  trip BIGINT, came_from STRING, went_to STRING, route STRING, fares ARRAY<INT>, paid INT, mean DOUBLE
) WITH ('connector' = 'filesystem', 'path' = '{out}/trips', 'format' = 'debezium-json');

CREATE TABLE hours (
  trip BIGINT, window_end TIMESTAMP(3), came_from STRING, last_fare INT, route STRING, paid INT
) WITH ('connector' = 'filesystem', 'path' = '{out}/hours', 'format' = 'json');

INSERT INTO trips
SELECT trip, FIRST_VALUE(place), LAST_VALUE(place), LISTAGG(place, ' > '), ARRAY_AGG(fare), SUM(DISTINCT fare),
  AVG(DISTINCT CAST(fare AS DOUBLE))
FROM steps GROUP BY trip;

INSERT INTO hours
SELECT trip, window_end, FIRST_VALUE(place), LAST_VALUE(fare), LISTAGG(place), SUM(DISTINCT fare)
FROM TABLE(TUMBLE(TABLE steps, DESCRIPTOR(ts), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, trip;
