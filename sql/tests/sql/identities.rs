//! What names the state of operators: a text whose rows or results are others has other names, and never continues from
//! state that means something else.

use super::support::{BIDS, bids, job, rows, run};
use std::collections::BTreeMap;

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
            "window-aggregate-d83ffa61e291752c",
            "window-aggregate-a81d4fae7ff46e89",
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

#[test]
fn names_do_not_depend_on_what_stands_before() {
    let at_once = "a.ts BETWEEN b.ts - INTERVAL '1' SECOND AND b.ts + INTERVAL '1' SECOND";
    let join = |column: &str| {
        format!(
            "SELECT a.x FROM (SELECT {column} AS x, auction, ts FROM bids) AS a JOIN bids AS b
             ON a.auction = b.bidder AND {at_once}"
        )
    };
    let top = |column: &str| {
        format!(
            "SELECT x FROM (SELECT x, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS place
               FROM (SELECT {column} AS x, auction, price FROM bids)) WHERE place <= 3"
        )
    };
    let over = |column: &str| {
        format!(
            "SELECT x + SUM(bidder) OVER (PARTITION BY auction ORDER BY ts)
             FROM (SELECT {column} AS x, bidder, auction, ts FROM bids)"
        )
    };
    let cases = [
        ("join-", join("bidder"), join("price")),
        ("join-", join("price * 2"), join("price * 3")),
        ("top-n-", top("bidder"), top("price")),
        ("over-", over("auction"), over("price")),
    ];
    for (prefix, one, another) in cases {
        let (name, of_another) = (uid(&one, prefix), uid(&another, prefix));
        assert_ne!(name, of_another, "{one}\n{another}");
        let first = uids(&format!("INSERT INTO out {one}; INSERT INTO other {another};"), prefix);
        assert_eq!(first, [name.clone(), of_another.clone()]);
        let last = uids(&format!("INSERT INTO other {another}; INSERT INTO out {one};"), prefix);
        assert_eq!(last, [of_another, name]);
    }
}

#[test]
fn a_second_aggregation_of_one_name_is_named_by_its_columns() {
    let of = |name: &str| format!("SELECT COUNT(*) FROM (SELECT auction AS {name}, price FROM bids) GROUP BY {name}");
    let both = |first: &str, second: &str| {
        uids(
            &format!("INSERT INTO out {}; INSERT INTO other {};", of(first), of(second)),
            "aggregate-",
        )
    };
    let (ab, ac) = (both("a", "b"), both("a", "c"));
    assert_eq!(ab[0], uid(&of("a"), "aggregate-"));
    assert_eq!(ab[0], ac[0]);
    assert_ne!(ab[1], ac[1]);
    let three = format!(
        "INSERT INTO out {}; INSERT INTO out {}; INSERT INTO other {};",
        of("a"),
        of("c"),
        of("b")
    );
    assert_eq!(
        uids(&three, "aggregate-"),
        [ab[0].clone(), ac[1].clone(), ab[1].clone()]
    );
}

#[test]
fn every_join_draws_numbers_of_its_own() {
    let join = "SELECT a.price FROM bids AS a JOIN bids AS b ON a.auction = b.auction AND RAND() < 0.5";
    let sql = format!("{BIDS}{TABLES}INSERT INTO out {join}; INSERT INTO other {join};");
    let plan = job(&sql);
    let nodes = plan.graph.nodes().iter();
    assert_eq!(nodes.filter(|node| node.uid.starts_with("join-")).count(), 2);
    // 400 pairs: two draws that agree on all of them would be the same numbers.
    let columns = "1,10,100,web,1.50,0.5,2026-01-01T00:00:00\n".repeat(20);
    let schema = bids().schema();
    let types: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| (field.name().as_str(), field.data_type().clone()))
        .collect();
    let numbered: Vec<String> = columns
        .lines()
        .enumerate()
        .map(|(row, line)| line.replace(",100,", &format!(",{row},")))
        .collect();
    let rows = rows(&types, &numbered.join("\n"));
    let sinks = run(&plan.graph, &BTreeMap::from([("bids", rows)])).unwrap();
    assert!(
        sinks["out"].len() > 100 && sinks["out"].len() < 300,
        "{}",
        sinks["out"].len()
    );
    assert_ne!(sinks["out"], sinks["other"]);
}
