//! Results that change: `GROUP BY` without a window, `DISTINCT`, and what reads them.

use super::engine::{assert_engine_agrees, sink, tables};
use super::support::{BIDS, explain, query, refused};

#[test]
fn all_aggregates_without_a_window() {
    let rows = query(
        "a BIGINT, n BIGINT, p BIGINT, sum_p INT, lo INT, hi INT, users BIGINT, web BIGINT, fee DECIMAL(38, 2)",
        "SELECT auction, COUNT(*), COUNT(price), SUM(price), MIN(price), MAX(price), COUNT(DISTINCT bidder),
           COUNT(DISTINCT bidder) FILTER (WHERE channel = 'web'), SUM(fee)
         FROM bids GROUP BY auction",
    );
    assert_eq!(
        rows,
        [
            "1|3|3|600|100|300|2|1|13.74",
            "2|2|1|50|50|50|2|1|0.10",
            "3|1|1|-7|-7|-7|1|0|0.00"
        ]
    );
}

#[test]
fn whole_stream_is_one_group() {
    assert_eq!(
        query("n BIGINT, m INT", "SELECT COUNT(*), MAX(price) FROM bids"),
        ["6|300"]
    );
    assert_eq!(
        query("n BIGINT", "SELECT COUNT(*) FROM bids WHERE price > 1000"),
        [] as [&str; 0]
    );
}

#[test]
fn distinct_rows_and_unions_of_them() {
    assert_eq!(
        query("a BIGINT, b BIGINT", "SELECT DISTINCT auction, bidder FROM bids").len(),
        5
    );
    let union = query(
        "x BIGINT",
        "SELECT auction FROM bids UNION SELECT bidder - 10 FROM bids",
    );
    assert_eq!(union, ["0", "1", "2", "3"]);
}

#[test]
fn aggregates_on_the_engine() {
    let columns = "a BIGINT, c STRING, n BIGINT, users BIGINT, big_users BIGINT, total INT, lo INT, hi INT, rate DOUBLE, web BIGINT";
    let select =
        "SELECT auction, channel, COUNT(*), COUNT(DISTINCT bidder), COUNT(DISTINCT bidder) FILTER (WHERE price > 200),
           SUM(price), MIN(price), MAX(price), AVG(rate), COUNT(*) FILTER (WHERE channel = 'web')
         FROM bids GROUP BY auction, channel";
    assert_engine_agrees(&format!("{}INSERT INTO out {select}", tables(&sink("out", columns))));
    // All rows are a few groups, and several columns are counted.
    let columns = "day STRING, n BIGINT, web BIGINT, users BIGINT, web_users BIGINT, big_users BIGINT, auctions BIGINT,
      big_auctions BIGINT, channels BIGINT, long_channels BIGINT, last STRING";
    let select = "SELECT TO_CHAR(ts, '%Y-%m-%d'), COUNT(*), COUNT(*) FILTER (WHERE channel = 'web'),
           COUNT(DISTINCT bidder), COUNT(DISTINCT bidder) FILTER (WHERE channel = 'web'),
           COUNT(DISTINCT bidder) FILTER (WHERE price > 200), COUNT(DISTINCT auction),
           COUNT(DISTINCT auction) FILTER (WHERE price > 200), COUNT(DISTINCT channel),
           COUNT(DISTINCT channel) FILTER (WHERE price > 200), MAX(channel)
         FROM bids GROUP BY TO_CHAR(ts, '%Y-%m-%d')";
    assert_engine_agrees(&format!("{}INSERT INTO out {select}", tables(&sink("out", columns))));
    let columns = "a BIGINT, n BIGINT, total INT, lo INT, hi INT, rate DOUBLE";
    let select = "SELECT auction, COUNT(*), SUM(price), MIN(price), MAX(price), AVG(rate) FROM bids GROUP BY auction
         HAVING MAX(price) - MIN(price) > 100";
    assert_engine_agrees(&format!("{}INSERT INTO out {select}", tables(&sink("out", columns))));
    let sinks = sink("out", "n BIGINT, m INT") + &sink("pairs", "a BIGINT, b BIGINT");
    assert_engine_agrees(&format!(
        "{}INSERT INTO out SELECT COUNT(*), SUM(price) FROM bids;
         INSERT INTO pairs SELECT DISTINCT auction, bidder FROM bids",
        tables(&sinks)
    ));
}

#[test]
fn aggregates_of_aggregates_take_back_what_changed() {
    let counts = "SELECT bidder, auction, COUNT(*) AS n, MAX(price) AS most FROM bids GROUP BY bidder, auction";
    let sinks = sink(
        "out",
        "a BIGINT, n BIGINT, total BIGINT, mean BIGINT, lo BIGINT, hi INT, kinds BIGINT, many BIGINT",
    );
    assert_engine_agrees(&format!(
        "{}CREATE VIEW counts AS {counts};
         INSERT INTO out SELECT auction, COUNT(*), SUM(n), AVG(n), MIN(n), MAX(most), COUNT(DISTINCT n),
           COUNT(*) FILTER (WHERE n > 4) FROM counts WHERE n > 1 GROUP BY auction",
        tables(&sinks)
    ));
    // Only sums and different values: there is a stage before the exchange over changes, too.
    let sinks = sink(
        "out",
        "n BIGINT, bidders BIGINT, total BIGINT, kinds BIGINT, high BIGINT, of BIGINT",
    ) + &sink("kinds", "n BIGINT");
    assert_engine_agrees(&format!(
        "{}CREATE VIEW counts AS {counts};
         INSERT INTO out SELECT n, COUNT(*), SUM(most), COUNT(DISTINCT most),
           COUNT(DISTINCT most) FILTER (WHERE most > 200), COUNT(DISTINCT bidder) FROM counts GROUP BY n;
         INSERT INTO kinds SELECT DISTINCT n FROM counts",
        tables(&sinks)
    ));
}

#[test]
fn union_of_what_changes_and_what_does_not() {
    let sinks = sink("out", "k BIGINT, n BIGINT") + &sink("total", "n BIGINT, s BIGINT");
    assert_engine_agrees(&format!(
        "{}CREATE VIEW both_kinds AS SELECT auction AS k, COUNT(*) AS n FROM bids GROUP BY auction
           UNION ALL SELECT bidder, CAST(price AS BIGINT) FROM bids WHERE price > 400
           UNION ALL SELECT DISTINCT bidder, CAST(0 AS BIGINT) FROM bids;
         INSERT INTO out SELECT k, n FROM both_kinds;
         INSERT INTO total SELECT COUNT(*), SUM(n) FROM both_kinds WHERE n > 10",
        tables(&sinks)
    ));
}

#[test]
fn keys_alone_are_read_of_a_result_that_changes() {
    let sinks = sink("out", "k BIGINT") + &sink("n", "n BIGINT");
    assert_engine_agrees(&format!(
        "{}CREATE VIEW counts AS SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction;
         INSERT INTO out SELECT auction FROM counts;
         INSERT INTO n SELECT COUNT(*) FROM counts",
        tables(&sinks)
    ));
}

#[test]
fn rows_with_a_primary_key_see_one_change_per_key() {
    let sinks = sink("out", "most INT, a BIGINT, PRIMARY KEY (a) NOT ENFORCED");
    let sql = format!(
        "{}INSERT INTO out SELECT MAX(price), auction FROM bids GROUP BY auction",
        tables(&sinks)
    );
    assert_engine_agrees(&sql);
    let text = explain(&sql.replace("INSERT", "EXPLAIN INSERT").replace("'memory'", "'test'"));
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" changes ")).collect();
    assert_eq!(lines.len(), 4, "aggregate, projection, by key, sink: {text}");
    assert!(lines[2].contains("changes by key"), "{text}");
    assert!(!text.contains("__weight"), "{text}");
}

#[test]
fn what_needs_rows_that_stay_refuses_a_result_that_changes() {
    let out = "CREATE TABLE out (a BIGINT, t TIMESTAMP_LTZ(3)) WITH ('connector' = 'test');\n";
    let error = refused(&format!(
        "{BIDS}{out}INSERT INTO out SELECT auction, NOW() FROM (SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction)"
    ));
    assert!(error.message.contains("chance over a result that changes"), "{error}");
    let error = refused(&format!(
        "{BIDS}CREATE TABLE t (__weight BIGINT) WITH ('connector' = 'test')"
    ));
    assert!(error.message.contains("no column can be named __weight"), "{error}");
    let counts = "(SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction)";
    for (call, hint) in [
        (
            "CAST(STDDEV_POP(n) AS BIGINT)",
            "make it of COUNT(x), SUM(x) and SUM(x * x)",
        ),
        ("BIT_AND(n)", "aggregate rows that stay"),
        ("LAST_VALUE(n)", "aggregate rows that stay"),
    ] {
        let error = refused(&format!("{BIDS}{out}INSERT INTO out (a) SELECT {call} FROM {counts}"));
        assert!(
            error
                .message
                .contains("over a result that changes is not supported yet"),
            "{error}"
        );
        assert!(
            error.position.is_some() && error.hint.as_ref().is_some_and(|known| known.contains(hint)),
            "{error}"
        );
    }
}

#[test]
fn time_to_live_of_state_is_a_setting() {
    let text = explain(&format!(
        "SET 'table.exec.state.ttl' = '2 h';\n{BIDS}EXPLAIN SELECT auction, COUNT(*) FROM bids GROUP BY auction"
    ));
    assert!(text.contains("forgotten after 7200000 ms"), "{text}");
    let text = explain(&format!(
        "SET 'table.exec.state.ttl' = '0 s';\n{BIDS}EXPLAIN SELECT auction, COUNT(*) FROM bids GROUP BY auction"
    ));
    assert!(!text.contains("forgotten"), "{text}");
}

#[test]
fn distinct_rows_of_which_only_some_columns_are_read() {
    let mut rows = query(
        "x BIGINT, y INT",
        "SELECT d.bidder, b.price FROM (SELECT DISTINCT auction, channel, bidder FROM bids) AS d
         JOIN bids AS b ON d.bidder = b.bidder WHERE b.price > 60",
    );
    rows.sort();
    // Bidder 10 has bid for two auctions.
    assert_eq!(rows, ["10|100", "10|100", "10|300", "10|300", "11|200"]);
    let mut rows = query(
        "x BIGINT",
        "SELECT bidder FROM (SELECT DISTINCT auction, bidder FROM bids
         UNION ALL SELECT DISTINCT auction + 1 AS auction, bidder FROM bids)",
    );
    rows.sort();
    assert_eq!(rows, ["10", "10", "10", "10", "11", "11", "12", "12", "13", "13"]);
}
