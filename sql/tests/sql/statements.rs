//! Statements as Flink's users write them: statement sets, LIKE, AS SELECT, DROP, hints, and those that only answer.

use super::support::{BIDS, bids, explain, job, refused, run};
use std::collections::BTreeMap;

const OUT: &str = "CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');\n";

/// Runs a text over the bids; the rows of each sink.
fn rows(text: &str) -> BTreeMap<String, Vec<String>> {
    run(&job(text).graph, &BTreeMap::from([("bids", bids())])).unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts that texts behind the tables are refused with these words at this line and column.
fn assert_refused(cases: &[(&str, &str)]) {
    for (text, words) in cases {
        let at = text.find('^').unwrap_or_else(|| panic!("no ^ in {text}"));
        let before = format!("{BIDS}{OUT}{}", &text[..at]);
        let error = refused(&format!("{BIDS}{OUT}{}", text.replacen('^', "", 1)));
        let line = before.matches('\n').count() as u64 + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() as u64 + 1;
        let place = error.position.map(|at| (at.line, at.column));
        assert!(error.message.contains(words), "{text}\n{error}");
        assert_eq!(place, Some((line, column)), "{text}\n{error}");
        assert!(error.hint.is_some(), "{error}");
    }
}

#[test]
fn statement_sets_are_one_job_in_every_form() {
    let inserts = "INSERT INTO out SELECT auction FROM bids WHERE price = 100;\n\
                   INSERT INTO out SELECT bidder FROM bids WHERE price = 100;";
    for text in [
        format!("EXECUTE STATEMENT SET BEGIN {inserts} END;"),
        format!("EXECUTE STATEMENT SET\nAS BEGIN {inserts} END"),
        format!("BEGIN STATEMENT SET; {inserts} END;"),
        inserts.replace("INSERT", "EXECUTE INSERT"),
    ] {
        let mut found = rows(&format!("{BIDS}{OUT}{text}"))["out"].clone();
        found.sort_unstable();
        assert_eq!(found, ["1", "10"], "{text}");
    }
    let text = explain(&format!("{BIDS}{OUT}EXPLAIN STATEMENT SET BEGIN {inserts} END;"));
    assert_eq!(text.matches("== logical plan ==").count(), 2, "{text}");
    assert!(text.contains("== job graph =="), "{text}");
}

#[test]
fn statement_sets_hold_inserts_only_and_end() {
    assert_refused(&[
        (
            "^BEGIN STATEMENT SET; INSERT INTO out SELECT auction FROM bids;",
            "no END",
        ),
        ("BEGIN STATEMENT SET; ^CREATE TABLE t (a INT); END;", "only INSERT"),
        ("^EXECUTE STATEMENT SET BEGIN END;", "empty"),
        ("BEGIN ^WORK;", "STATEMENT SET"),
        ("^END;", "no statement set"),
        (
            "EXECUTE STATEMENT SET ^INSERT INTO out SELECT auction FROM bids",
            "expected BEGIN",
        ),
        ("EXECUTE ^SELECT auction FROM bids", "expected INSERT"),
        ("EXPLAIN ^ESTIMATED_COST SELECT auction FROM bids", "ESTIMATED_COST"),
    ]);
}

#[test]
fn a_table_like_another_takes_over_what_is_said() {
    let base = "CREATE TABLE base (a BIGINT, b AS a + 1, ts TIMESTAMP(3), WATERMARK FOR ts AS ts, PRIMARY KEY (a) NOT ENFORCED)
        PARTITIONED BY (a) WITH ('connector' = 'test', 'path' = 'x');\n";
    let made = |like: &str| explain(&format!("{base}CREATE TABLE t {like};\nSHOW CREATE TABLE t;"));
    assert_eq!(
        made("(c INT) WITH ('path' = 'y') LIKE base"),
        "CREATE TABLE `t` (
  `a` BIGINT,
  `b` AS a + 1,
  `ts` TIMESTAMP(3),
  `c` INT,
  WATERMARK FOR `ts` AS ts,
  PRIMARY KEY (`a`) NOT ENFORCED
) PARTITIONED BY (`a`) WITH (
  'path' = 'y',
  'connector' = 'test'
)
"
    );
    assert_eq!(
        made("WITH ('connector' = 'test') LIKE base (EXCLUDING ALL INCLUDING GENERATED)"),
        "CREATE TABLE `t` (\n  `a` BIGINT,\n  `b` AS a + 1,\n  `ts` TIMESTAMP(3)\n) WITH (\n  'connector' = 'test'\n)\n"
    );
    let text = made(
        "(b AS a * 2, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
         LIKE base (OVERWRITING GENERATED, OVERWRITING WATERMARKS EXCLUDING PARTITIONS)",
    );
    assert!(
        text.contains("`b` AS a * 2") && text.contains("AS ts - INTERVAL '1' SECOND") && !text.contains("PARTITIONED"),
        "{text}"
    );
    assert_refused(&[
        ("CREATE TABLE t (^auction INT) LIKE bids", "column auction already"),
        (
            "CREATE TABLE t (WATERMARK FOR ^ts AS ts) LIKE bids",
            "watermark already",
        ),
        (
            "CREATE TABLE t WITH (^'connector' = 'test') LIKE bids (INCLUDING OPTIONS)",
            "option 'connector' already",
        ),
        ("CREATE TABLE t LIKE ^nope", "no table or view nope"),
        ("CREATE TABLE t LIKE bids (^KEEPING ALL)", "like option"),
        ("CREATE TABLE t LIKE bids (INCLUDING ^COLORS)", "no feature"),
        ("CREATE TABLE t LIKE bids (^OVERWRITING ALL)", "cannot be OVERWRITING"),
        (
            "CREATE VIEW v AS SELECT auction FROM bids; CREATE TABLE t LIKE ^v",
            "is a view",
        ),
    ]);
}

#[test]
fn a_table_as_select_has_the_querys_columns_and_rows() {
    let text = format!(
        "{BIDS}CREATE TABLE t COMMENT 'x' WITH ('connector' = 'test') AS SELECT auction, price * 2 AS twice FROM bids WHERE price = 100;
         INSERT INTO t SELECT bidder, price FROM bids WHERE price = 300;"
    );
    let mut found = rows(&text)["t"].clone();
    found.sort_unstable();
    assert_eq!(found, ["10|300", "1|200"]);
    assert_refused(&[
        (
            "CREATE TABLE t (^a INT) AS SELECT auction FROM bids",
            "columns of its query",
        ),
        (
            "CREATE TABLE ^t WITH ('connector' = 'test') AS SELECT NULL AS a FROM bids",
            "is NULL",
        ),
        (
            "CREATE TABLE ^out WITH ('connector' = 'test') AS SELECT auction FROM bids",
            "already a table",
        ),
    ]);
}

#[test]
fn dropped_names_are_free_unless_the_job_uses_them() {
    let text = format!(
        "DROP TABLE IF EXISTS bids;{BIDS}{OUT}DROP TEMPORARY TABLE out;
         CREATE TABLE out (b INT) WITH ('connector' = 'test');
         CREATE VIEW v AS SELECT auction FROM bids; DROP VIEW v;
         CREATE VIEW v AS SELECT price FROM bids WHERE price = 50;
         CREATE VIEW w AS SELECT price FROM v;
         DROP VIEW v;
         DROP TABLE bids;
         INSERT INTO out SELECT price FROM w;
         DROP TABLE out;"
    );
    assert_eq!(rows(&text)["out"], ["50"]);
    assert_refused(&[
        ("DROP TABLE ^nope", "no table or view nope"),
        ("DROP VIEW ^bids", "is a table"),
        ("DROP ^FUNCTION IF EXISTS f", "DROP FUNCTION"),
        (
            "INSERT INTO out SELECT auction FROM bids; DROP TABLE out; CREATE TABLE ^out (a INT) WITH ('connector' = 'test');",
            "uses the table out",
        ),
        (
            "CREATE TABLE s (k BIGINT, p AS PROCTIME()) WITH ('connector' = 'test');
             CREATE TABLE dim (k BIGINT, a BIGINT) WITH ('connector' = 'test');
             INSERT INTO out SELECT dim.a FROM s JOIN dim FOR SYSTEM_TIME AS OF s.p ON s.k = dim.k;
             DROP TABLE dim; CREATE TABLE ^dim (k BIGINT) WITH ('connector' = 'test');",
            "a statement above uses the table dim",
        ),
        (
            "DROP TABLE bids; INSERT INTO out SELECT auction FROM ^bids",
            "no table or view bids",
        ),
    ]);
}

#[test]
fn options_in_hints_make_another_source_or_sink() {
    let text = format!(
        "{BIDS}{OUT}INSERT INTO out /*+ OPTIONS('path' = 'o') */ SELECT bids.auction FROM bids /*+ OPTIONS('path' = 'x') */;
         INSERT INTO out SELECT auction FROM TABLE(TUMBLE(TABLE bids /*+ OPTIONS('path'='x') */, DESCRIPTOR(ts), INTERVAL '1' SECOND));
         INSERT INTO out SELECT b.auction FROM bids AS b"
    );
    let planned = job(&text);
    let sources: Vec<&str> = planned
        .graph
        .nodes()
        .iter()
        .map(|node| node.uid.as_str())
        .filter(|uid| uid.starts_with("source") || uid.starts_with("sink"))
        .collect();
    assert_eq!(
        sources,
        [
            "source:bids /*+ OPTIONS('path'='x') */",
            "source:bids",
            "sink:out /*+ OPTIONS('path'='o') */",
            "sink:out",
            "sink:out:2"
        ]
    );
    assert!(
        planned
            .tables
            .iter()
            .all(|table| table.name == "bids" || table.name == "out")
    );
    assert_refused(&[
        (
            "INSERT INTO out SELECT auction FROM bids /*+ OPTIONS(^'pth' = 'x') */",
            "unknown option",
        ),
        (
            "INSERT INTO out WITH c AS (SELECT auction FROM bids) SELECT auction FROM ^c /*+ OPTIONS('a'='b') */",
            "WITH query",
        ),
        (
            "CREATE VIEW v AS SELECT auction FROM bids; INSERT INTO out SELECT auction FROM ^v /*+ OPTIONS('a'='b') */",
            "is a view",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids /*+ ^FROB('a'='b') */",
            "FROB is not known",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids /*+ OPTIONS(^a) */",
            "expected 'key'",
        ),
        (
            "INSERT INTO out SELECT auction FROM bids AS b /*+ ^OPTIONS('a'='b') */",
            "cannot stand here",
        ),
        (
            "INSERT INTO out SELECT auction /*+ ^OPTIONS('a'='b') */ + 1 FROM bids",
            "cannot stand here",
        ),
        (
            "INSERT INTO out SELECT /*+ ^STATE_TTL('b' = '1d') */ auction FROM bids",
            "STATE_TTL",
        ),
        (
            "INSERT INTO out SELECT /*+\n ^FROB */ auction FROM bids",
            "FROB is not known",
        ),
        (
            "CREATE TABLE t /*+ ^OPTIONS('a'='b') */ (a INT) WITH ('connector' = 'test')",
            "cannot stand here",
        ),
    ]);
}

#[test]
fn hints_without_effect_are_told() {
    let text = format!("{BIDS}{OUT}INSERT INTO out SELECT /*+ BROADCAST(bids), NEST_LOOP(a, b) */ auction FROM bids");
    let notes = job(&text).notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("line 6, column 28: the hint BROADCAST has no effect"),
        "{notes:?}"
    );
    let text = explain(&text.replace("INSERT INTO out", "EXPLAIN"));
    assert!(text.contains("the hint NEST_LOOP has no effect"), "{text}");
}

#[test]
fn functions_that_need_over_are_shown() {
    let text = explain(&format!("{BIDS}SHOW FUNCTIONS LIKE '%a_k'; SHOW FUNCTIONS LIKE 'l%a%'"));
    assert!(text.contains("dense_rank\nrank\n"), "{text}");
    assert!(
        text.contains("lag\n") && text.matches("last_value").count() == 1,
        "{text}"
    );
}

#[test]
fn show_and_describe_answer() {
    let text = format!(
        "{BIDS}{OUT}CREATE VIEW v (x) AS SELECT price FROM bids;
         CREATE TABLE k (a VARCHAR(3) COMMENT 'it''s', m STRING METADATA FROM 'key' VIRTUAL, PRIMARY KEY (a) NOT ENFORCED) WITH ('connector' = 'test');
         SHOW TABLES; SHOW TABLES LIKE 'b%'; SHOW VIEWS; DESCRIBE bids; DESC EXTENDED v; SHOW COLUMNS FROM k LIKE '%'; SHOW CREATE VIEW v;
         SHOW CREATE TABLE k; SHOW FUNCTIONS LIKE 'upp__'; SHOW USER FUNCTIONS;"
    );
    let expected = "table name
----------
bids
k
out
v

table name
----------
bids

view name
---------
v

name    | type                   | null | key | extras | watermark
------- | ---------------------- | ---- | --- | ------ | --------------------------
auction | BIGINT                 | TRUE |     |        |
bidder  | BIGINT                 | TRUE |     |        |
price   | INT                    | TRUE |     |        |
channel | STRING                 | TRUE |     |        |
fee     | DECIMAL(10, 2)         | TRUE |     |        |
rate    | DOUBLE                 | TRUE |     |        |
ts      | TIMESTAMP(3) *ROWTIME* | TRUE |     |        | ts - INTERVAL '2' SECOND

name | type | null | key | extras | watermark
---- | ---- | ---- | --- | ------ | ---------
x    | INT  | TRUE |     |        |

name | type       | null  | key    | extras                      | watermark
---- | ---------- | ----- | ------ | --------------------------- | ---------
a    | VARCHAR(3) | FALSE | PRI(a) |                             |
m    | STRING     | TRUE  |        | METADATA FROM 'key' VIRTUAL |

CREATE VIEW `v` (`x`) AS SELECT price FROM bids

CREATE TABLE `k` (
  `a` VARCHAR(3) COMMENT 'it''s',
  `m` STRING METADATA FROM 'key' VIRTUAL,
  PRIMARY KEY (`a`) NOT ENFORCED
) WITH (
  'connector' = 'test'
)

function name
-------------
upper

function name
-------------
";
    let found = explain(&text);
    let found: Vec<&str> = found.lines().map(str::trim_end).collect();
    assert_eq!(
        found.join("\n") + "\n",
        expected.replace(" --------------------------\n", " ------------------------\n")
    );
    assert_refused(&[
        (
            "INSERT INTO out SELECT auction FROM bids; ^SHOW TABLES",
            "either explains or runs",
        ),
        (
            "SHOW TABLES; ^INSERT INTO out SELECT auction FROM bids",
            "either explains or runs",
        ),
        ("SHOW ^CATALOGS", "no catalogs"),
        ("SHOW TABLES ^FROM db", "no catalogs"),
        ("SHOW ^FROBS", "SHOW FROBS"),
        ("DESCRIBE ^nope", "no table or view nope"),
        ("DESCRIBE ^DATABASE x", "DESCRIBE DATABASE"),
        ("SHOW CREATE TABLE ^nope", "no table or view nope"),
        ("SHOW CREATE VIEW ^bids", "is a table"),
    ]);
}

#[test]
fn reset_takes_settings_back() {
    let set = "SET 'parallelism.default' = '2'; SET 'pipeline.name' = 'n';";
    let insert = format!("{BIDS}{OUT}INSERT INTO out SELECT auction FROM bids");
    let settings = |text: &str| job(&format!("{set}{text}{insert}")).settings;
    assert_eq!(settings("").parallelism, Some(2));
    let one = settings("RESET 'parallelism.default';");
    assert_eq!((one.parallelism, one.name.as_deref()), (None, Some("n")));
    assert_eq!(settings("RESET;"), tidemill_sql::Settings::default());
    assert_refused(&[
        ("RESET ^'parallelism.default'", "is not set"),
        ("INSERT INTO out SELECT auction FROM bids; ^RESET", "SET behind"),
    ]);
}

#[test]
fn statements_of_catalogs_and_clients_are_refused_with_what_to_do() {
    assert_refused(&[
        ("^USE CATALOG c", "USE"),
        ("^ALTER TABLE bids RENAME TO b", "ALTER"),
        ("^ADD JAR 'x.jar'", "ADD"),
        ("CREATE ^CATALOG c WITH ('type' = 'x')", "CATALOG"),
        ("CREATE ^DATABASE d", "DATABASE"),
        ("^ANALYZE TABLE bids COMPUTE STATISTICS", "ANALYZE"),
        ("^STOP JOB 'x'", "STOP"),
    ]);
}
