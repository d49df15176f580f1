//! What is refused, and where. The place of each refusal is marked by `^` in the text, which is taken out.

use super::support::{BIDS, explain, plan, refused};
use tidemill_sql::Position;

/// Takes the mark out of a text and returns its place.
fn marked(text: &str) -> (String, Position) {
    let at = text.find('^').unwrap_or_else(|| panic!("no ^ in {text}"));
    let before = &text[..at];
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() as u64 + 1;
    (text.replacen('^', "", 1), Position { line, column })
}

/// Asserts that each text is refused at its mark, with a message that holds the words, and with a hint.
fn assert_refused(cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (text, words) in cases {
        let (sql, place) = marked(&format!("{BIDS}{OUT}{text}"));
        match plan(&sql) {
            Ok(_) => wrong.push(format!("not refused: {text}")),
            Err(error) => {
                if error.position != Some(place) || !error.message.contains(words) || error.hint.is_none() {
                    wrong.push(format!("{text}\nexpected {words:?} at {place}, found {error}\n"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const OUT: &str = "CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');\n";

#[test]
fn queries_that_streams_cannot_answer_yet_are_refused_at_their_clause() {
    assert_refused(&[
        ("INSERT INTO out SELECT auction FROM bids ^ORDER BY ts", "ORDER BY"),
        ("INSERT INTO out SELECT auction FROM bids\n  ^LIMIT 5", "LIMIT"),
        ("INSERT INTO out SELECT auction FROM bids ^OFFSET 5 ROWS", "LIMIT"),
        (
            "INSERT INTO out SELECT auction FROM bids ^FETCH FIRST 5 ROWS ONLY",
            "FETCH",
        ),
        ("INSERT INTO out SELECT auction FROM bids ^FOR UPDATE", "FOR"),
        (
            "INSERT INTO out SELECT ^DISTINCT ON (auction) auction FROM bids",
            "DISTINCT ON",
        ),
        ("INSERT INTO out SELECT ^TOP 5 auction FROM bids", "TOP"),
        (
            "INSERT INTO out SELECT b.auction FROM bids AS b ^NATURAL JOIN bids AS c",
            "NATURAL",
        ),
        (
            "INSERT INTO out SELECT b.auction FROM bids AS b LEFT JOIN bids AS c ON ^b.auction = c.auction",
            "without a bound on time",
        ),
        (
            "INSERT INTO out SELECT b.auction FROM bids AS b JOIN bids AS c ON ^b.auction < c.auction",
            "without an equality",
        ),
        (
            "INSERT INTO out SELECT b.auction FROM bids AS b ^LEFT SEMI JOIN bids AS c ON b.auction = c.auction",
            "SEMI",
        ),
        (
            "INSERT INTO out SELECT b.auction FROM bids AS b RIGHT JOIN bids AS c ^USING (auction)",
            "USING",
        ),
        (
            "INSERT INTO out SELECT b.auction FROM bids AS b JOIN bids FOR SYSTEM_TIME AS OF ^b.ts AS c ON b.auction = c.auction",
            "no PRIMARY KEY",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE ^auction NOT IN (SELECT bidder FROM bids)",
            "NOT IN",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids AS b WHERE NOT EXISTS (SELECT 1 FROM bids AS c WHERE ^c.auction = b.auction)",
            "without a bound on time",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids ^FOR SYSTEM_TIME AS OF ts",
            "FOR SYSTEM_TIME AS OF outside of a join",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids ^EXCEPT SELECT auction FROM bids",
            "EXCEPT",
        ),
        ("INSERT INTO out ^VALUES (1)", "VALUES"),
        ("INSERT INTO out ^SELECT 1", "without FROM"),
        (
            "INSERT INTO out SELECT COUNT(*) FROM bids GROUP BY CUBE (^auction, bidder, price, channel, fee, rate, ts)",
            "more than 64 groupings",
        ),
        (
            "INSERT INTO out SELECT COUNT(*) FROM bids GROUP BY ^1",
            "GROUP BY position",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE price > 1 OR ^auction IN (SELECT auction FROM bids)",
            "query inside",
        ),
        (
            "INSERT INTO out SELECT SUM(^auction) OVER (ORDER BY bidder) FROM bids",
            "OVER",
        ),
        (
            "INSERT INTO out SELECT auction FROM ^UNNEST(ARRAY[1]) AS t (auction)",
            "UNNEST without a table before it",
        ),
        (
            "INSERT INTO out SELECT ^GROUPING(auction) OVER (ORDER BY ts) FROM bids",
            "GROUPING ... OVER is not supported",
        ),
        (
            "INSERT INTO out SELECT x FROM (SELECT COLLECT(auction) AS l FROM bids)\n  CROSS JOIN ^UNNEST(l) AS e (x, n)",
            "UNNEST and LATERAL TABLE over a result that changes",
        ),
        (
            "INSERT INTO out SELECT auction FROM (SELECT auction, ROW_NUMBER() OVER (PARTITION BY ^bidder ORDER BY price) AS n
               FROM bids) WHERE n <= 100001",
            "a top-N keeps at most 100000 rows of each key, and this one asks for 100001",
        ),
        (
            "INSERT INTO out SELECT ^JSON(channel) FROM bids",
            "JSON(text) stands only inside JSON_OBJECT",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids ^TABLESAMPLE (5)",
            "TABLESAMPLE",
        ),
        (
            "INSERT INTO out WITH ^RECURSIVE r AS (SELECT auction FROM bids) SELECT auction FROM r",
            "RECURSIVE",
        ),
        (
            "INSERT INTO out SELECT auction FROM ^LATERAL (SELECT auction FROM bids)",
            "LATERAL",
        ),
    ]);
}

#[test]
fn windows_are_refused_where_they_are_wrong() {
    assert_refused(&[
        (
            "INSERT INTO out SELECT auction FROM TABLE(^FROBNICATE(TABLE bids))",
            "unknown table function",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(^rate), INTERVAL '5' SECOND))",
            "no event time",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(^tz), INTERVAL '5' SECOND))",
            "no column tz",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE ^bid, DESCRIPTOR(ts), INTERVAL '5' SECOND))",
            "no table or view bid",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), ^INTERVAL '1' MONTH))",
            "no fixed length",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), ^INTERVAL '0' SECOND))",
            "at least 1 ms",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(^TUMBLE(TABLE bids, DESCRIPTOR(ts)))",
            "needs a size",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(^bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))",
            "first argument",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE bids, ^ts, INTERVAL '5' SECOND))",
            "second argument",
        ),
        (
            "INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), ^SLICE => INTERVAL '5' SECOND))",
            "no argument SLICE",
        ),
        (
            "CREATE VIEW v AS SELECT auction, ts + INTERVAL '1' SECOND AS t FROM bids;
             INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(^t), INTERVAL '5' SECOND))",
            "not the event time",
        ),
        (
            "INSERT INTO out SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND)) ^GROUP BY window_start",
            "without window_end",
        ),
        (
            "INSERT INTO out SELECT COUNT(*) FROM bids GROUP BY ^CUMULATE(ts, INTERVAL '5' SECOND, INTERVAL '10' SECOND)",
            "cumulate is not supported yet",
        ),
    ]);
}

#[test]
fn expressions_are_refused_where_they_are_wrong() {
    assert_refused(&[
        ("INSERT INTO out SELECT ^auktion FROM bids", "no column auktion"),
        (
            "INSERT INTO out SELECT ^frobnicate(auction) FROM bids",
            "unknown function frobnicate",
        ),
        (
            "INSERT INTO out SELECT ^row_number(auction) FROM bids",
            "row_number needs OVER",
        ),
        (
            "INSERT INTO out SELECT ^version() FROM bids",
            "unknown function version",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE ^COUNT(*) > 1",
            "aggregate count cannot stand here",
        ),
        ("INSERT INTO out SELECT auction FROM bids ^WHERE price", "BOOLEAN"),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE channel = ^\"web\"",
            "double quotes",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE ^auction->'a' = 'b'",
            "operator ->",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE ^channel SIMILAR TO 'a'",
            "operator",
        ),
        (
            "INSERT INTO out SELECT ^CAST(channel AS VARCHAR(3)) FROM bids",
            "length",
        ),
        (
            "INSERT INTO out SELECT ^CAST(auction AS INT ARRAY) FROM bids",
            "form of CAST",
        ),
        ("INSERT INTO out ^SELECT auction[1] FROM bids", "an index stands behind"),
        (
            "INSERT INTO out SELECT char_length(^regexp_extract(channel, '(a', 1)) FROM bids",
            "not a regular expression",
        ),
        (
            "INSERT INTO out SELECT char_length(^regexp_extract('a', channel)) FROM bids",
            "must be a literal",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE ^ts AT TIME ZONE 'UTC' > ts",
            "AT TIME ZONE",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE ts > ts - ^INTERVAL '1-2' YEAR TO MONTH",
            "several units",
        ),
        (
            "INSERT INTO out SELECT upper(^DISTINCT channel) FROM bids",
            "DISTINCT in a scalar",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids WHERE auction = ^?",
            "parameter",
        ),
    ]);
}

#[test]
fn statements_are_refused_where_they_are_wrong() {
    assert_refused(&[
        ("^SELECT auction FROM bids", "leads nowhere"),
        ("^COPY bids TO 'x'", "COPY"),
        ("^frobnicate", "expected a statement"),
        ("CREATE FUNCTION f AS ^'x'", "a function in JAVA"),
        ("CREATE ^EXTERNAL TABLE t STORED AS CSV LOCATION 'x'", "EXTERNAL"),
        ("CREATE ^OR REPLACE VIEW v AS SELECT auction FROM bids", "OR REPLACE"),
        ("INSERT ^OVERWRITE out SELECT auction FROM bids", "OVERWRITE"),
        (
            "INSERT INTO out ^PARTITION (a = 1) SELECT auction FROM bids",
            "PARTITION",
        ),
        ("INSERT INTO db^.out SELECT auction FROM bids", "catalog or database"),
        ("INSERT INTO out SELECT auction FROM ^db.bids", "catalog or database"),
        ("INSERT INTO ^outt SELECT auction FROM bids", "no table or view outt"),
        ("INSERT INTO out SELECT auction FROM ^Bids", "no table or view Bids"),
        (
            "INSERT INTO out SELECT auction FROM bids bogus ^clause",
            "expected the end",
        ),
        ("SET ^'parallelism' = '2'", "no setting"),
        ("SET 'parallelism.default' = ^'none'", "not a parallelism"),
        ("SET ^parallelism = 2", "expected a key in quotes"),
        (
            "INSERT INTO out SELECT auction FROM bids;\n^SET 'parallelism.default' = '2'",
            "SET behind",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids; ^EXPLAIN SELECT auction FROM bids",
            "either explains or runs",
        ),
        (
            "EXPLAIN SELECT auction FROM bids; ^INSERT INTO out SELECT auction FROM bids",
            "either explains or runs",
        ),
        ("EXPLAIN ^CREATE TABLE t (a INT)", "expected INSERT or SELECT"),
        ("CREATE VIEW ^bids AS SELECT auction FROM bids", "already a table"),
        ("CREATE VIEW ^v (a, b) AS SELECT auction FROM bids", "names 2 columns"),
        (
            "CREATE VIEW v AS SELECT auction FROM bids;\nINSERT INTO ^v SELECT auction FROM bids",
            "is a view",
        ),
    ]);
}

#[test]
fn tables_are_refused_where_they_are_wrong() {
    assert_refused(&[
        (
            "CREATE TABLE t (a MULTISET<^ARRAY<INT>>) WITH ('connector' = 'test')",
            "the values of a MULTISET are single values",
        ),
        (
            "CREATE TABLE t (a ^JSON) WITH ('connector' = 'test')",
            "JSON is not supported",
        ),
        (
            "CREATE TABLE t (a ^DECIMAL(39, 2)) WITH ('connector' = 'test')",
            "DECIMAL(39, 2)",
        ),
        (
            "CREATE TABLE t (a ^TIMESTAMP(12)) WITH ('connector' = 'test')",
            "TIMESTAMP(12)",
        ),
        (
            "CREATE TABLE t (a INT, ^a INT) WITH ('connector' = 'test')",
            "declared twice",
        ),
        (
            "CREATE TABLE t (a INT ^UNIQUE) WITH ('connector' = 'test')",
            "unexpected UNIQUE",
        ),
        (
            "CREATE TABLE t (a INT ^DEFAULT 5) WITH ('connector' = 'test')",
            "unexpected DEFAULT",
        ),
        (
            "CREATE TABLE t (a INT, ^PRIMARY KEY (a)) WITH ('connector' = 'test')",
            "cannot be enforced",
        ),
        (
            "CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR ts AS ^ts + INTERVAL '1' SECOND) WITH ('connector' = 'test')",
            "watermark is not supported",
        ),
        (
            "CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR ^tz AS tz) WITH ('connector' = 'test')",
            "no column tz",
        ),
        (
            "CREATE TABLE t (ts BIGINT, WATERMARK FOR ^ts AS ts) WITH ('connector' = 'test')",
            "must be a TIMESTAMP",
        ),
        (
            "CREATE TABLE t (a INT, b AS ^c + 1) WITH ('connector' = 'test')",
            "no column",
        ),
        (
            "CREATE TABLE t (a INT, b AS ^SUM(a)) WITH ('connector' = 'test')",
            "aggregate sum",
        ),
        ("CREATE TABLE ^t (b AS 1) WITH ('connector' = 'test')", "not computed"),
        (
            "CREATE TABLE t (a INT) PARTITIONED BY (^b) WITH ('connector' = 'test')",
            "no column b",
        ),
        (
            "CREATE TABLE t (a BIGINT) WITH (^'connector' = 'nope');\nINSERT INTO t SELECT auction FROM bids",
            "no connector 'nope'",
        ),
        (
            "CREATE TABLE t (a BIGINT) WITH ('connector' = 'test', ^'pth' = 'x');\nINSERT INTO t SELECT auction FROM bids",
            "unknown option",
        ),
        (
            "CREATE TABLE t (auction BIGINT) WITH ('connector' = 'test', ^'pth' = 'x');\nINSERT INTO out SELECT auction FROM t",
            "unknown option",
        ),
        (
            "CREATE TABLE t (a BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'test', 'scan.watermark.idle-timeout' = ^'soon')",
            "not a duration",
        ),
        (
            "CREATE TABLE t (a BIGINT) WITH ('connector' = 'test', ^'scan.watermark.emit.strategy' = 'x')",
            "not supported yet",
        ),
    ]);
}

#[test]
fn parse_errors_name_their_place() {
    for (text, words) in [
        ("INSERT INTO out SELECT ^FROM ", "expression"),
        ("INSERT INTO out SELECT (auction FROM bids^", "found: FROM"),
        ("CREATE TABLE t a INT", "expected the columns"),
        ("INSERT INTO out SELECT 'abc", "unterminated"),
    ] {
        let error = refused(&format!("{BIDS}{OUT}{}", text.replace('^', "")));
        assert!(
            error.position.is_some_and(|at| at.line == 6 && at.column > 12),
            "{error}"
        );
        assert!(error.message.to_lowercase().contains(&words.to_lowercase()), "{error}");
        assert!(error.excerpt.is_some(), "{error}");
    }
}

#[test]
fn refusal_shows_the_line_and_a_caret() {
    let error = refused("CREATE TABLE t (\n  a INT,\n  b FROB\n) WITH ('connector' = 'test');");
    let text = error.to_string();
    assert!(
        text.starts_with("line 3, column 5: the type FROB is not supported\n  |   b FROB\n  |     ^\nhint: "),
        "{text}"
    );
}

#[test]
fn text_without_output_is_refused() {
    let error = refused(BIDS);
    assert!(error.message.contains("writes no table"), "{error}");
    assert!(refused("").message.contains("writes no table"));
    assert!(refused("-- nothing\n;;").message.contains("writes no table"));
}

#[test]
fn comments_and_back_ticks_are_understood() {
    explain(&format!(
        "{BIDS}-- a comment\n/* another one */ EXPLAIN SELECT `auction` AS `order` /* here */ FROM `bids` -- end"
    ));
}

#[test]
fn arguments_that_fit_no_signature_are_the_writers_mistake_not_ours() {
    let error = refused(&format!(
        "{BIDS}{OUT}INSERT INTO out SELECT CHAR_LENGTH(SUBSTRING(1 FOR 2)) FROM bids"
    ));
    assert!(error.message.contains("argument 1 of SUBSTR must be STRING"), "{error}");
    assert!(
        !error.message.contains("internal") && !error.message.contains("bug"),
        "{error}"
    );
    assert!(error.position.is_some(), "{error}");
}

#[test]
fn the_hint_about_a_parallelism_names_the_limit_that_holds() {
    let set = |parallelism: &str| {
        plan(&format!(
            "SET 'parallelism.default' = '{parallelism}';\n{BIDS}{OUT}INSERT INTO out SELECT auction FROM bids"
        ))
    };
    assert!(set("256").is_ok());
    for wrong in ["0", "257", "32768"] {
        let error = set(wrong).map(drop).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("write a number from 1 to 256"), "{wrong}");
    }
}
