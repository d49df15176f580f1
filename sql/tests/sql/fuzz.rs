//! No text makes the planner panic, overflow or take long: random bytes, random tokens, and mutated queries.

use super::support::{BIDS, plan};
use proptest::prelude::*;

const SEEDS: &[&str] = &[
    "CREATE TABLE t (a INT NOT NULL, b AS a + 1, m STRING METADATA FROM 'k' VIRTUAL, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND, PRIMARY KEY (a) NOT ENFORCED) PARTITIONED BY (a) WITH ('connector' = 'test'); INSERT INTO t (a) SELECT price FROM bids;",
    "CREATE VIEW v (x) AS SELECT auction FROM bids WHERE channel LIKE 'a%' AND price BETWEEN 1 AND 5; INSERT INTO out SELECT x FROM v UNION ALL SELECT CAST(price AS BIGINT) FROM bids;",
    "INSERT INTO out SELECT COUNT(DISTINCT bidder) FILTER (WHERE price > 1) FROM TABLE(TUMBLE(DATA => TABLE bids, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '5' SECOND)) GROUP BY window_start, window_end, channel HAVING SUM(price) > 3;",
    "SET 'table.exec.state.ttl' = '1 h'; INSERT INTO out SELECT DISTINCT SUM(n) FROM (SELECT auction, channel, COUNT(*) AS n, MAX(price) AS most FROM bids GROUP BY auction, channel HAVING COUNT(DISTINCT bidder) > 1 UNION SELECT bidder, channel, 1, price FROM bids) GROUP BY channel;",
    "INSERT INTO out SELECT MAX(n) FROM (SELECT auction, window_start, window_end, window_time AS t, COUNT(*) AS n FROM TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end, window_time) GROUP BY window_start, window_end;",
    "INSERT INTO out SELECT COUNT(*) FROM SESSION(TABLE bids PARTITION BY (auction, channel), DESCRIPTOR(ts), GAP => INTERVAL '1' MINUTE) GROUP BY auction, channel, window_start, window_end UNION ALL SELECT price FROM CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '5' SECOND) GROUP BY price, window_start, window_end;",
    "EXPLAIN PLAN FOR SELECT CASE WHEN price IS NULL THEN UPPER(channel) ELSE SUBSTRING(channel FROM 1 FOR 2) END AS c, EXTRACT(HOUR FROM ts), NOW(), RAND() FROM bids WHERE fee * 1.5 > 2 OR rate IN (1, 2);",
    "SET 'parallelism.default' = '2'; INSERT INTO out WITH a AS (SELECT auction FROM bids), b AS (SELECT auction FROM a) SELECT auction FROM (SELECT auction FROM b) AS q;",
];

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "(",
    ")",
    ",",
    ";",
    "*",
    "bids",
    "out",
    "auction",
    "price",
    "channel",
    "ts",
    "'x'",
    "1",
    "1.5",
    "NULL",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    "AS",
    "UNION",
    "ALL",
    "INSERT",
    "INTO",
    "CREATE",
    "TABLE",
    "VIEW",
    "WITH",
    "TUMBLE",
    "HOP",
    "SESSION",
    "PARTITION",
    "DESCRIPTOR",
    "INTERVAL",
    "SECOND",
    "'5'",
    "COUNT",
    "SUM",
    "window_start",
    "window_end",
    "AND",
    "OR",
    "NOT",
    "=",
    "<",
    "+",
    "-",
    "/",
    "||",
    "LIKE",
    "IN",
    "BETWEEN",
    "CAST",
    "INT",
    "STRING",
    "ROW",
    "`",
    "\"",
    "/*",
    "*/",
    "--",
    "\n",
    "JOIN",
    "ON",
    "OVER",
    "ORDER",
    "LIMIT",
    "FOR",
    "SYSTEM_TIME",
    "OF",
    "EXPLAIN",
    "SET",
    "VALUES",
    "DISTINCT",
    "HAVING",
    "FILTER",
    "NOW",
    "RAND",
    "EXTRACT",
    "YEAR",
    "LATERAL",
    "UNNEST",
    "ARRAY",
    "[",
    "]",
    "{",
    "}",
    "JSON_OBJECT",
    "JSON_ARRAYAGG",
    "JSON_VALUE",
    "JSON_QUERY",
    "JSON",
    "KEY",
    "VALUE",
    "NULL",
    "ABSENT",
    "EMPTY",
    "ERROR",
    "DEFAULT",
    "RETURNING",
    "WRAPPER",
    "MEDIAN",
    "PERCENTILE",
    "COLLECT",
    "CORR",
    "MATCH_RECOGNIZE",
    "PIVOT",
    "WATERMARK",
    "METADATA",
    "::",
    "->",
    "=>",
    "$1",
    "?",
    "@",
    "é",
    "\u{0}",
    "😀",
];

fn survives(text: &str) {
    for text in [
        text.to_owned(),
        format!("{BIDS}CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');\n{text}"),
    ] {
        if let Err(error) = plan(&text) {
            // Errors in the planner itself are bugs, whatever the text.
            assert!(!error.message.starts_with("internal error"), "{error}\n{text}");
            // A position lies in the text.
            if let Some(at) = error.position {
                let lines = text.split('\n').count() as u64;
                assert!(at.line >= 1 && at.line <= lines, "{at} of {lines} lines\n{text}");
            }
        }
    }
}

#[test]
fn seeds_are_understood() {
    for seed in SEEDS {
        let text = format!("{BIDS}CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');\n{seed}");
        if let Err(error) = plan(&text) {
            panic!("{error}\n{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_words(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        survives(&words.join(" "));
    }

    #[test]
    fn mutated_queries(
        seed in prop::sample::select(SEEDS),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, prop::sample::select(WORDS)), 1..5),
    ) {
        let mut words: Vec<String> = seed.split_inclusive([' ', '(', ')', ',']).map(str::to_owned).collect();
        for (at, kind, word) in edits {
            let at = at.index(words.len());
            match kind {
                0 => words[at] = format!("{word} "),
                1 => words.insert(at, format!("{word} ")),
                2 if words.len() > 1 => { words.remove(at); }
                _ => { let copy = words[at].clone(); words.push(copy); }
            }
        }
        survives(&words.concat());
    }
}
