//! What names the state of operators: a text whose rows or results are others has other names, and never continues from
//! state that means something else.

use super::support::{BIDS, job};

const TABLES: &str = "CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');
CREATE TABLE other (n BIGINT) WITH ('connector' = 'test');\n";

/// Returns the names of the operators whose names begin like this.
fn uids(statements: &str, prefix: &str) -> Vec<String> {
    let plan = job(&format!("{BIDS}{TABLES}{statements}"));
    let names = plan.graph.nodes().iter().map(|node| node.uid.clone());
    names.filter(|uid| uid.starts_with(prefix)).collect()
}

/// Returns the name of the one operator whose name begins like this.
fn uid(select: &str, prefix: &str) -> String {
    let found = uids(&format!("INSERT INTO out {select};"), prefix);
    assert_eq!(found.len(), 1, "{select}\n{found:?}");
    found[0].clone()
}

#[test]
fn over_is_named_by_its_functions() {
    let over = |calls: &str| {
        uid(
            &format!("SELECT {calls} FROM bids WINDOW w AS (PARTITION BY auction ORDER BY ts)"),
            "over-",
        )
    };
    let sum = over("SUM(bidder) OVER w");
    assert_eq!(sum, over("SUM(bidder) OVER w + 1"));
    for other in [
        "SUM(auction) OVER w",
        "COUNT(bidder) OVER w",
        "SUM(bidder) FILTER (WHERE price > 3) OVER w",
        "MAX(bidder) OVER w",
        "LAG(bidder) OVER w",
        "LAG(bidder, 2) OVER w",
        "FIRST_VALUE(bidder) OVER w",
        "LAST_VALUE(bidder) OVER w",
        "SUM(bidder) OVER w + SUM(auction) OVER w",
    ] {
        assert_ne!(sum, over(other), "{other}");
    }
    assert_ne!(over("LAG(bidder) OVER w"), over("LAG(bidder, 2) OVER w"));
    assert_ne!(over("FIRST_VALUE(bidder) OVER w"), over("LAST_VALUE(bidder) OVER w"));
}

#[test]
fn rows_that_are_multiplied_are_others() {
    let lists = "CREATE TABLE lists (k BIGINT, tags ARRAY<STRING>, items ARRAY<STRING>, ts TIMESTAMP(3),
      WATERMARK FOR ts AS ts) WITH ('connector' = 'test');\n";
    let of = |from: &str| {
        let sql = format!(
            "{lists}CREATE VIEW v AS SELECT k, ts FROM {from}; INSERT INTO out SELECT COUNT(*) FROM v GROUP BY k;
             INSERT INTO other SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '5' SECOND))
               GROUP BY window_start, window_end, k"
        );
        let mut found = uids(&sql, "aggregate-");
        found.extend(uids(&sql, "window-aggregate-"));
        assert_eq!(found.len(), 2, "{found:?}");
        found
    };
    let tags = of("lists CROSS JOIN UNNEST(tags) AS e (x)");
    assert_eq!(tags, of("lists, UNNEST(tags) AS e (x)"));
    let mut known = tags.clone();
    for from in [
        "lists",
        "lists CROSS JOIN UNNEST(items) AS e (x)",
        "lists LEFT JOIN UNNEST(tags) AS e (x) ON TRUE",
        "lists, UNNEST(tags) AS e (x), UNNEST(tags) AS f (y)",
        "TABLE(HOP(TABLE lists, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND))",
        "TABLE(HOP(TABLE lists, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '15' SECOND))",
        "TABLE(CUMULATE(TABLE lists, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '15' SECOND))",
    ] {
        known.extend(of(from));
    }
    let count = known.len();
    known.sort();
    known.dedup();
    assert_eq!(known.len(), count, "{known:?}");
    // The number of an element beside it is no other row.
    let number = "lists CROSS JOIN UNNEST(tags) WITH ORDINALITY AS e (x, n)";
    assert_eq!(tags, of(number));
}

#[test]
fn windows_that_rows_bring_name_their_aggregation_as_before() {
    // These names are durable: see `uids_are_durable`.
    let of = |from: &str| {
        uid(
            &format!(
                "SELECT MAX(EXTRACT(SECOND FROM window_end)) FROM TABLE({from}) WHERE price > 3
                 GROUP BY window_start, window_end, auction"
            ),
            "window-aggregate-",
        )
    };
    let hop = "SELECT window_start, window_end, price FROM
      TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND))";
    let united =
        format!("SELECT COUNT(*) FROM ({hop} UNION ALL {hop} WHERE price > 3) GROUP BY window_start, window_end");
    assert_eq!(
        [
            of("HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)"),
            of("CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)"),
            uid(&united, "window-aggregate-"),
        ],
        [
            "window-aggregate-c4e113b0ea3d0c5b",
            "window-aggregate-f6477a79ebd0fab8",
            "window-aggregate-6342f6ec93812174",
        ]
    );
}

#[test]
fn computed_columns_are_what_they_are_computed_of() {
    let of = |columns: &str| {
        let sql = format!(
            "CREATE TABLE sales (price BIGINT, at TIMESTAMP(3), {columns}, WATERMARK FOR ts AS ts) WITH ('connector' = 'test');
             INSERT INTO out SELECT SUM(amount) FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '5' SECOND))
               WHERE amount > 0 GROUP BY window_start, window_end"
        );
        uids(&sql, "window-aggregate-").remove(0)
    };
    let double = of("ts AS at, amount AS price * 2");
    assert_eq!(double, of("unused AS price + 1, amount AS price * 2, ts AS at"));
    assert_ne!(double, of("ts AS at, amount AS price * 3"));
    assert_ne!(double, of("ts AS at + INTERVAL '1' SECOND, amount AS price * 2"));
}

#[test]
fn computed_time_that_repeats_a_column_is_a_time_of_its_own() {
    let sql = "CREATE TABLE sales (price BIGINT, at TIMESTAMP(3), ts AS at, WATERMARK FOR ts AS ts) WITH ('connector' = 'test');
      INSERT INTO out SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '5' SECOND))
        GROUP BY at, window_start, window_end";
    assert_eq!(uids(sql, "window-aggregate-").len(), 1);
}
