CREATE FUNCTION distance AS 'distance_km' LANGUAGE RUST;

CREATE TABLE rides (degrees BIGINT) WITH (
  'connector' = 'datagen', 'rows-per-second' = 'unlimited', 'splits' = '1',
  'fields.degrees.kind' = 'sequence', 'fields.degrees.start' = '0', 'fields.degrees.end' = '3'
);

CREATE TABLE long_rides (degrees BIGINT, km BIGINT) WITH ('connector' = 'print');

-- Along the equator, where a degree is 111 km.
INSERT INTO long_rides
SELECT degrees, km FROM (
  SELECT degrees, CAST(ROUND(distance(0, 0, 0, degrees), 0) AS BIGINT) AS km FROM rides
) WHERE km > 200;
