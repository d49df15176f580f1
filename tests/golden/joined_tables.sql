-- Three tables joined without a bound in time: whichever row comes last completes the result. Null equals nothing.
CREATE TABLE authors (id INT, name STRING)
WITH ('connector' = 'filesystem', 'path' = '{in}/authors', 'format' = 'json');

CREATE TABLE books (id INT, author INT, title STRING, pages INT)
WITH ('connector' = 'filesystem', 'path' = '{in}/books', 'format' = 'json');

CREATE TABLE sales (book INT, copies INT)
WITH ('connector' = 'filesystem', 'path' = '{in}/sales', 'format' = 'json');

CREATE TABLE sold (name STRING, title STRING, copies INT)
WITH ('connector' = 'filesystem', 'path' = '{out}/sold', 'format' = 'json');

INSERT INTO sold
SELECT a.name, b.title, s.copies
FROM authors AS a
JOIN books AS b ON a.id = b.author
JOIN sales AS s ON b.id = s.book AND s.copies * 100 > b.pages
WHERE b.title <> 'Unwritten';
