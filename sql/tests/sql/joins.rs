//! Joins: what they mean, by hand; what is kept and why; whole jobs on the engine are in `engine`.

use super::support::{explain, job, rows, run};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, TimeUnit};
use std::collections::BTreeMap;

/// Orders and shipments, the one a minute long allowed to be on its way.
const TABLES: &str = "
CREATE TABLE orders (id BIGINT, item STRING, amount INT, ts TIMESTAMP(3), until TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('connector' = 'test');
CREATE TABLE shipments (id BIGINT, order_id INT, place STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'test');
CREATE TABLE places (name STRING, country STRING) WITH ('connector' = 'test');
";

fn tables() -> BTreeMap<&'static str, RecordBatch> {
    let time = || DataType::Timestamp(TimeUnit::Millisecond, None);
    let orders = rows(
        &[
            ("id", DataType::Int64),
            ("item", DataType::Utf8),
            ("amount", DataType::Int32),
            ("ts", time()),
            ("until", time()),
        ],
        "1,pen,5,2026-01-01T00:00:00,2026-01-01T00:00:30
2,ink,1,2026-01-01T00:00:10,2026-01-01T00:00:11
3,pen,7,2026-01-01T00:00:20,2026-01-01T00:09:00
NULL,cup,2,2026-01-01T00:00:21,2026-01-01T00:09:00
5,cup,3,2026-01-01T00:00:40,NULL",
    );
    let shipments = rows(
        &[
            ("id", DataType::Int64),
            ("order_id", DataType::Int32),
            ("place", DataType::Utf8),
            ("ts", time()),
        ],
        "100,1,Oslo,2026-01-01T00:00:05
101,1,Rome,2026-01-01T00:00:10
102,1,Rome,2026-01-01T00:00:10.001
103,2,Oslo,2026-01-01T00:00:09.999
104,3,Bern,2026-01-01T00:00:25
105,NULL,Oslo,2026-01-01T00:00:22
106,5,Rome,2026-01-01T00:00:41",
    );
    let places = rows(
        &[("name", DataType::Utf8), ("country", DataType::Utf8)],
        "Oslo,Norway\nRome,Italy",
    );
    BTreeMap::from([("orders", orders), ("shipments", shipments), ("places", places)])
}

fn answers(columns: &str, query: &str) -> Vec<String> {
    let sql = format!("{TABLES}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\nINSERT INTO out {query};");
    let mut sinks = run(&job(&sql).graph, &tables()).unwrap_or_else(|error| panic!("{error}\n{query}"));
    let mut rows = sinks.remove("out").unwrap();
    rows.sort();
    rows
}

fn explained(query: &str) -> String {
    explain(&format!("{TABLES}EXPLAIN {query};"))
}

#[test]
fn inner_join_in_all_its_spellings() {
    let expected = ["1|100", "1|101", "1|102", "2|103", "3|104", "5|106"];
    for query in [
        "SELECT o.id, s.id FROM orders AS o JOIN shipments AS s ON o.id = s.order_id",
        "SELECT o.id, s.id FROM shipments AS s INNER JOIN orders AS o ON s.order_id = o.id",
        "SELECT o.id, s.id FROM orders AS o, shipments AS s WHERE o.id = s.order_id",
        "SELECT o.id, s.id FROM orders AS o CROSS JOIN shipments AS s WHERE s.order_id = o.id",
        "SELECT o.id, s.ship FROM orders AS o JOIN (SELECT order_id AS id, id AS ship FROM shipments) AS s USING (id)",
        "SELECT o.id, s.id FROM (orders AS o JOIN shipments AS s ON o.id * 2 = s.order_id + s.order_id)",
        "SELECT o.id, s.id FROM orders AS o JOIN shipments AS s ON o.id = s.order_id AND TRUE AND o.amount > 0",
    ] {
        assert_eq!(answers("o BIGINT, s BIGINT", query), expected, "{query}");
    }
}

#[test]
fn conditions_besides_the_key() {
    let rows = answers(
        "o BIGINT, s BIGINT, p STRING",
        "SELECT o.id, s.id, UPPER(s.place) || o.item FROM orders AS o JOIN shipments AS s ON o.id = s.order_id
           AND o.amount + s.order_id > 6 WHERE s.place <> 'Bern' OR o.item = 'pen'",
    );
    assert_eq!(rows, ["3|104|BERNpen", "5|106|ROMEcup"]);
    // What is asked of one side alone is asked before the join, and only what is read is carried.
    let plan = explained(
        "SELECT o.item FROM orders AS o JOIN shipments AS s ON o.id = s.order_id WHERE o.amount > 1 AND s.place = 'Oslo'",
    );
    let filters = plan.lines().filter(|line| line.contains(" filter <-")).count();
    assert_eq!(filters, 2, "{plan}");
    assert!(!plan.contains("and ("), "{plan}");
    assert!(plan.contains("left rows are kept for ever"), "{plan}");
}

#[test]
fn joins_of_joins() {
    let rows = answers(
        "o BIGINT, p STRING, c STRING",
        "SELECT o.id, s.place, p.country FROM orders AS o JOIN shipments AS s ON o.id = s.order_id
           JOIN places AS p ON s.place = p.name WHERE o.amount >= 3 AND s.id <> 101",
    );
    assert_eq!(rows, ["1|Oslo|Norway", "1|Rome|Italy", "5|Rome|Italy"]);
    let rows = answers(
        "n BIGINT, m BIGINT",
        "SELECT a.id, b.id FROM orders AS a, orders AS b WHERE a.item = b.item AND a.id < b.id",
    );
    assert_eq!(rows, ["1|3"]);
}

#[test]
fn interval_joins_of_all_kinds() {
    // Inclusive bounds: 101 is exactly ten seconds later, 102 a millisecond too late, 103 a millisecond too early.
    let bounds = "o.id = s.order_id AND s.ts BETWEEN o.ts AND o.ts + INTERVAL '10' SECOND";
    for (kind, more) in [
        ("", vec![]),
        ("LEFT", vec!["2|NULL", "NULL|NULL"]),
        ("RIGHT", vec!["NULL|102", "NULL|103", "NULL|105"]),
        (
            "FULL OUTER",
            vec!["2|NULL", "NULL|102", "NULL|103", "NULL|105", "NULL|NULL"],
        ),
    ] {
        let mut expected = vec!["1|100", "1|101", "3|104", "5|106"];
        expected.extend(more);
        expected.sort_unstable();
        let query = format!("SELECT o.id, s.id FROM orders AS o {kind} JOIN shipments AS s ON {bounds}");
        assert_eq!(answers("o BIGINT, s BIGINT", &query), expected, "{query}");
    }
    let strict = "SELECT o.id, s.id FROM orders AS o, shipments AS s WHERE o.id = s.order_id
        AND s.ts >= o.ts - INTERVAL '1' SECOND AND o.ts > s.ts - INTERVAL '10' SECOND";
    assert_eq!(
        answers("o BIGINT, s BIGINT", strict),
        ["1|100", "2|103", "3|104", "5|106"]
    );
    let plan = explained(strict);
    assert!(
        plan.contains("left rows are kept until the right watermark (ts) reaches ts +9999 ms"),
        "{plan}"
    );
    assert!(
        plan.contains("right rows are kept until the left watermark (ts) reaches ts +1000 ms"),
        "{plan}"
    );
}

#[test]
fn conditions_above_an_outer_join_stay_above() {
    let bounds = "o.id = s.order_id AND s.ts BETWEEN o.ts AND o.ts + INTERVAL '10' SECOND";
    let rows = answers(
        "o BIGINT, s BIGINT",
        &format!(
            "SELECT o.id, s.id FROM orders AS o LEFT JOIN shipments AS s ON {bounds} AND o.amount > 4 AND s.place <> 'Rome'
             WHERE s.id IS NULL AND o.id > 0"
        ),
    );
    assert_eq!(rows, ["2|NULL", "5|NULL"]);
}

#[test]
fn bounds_by_other_columns_of_the_other_side() {
    let query = "SELECT o.id, s.id FROM orders AS o, shipments AS s
        WHERE o.id = s.order_id AND s.ts BETWEEN o.ts AND o.until";
    assert_eq!(
        answers("o BIGINT, s BIGINT", query),
        ["1|100", "1|101", "1|102", "3|104"]
    );
    let plan = explained(query);
    assert!(
        plan.contains("left rows are kept until the right watermark (ts) reaches until"),
        "{plan}"
    );
    assert!(
        plan.contains("right rows are kept until the left watermark (ts) reaches ts"),
        "{plan}"
    );
}

const HALF: &str = "INTERVAL '20' SECOND";

#[test]
fn window_joins_of_all_kinds() {
    let side = |table: &str| format!("TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), {HALF}))");
    let on = "o.id = s.order_id AND o.window_start = s.window_start AND o.window_end = s.window_end";
    let (orders, shipments) = (side("orders"), side("shipments"));
    for (kind, more) in [
        ("", vec![]),
        ("LEFT", vec!["NULL|NULL"]),
        ("RIGHT", vec!["NULL|105"]),
        ("FULL", vec!["NULL|NULL", "NULL|105"]),
    ] {
        let mut expected = vec!["1|100", "1|101", "1|102", "2|103", "3|104", "5|106"];
        expected.extend(more);
        expected.sort_unstable();
        let query = format!(
            "SELECT o.id, s.id FROM (SELECT * FROM {orders}) AS o {kind} JOIN (SELECT * FROM {shipments}) AS s ON {on}"
        );
        assert_eq!(answers("o BIGINT, s BIGINT", &query), expected, "{query}");
        let plan = explained(&query);
        assert!(
            plan.contains("left rows are kept until the right watermark (window_start)"),
            "{plan}"
        );
    }
    let semi = |condition: &str| {
        answers(
            "o BIGINT, i STRING",
            &format!("SELECT o.id, o.item FROM (SELECT * FROM {orders}) AS o WHERE o.item <> 'none' AND {condition}"),
        )
    };
    let same = "o.window_start = s.window_start AND o.window_end = s.window_end";
    let rome = format!(
        "EXISTS (SELECT * FROM (SELECT * FROM {shipments}) AS s WHERE {same} AND s.order_id = o.id AND s.place = 'Rome')"
    );
    assert_eq!(semi(&rome), ["1|pen", "5|cup"]);
    assert_eq!(semi(&format!("NOT {rome}")), ["2|ink", "3|pen", "NULL|cup"]);
    let listed = format!("o.id IN (SELECT s.order_id FROM (SELECT * FROM {shipments}) AS s WHERE {same})");
    assert_eq!(semi(&listed), ["1|pen", "2|ink", "3|pen", "5|cup"]);
}

#[test]
fn windowed_counts_joined_with_their_maximum() {
    let counts = "SELECT item, COUNT(*) AS n, window_start, window_end
        FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '20' SECOND, INTERVAL '40' SECOND))
        GROUP BY item, window_start, window_end";
    let query = format!(
        "SELECT c.window_start, c.item, c.n FROM ({counts}) AS c
         JOIN (SELECT MAX(n) AS most, window_start, window_end FROM ({counts}) GROUP BY window_start, window_end) AS m
         ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.n >= m.most"
    );
    let expected = [
        "2025-12-31T23:59:40|ink|1",
        "2025-12-31T23:59:40|pen|1",
        "2026-01-01T00:00:00|pen|2",
        "2026-01-01T00:00:20|cup|2",
        "2026-01-01T00:00:40|cup|1",
    ];
    assert_eq!(answers("w TIMESTAMP(3), i STRING, n BIGINT", &query), expected);
    assert!(!explained(&query).contains("held back"), "{}", explained(&query));
}

#[test]
fn rows_joined_with_an_aggregate_of_their_window() {
    let query = "SELECT o.id, o.amount FROM orders AS o JOIN (
          SELECT MAX(amount) AS amount, window_end FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '20' SECOND))
          GROUP BY window_start, window_end) AS m
        ON o.amount = m.amount WHERE o.ts BETWEEN m.window_end - INTERVAL '20' SECOND AND m.window_end";
    assert_eq!(answers("o BIGINT, a INT", query), ["1|5", "3|7", "5|3"]);
    let plan = explained(query);
    assert!(
        plan.contains("left rows are kept until the right watermark (window_end) reaches ts +19999 ms"),
        "{plan}"
    );
    assert!(
        plan.contains("right rows are kept until the left watermark (ts) reaches window_end"),
        "{plan}"
    );
}

#[test]
fn time_attributes_behind_a_join_are_those_that_watermarks_hold_for() {
    let windows = |time: &str, bounds: &str| {
        format!(
            "SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE j, DESCRIPTOR({time}), INTERVAL '1' MINUTE))
             GROUP BY window_start, window_end|CREATE VIEW j AS SELECT o.ts AS ots, s.ts AS sts
             FROM orders AS o JOIN shipments AS s ON o.id = s.order_id AND {bounds};"
        )
    };
    let planned = |text: String| {
        let (query, view) = text.split_once('|').unwrap();
        super::support::plan(&format!("{TABLES}{view}\nEXPLAIN {query};"))
    };
    let both = "s.ts BETWEEN o.ts AND o.ts + INTERVAL '10' SECOND";
    assert!(planned(windows("ots", both)).is_ok());
    assert!(planned(windows("sts", both)).is_ok());
    // An order may be as old as it likes when the shipment comes; a shipment is not older than the order.
    let by_column = "s.ts BETWEEN o.ts AND o.until";
    assert!(planned(windows("sts", by_column)).is_ok());
    for (time, bounds) in [("ots", by_column), ("ots", "o.amount > 1"), ("sts", "o.amount > 1")] {
        let Err(error) = planned(windows(time, bounds)) else {
            panic!("{time} {bounds}")
        };
        assert!(error.message.contains("not the event time"), "{error}");
    }
}

#[test]
fn time_to_live_of_unbounded_joins_is_a_setting() {
    let query = "SELECT o.id, s.id FROM orders AS o JOIN shipments AS s ON o.id = s.order_id";
    let plan = explain(&format!("SET 'table.exec.state.ttl' = '1 h';{TABLES}EXPLAIN {query};"));
    assert!(
        plan.contains("left rows are kept for 3600s (table.exec.state.ttl)"),
        "{plan}"
    );
    assert!(explained(query).contains("kept for ever"));
}

/// Prices that change: the one of a moment is the latest until then.
const PRICES: &str = "
CREATE TABLE prices (item STRING, price INT, seq INT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND, PRIMARY KEY (item) NOT ENFORCED) WITH ('connector' = 'test');
";

#[test]
fn joins_with_the_version_of_a_row_at_a_time() {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let columns = [
        ("item", DataType::Utf8),
        ("price", DataType::Int32),
        ("seq", DataType::Int32),
        ("ts", time),
    ];
    let prices = rows(
        &columns,
        "pen,10,1,2026-01-01T00:00:00
pen,11,2,2026-01-01T00:00:20
ink,20,3,2026-01-01T00:00:10.001
pen,12,4,2026-01-01T00:00:20.001
cup,30,5,2026-01-01T00:00:21
cup,31,6,2026-01-01T00:00:30",
    );
    let mut tables = tables();
    tables.insert("prices", prices);
    let answers = |columns: &str, query: &str| {
        let sql = format!(
            "{TABLES}{PRICES}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\nINSERT INTO out {query};"
        );
        let mut sinks = run(&job(&sql).graph, &tables).unwrap_or_else(|error| panic!("{error}\n{query}"));
        let mut rows = sinks.remove("out").unwrap();
        rows.sort();
        rows
    };
    let as_of = "prices FOR SYSTEM_TIME AS OF o.ts AS p ON p.item = o.item";
    let expected = ["1|10", "3|11", "5|31", "NULL|30"];
    let query = format!("SELECT o.id, p.price FROM orders AS o JOIN {as_of}");
    assert_eq!(answers("o BIGINT, p INT", &query), expected);
    let query = format!("SELECT o.id, p.price FROM orders AS o LEFT JOIN {as_of}");
    assert_eq!(
        answers("o BIGINT, p INT", &query),
        ["1|10", "2|NULL", "3|11", "5|31", "NULL|30"]
    );
    // What else is asked makes no older version valid, in ON or in WHERE.
    let query = format!("SELECT o.id, p.price FROM orders AS o LEFT JOIN {as_of} AND p.price <> 31 WHERE o.id > 2");
    assert_eq!(answers("o BIGINT, p INT", &query), ["3|11", "5|NULL"]);
    let query = format!("SELECT o.id, p.price FROM orders AS o JOIN {as_of} WHERE p.price <> 31 AND o.amount > 1");
    assert_eq!(answers("o BIGINT, p INT", &query), ["1|10", "3|11", "NULL|30"]);
    // The stream's time goes on.
    let query = format!(
        "SELECT window_start, SUM(price) FROM (SELECT * FROM TABLE(TUMBLE(TABLE j, DESCRIPTOR(ts), INTERVAL '20' SECOND)))
           GROUP BY window_start, window_end|CREATE VIEW j AS SELECT o.ts, p.price FROM orders AS o JOIN {as_of};"
    );
    let (query, view) = query.split_once('|').unwrap();
    let sql = format!(
        "{TABLES}{PRICES}{view} CREATE TABLE out (w TIMESTAMP(3), p INT) WITH ('connector' = 'test');\nINSERT INTO out {query};"
    );
    assert_eq!(
        run(&job(&sql).graph, &tables).unwrap()["out"],
        [
            "2026-01-01T00:00:00|10",
            "2026-01-01T00:00:20|41",
            "2026-01-01T00:00:40|31"
        ]
    );
}

#[test]
fn joins_as_of_a_time_are_refused_where_they_have_none() {
    let refused = |query: &str| super::support::refused(&format!("{TABLES}{PRICES}EXPLAIN {query};")).message;
    let message =
        refused("SELECT 1 FROM orders AS o JOIN prices FOR SYSTEM_TIME AS OF o.until AS p ON p.item = o.item");
    assert!(message.contains("until is not the event time"), "{message}");
    let message = refused("SELECT 1 FROM orders AS o JOIN prices FOR SYSTEM_TIME AS OF o.ts AS p ON p.seq = o.amount");
    assert!(message.contains("no equality with item"), "{message}");
    let message = refused("SELECT 1 FROM orders AS o JOIN places FOR SYSTEM_TIME AS OF o.ts AS p ON p.name = o.item");
    assert!(message.contains("no PRIMARY KEY"), "{message}");
    let message = refused("SELECT 1 FROM prices FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01 00:00:00'");
    assert!(message.contains("outside of a join"), "{message}");
    let message =
        refused("SELECT 1 FROM orders AS o RIGHT JOIN prices FOR SYSTEM_TIME AS OF o.ts AS p ON p.item = o.item");
    assert!(message.contains("neither INNER nor LEFT"), "{message}");
}

#[test]
fn conditions_of_a_join_with_itself_tell_its_sides_apart() {
    let of = |name: &str, condition: &str| {
        format!(
            "CREATE TABLE {name} (x INT, y INT) WITH ('connector' = 'test');
             INSERT INTO {name} SELECT a.amount, b.amount FROM orders AS a JOIN orders AS b
               ON a.item = b.item AND {condition};"
        )
    };
    let sql = [
        of("more", "a.amount > b.amount"),
        of("less", "b.amount > a.amount"),
        of(
            "before",
            "a.ts BETWEEN b.ts - INTERVAL '30' SECOND AND b.ts - INTERVAL '1' SECOND",
        ),
        of(
            "behind",
            "b.ts BETWEEN a.ts - INTERVAL '30' SECOND AND a.ts - INTERVAL '1' SECOND",
        ),
    ];
    let sinks = run(&job(&format!("{TABLES}{}", sql.concat())).graph, &tables()).unwrap();
    let rows = |name: &str| {
        let mut rows = sinks[name].clone();
        rows.sort();
        rows
    };
    assert_eq!(rows("more"), ["3|2", "7|5"]);
    assert_eq!(rows("less"), ["2|3", "5|7"]);
    assert_eq!(rows("before"), ["2|3", "5|7"]);
    assert_eq!(rows("behind"), ["3|2", "7|5"]);
}
