//! Which columns are times behind what changes the order of rows, and which window a window's column is of.

use super::support::{BIDS, explain, job, query, refused};

/// Says why a query is refused.
fn refusal(select: &str) -> String {
    let out = "CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');\n";
    refused(&format!("{BIDS}{out}INSERT INTO out {select};")).message
}

#[test]
fn rows_leave_over_in_the_order_of_one_time() {
    let pairs = "SELECT a.auction, a.ts AS first, b.ts AS second FROM bids AS a JOIN bids AS b ON a.auction = b.auction
      AND b.ts BETWEEN a.ts - INTERVAL '1' HOUR AND a.ts + INTERVAL '1' HOUR";
    let counted = |by: &str, windows: &str| {
        format!(
            "WITH pairs AS ({pairs}), counted AS (SELECT *, COUNT(*) OVER (PARTITION BY auction ORDER BY {by}) AS n FROM pairs)
             SELECT MAX(n) FROM TABLE(TUMBLE(TABLE counted, DESCRIPTOR({windows}), INTERVAL '5' SECOND))
             GROUP BY window_start, window_end"
        )
    };
    assert_eq!(query("n BIGINT", &counted("first", "first")), ["6", "9", "1"]);
    // The other time may be an hour behind the watermark when the row comes out.
    assert!(refusal(&counted("first", "second")).contains("second is not the event time"));
    let over = |by: &str, from: &str| {
        format!(
            "SELECT MAX(n) FROM (SELECT *, COUNT(*) OVER (PARTITION BY auction ORDER BY {by}) AS n FROM {from})
             GROUP BY window_start, window_end"
        )
    };
    let tumble = |of: &str, by: &str| format!("TABLE(TUMBLE(TABLE {of}, DESCRIPTOR({by}), INTERVAL '5' SECOND))");
    // Windows of the time that orders end no earlier.
    assert_eq!(query("n BIGINT", &over("ts", &tumble("bids", "ts"))), ["2", "3", "1"]);
    assert_eq!(
        query("n BIGINT", &over("window_time", &tumble("bids", "ts"))),
        ["2", "3", "1"]
    );
    let other = format!("WITH pairs AS ({pairs}) {}", over("first", &tumble("pairs", "second")));
    // Their sides are columns like others now, and the aggregation one that changes.
    let plan = job(&format!(
        "{BIDS}CREATE TABLE out (n BIGINT) WITH ('connector' = 'test'); INSERT INTO out {other};"
    ));
    assert!(plan.graph.nodes().iter().any(|node| node.uid.starts_with("aggregate-")));
}

#[test]
fn windows_of_two_times_are_two_windows() {
    let pairs = "SELECT a.price, a.ts AS first, b.ts AS second FROM bids AS a JOIN bids AS b ON a.price = b.price
      AND b.ts BETWEEN a.ts - INTERVAL '1' HOUR AND a.ts + INTERVAL '1' HOUR";
    let sql = format!(
        "WITH pairs AS ({pairs}),
         one AS (SELECT price, first, second, window_start AS s, window_end AS e
           FROM TABLE(TUMBLE(TABLE pairs, DESCRIPTOR(first), INTERVAL '5' SECOND))),
         two AS (SELECT price, s, e, window_start AS s2, window_end AS e2
           FROM TABLE(TUMBLE(TABLE one, DESCRIPTOR(second), INTERVAL '5' SECOND)))"
    );
    // Two windows in one GROUP BY: the rows' own is the first that is named, and the other one is a key.
    let text = explain(&format!(
        "{BIDS}EXPLAIN {sql} SELECT s2, COUNT(*) FROM two GROUP BY s, e, s2, e2"
    ));
    let node = text
        .lines()
        .find(|line| line.contains("window-aggregate"))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(node.contains("s2"), "the start of the other window is a key:\n{text}");
    assert!(refusal(&format!("{sql} SELECT COUNT(*) FROM two GROUP BY s, e2")).contains("of different windows"));
}

#[test]
fn the_same_windows_of_two_tables_are_one_behind_union_and_join() {
    let of = |channel: &str| {
        format!(
            "SELECT auction, window_start, window_end FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))
             WHERE channel = '{channel}'"
        )
    };
    let united = query(
        "n BIGINT",
        &format!(
            "SELECT COUNT(*) FROM ({} UNION ALL {}) GROUP BY window_start, window_end",
            of("web"),
            of("app")
        ),
    );
    assert_eq!(united, ["3", "1"]);
    let joined = query(
        "n BIGINT",
        &format!(
            "SELECT COUNT(*) FROM ({}) AS l JOIN ({}) AS r ON l.window_start = r.window_start AND l.window_end = r.window_end
             GROUP BY l.window_start, r.window_end",
            of("web"),
            of("app")
        ),
    );
    assert_eq!(joined, ["2"]);
}

#[test]
fn every_grouping_names_the_windows_time_or_none() {
    let words = "does not name the window, and another does";
    assert!(
        refusal(
            "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))
             GROUP BY window_start, window_end, GROUPING SETS ((window_time), (auction))"
        )
        .contains(words)
    );
    let rows = query(
        "n BIGINT",
        "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))
         GROUP BY window_start, window_end, window_time, GROUPING SETS ((), (auction))",
    );
    assert_eq!(rows.len(), 3 + 5);
}

#[test]
fn a_bound_does_not_take_the_time_from_under_a_window() {
    let numbered = "SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY price DESC) AS place
      FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND))";
    let again = |from: &str| {
        format!(
            "WITH numbered AS ({numbered}), plain AS (SELECT ts, price, place FROM numbered), again AS (SELECT price, place, window_start AS s, window_end AS e FROM {from})
             SELECT COUNT(*) FROM again WHERE place <= 3 GROUP BY s, e"
        )
    };
    // The first rows of ten seconds come when these are over, behind the windows of their own times.
    let late = "TABLE(TUMBLE(TABLE plain, DESCRIPTOR(ts), INTERVAL '1' SECOND))";
    assert!(refusal(&again(late)).contains("no filter bounds"));
    assert_eq!(query("n BIGINT", &again("numbered")), ["3", "1"]);
    // Numbers in the order of time stay, and are filtered like any column.
    let by_time = "WITH numbered AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY ts) AS place FROM bids)
      SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE numbered, DESCRIPTOR(ts), INTERVAL '5' SECOND))
      WHERE place <= 1 GROUP BY window_start, window_end";
    assert_eq!(query("n BIGINT", by_time), ["2", "1"]);
}
