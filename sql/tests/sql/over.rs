//! `OVER`: top-N, deduplication, and what is computed of the rows before each row.

use super::support::{BIDS, explain, query, refused};

/// The bids with their number in an order.
fn numbered(over: &str) -> String {
    format!("(SELECT *, ROW_NUMBER() OVER ({over}) AS place FROM bids)")
}

#[test]
fn first_rows_of_each_key_with_their_number() {
    let rows = query(
        "a BIGINT, p INT, n BIGINT",
        &format!(
            "SELECT auction, price, place FROM {} WHERE place <= 2",
            numbered("PARTITION BY auction ORDER BY price DESC")
        ),
    );
    assert_eq!(rows, ["1|200|2", "1|300|1", "2|50|1", "2|NULL|2", "3|-7|1"]);
}

#[test]
fn bounds_of_the_number_in_all_their_forms() {
    let over = "PARTITION BY auction ORDER BY price ASC, bidder DESC";
    let all = |bound: &str| {
        query(
            "p INT, b BIGINT",
            &format!("SELECT price, bidder FROM {} WHERE {bound}", numbered(over)),
        )
    };
    let two = ["-7|13", "100|10", "200|11", "50|10", "NULL|12"];
    for bound in [
        "place <= 2",
        "place < 3",
        "3 > place",
        "place BETWEEN 1 AND 2",
        "place <= 5 AND 2 >= place",
    ] {
        assert_eq!(all(bound), two, "{bound}");
    }
    assert_eq!(all("place = 2"), ["200|11", "50|10"]);
    assert_eq!(all("place > 1 AND place <= 3"), ["200|11", "300|10", "50|10"]);
    assert_eq!(all("place <= 2 AND price > 60"), ["100|10", "200|11"]);
    assert!(all("place <= 0").is_empty());
}

#[test]
fn bound_lies_in_a_query_around_a_view_or_in_qualify() {
    let sql = format!(
        "{BIDS}CREATE TABLE out (a BIGINT, p INT) WITH ('connector' = 'test');
         CREATE VIEW ranked AS SELECT auction AS a, price * 2 AS twice,
           ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS n FROM bids;
         CREATE VIEW dear AS SELECT a, twice, n FROM ranked WHERE twice > 250;
         EXPLAIN INSERT INTO out SELECT a, twice FROM dear WHERE n = 1;"
    );
    let text = explain(&sql);
    assert!(text.contains("top-n") && !text.contains("over <-"), "{text}");
    let rows = query(
        "a BIGINT, p INT",
        "SELECT auction, price FROM bids QUALIFY ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) = 1",
    );
    assert_eq!(rows, ["1|300", "2|50", "3|-7"]);
}

#[test]
fn number_that_is_not_selected_is_not_made() {
    let text = |columns: &str| {
        explain(&format!(
            "{BIDS}EXPLAIN SELECT {columns} FROM {} WHERE place <= 3",
            numbered("PARTITION BY bidder ORDER BY price DESC")
        ))
    };
    let node = |text: String| {
        text.lines()
            .find(|line| line.contains(" top-n "))
            .map(str::to_owned)
            .unwrap()
    };
    let without = node(text("bidder"));
    assert!(without.contains("(bidder Int64) changes"), "{without}");
    let with = node(text("bidder, place"));
    assert!(with.contains("(bidder Int64, row_number Int64) changes"), "{with}");
}

#[test]
fn deduplication_by_event_time() {
    let one = |order: &str| {
        query(
            "a BIGINT, p INT",
            &format!(
                "SELECT auction, price FROM {} WHERE place = 1",
                numbered(&format!("PARTITION BY auction ORDER BY ts {order}"))
            ),
        )
    };
    assert_eq!(one("ASC"), ["1|100", "2|50", "3|-7"]);
    assert_eq!(one("DESC"), ["1|300", "2|NULL", "3|-7"]);
}

#[test]
fn first_rows_of_each_window_are_final() {
    let rows = query(
        "e TIMESTAMP(3), a BIGINT, total INT, place BIGINT",
        "SELECT window_end, auction, total, place FROM (
           SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY total DESC) AS place FROM (
             SELECT window_start, window_end, auction, SUM(price) AS total
             FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))
             GROUP BY window_start, window_end, auction))
         WHERE place <= 2",
    );
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:05|1|300|1",
            "2026-01-01T00:00:05|2|50|2",
            "2026-01-01T00:00:10|1|300|1",
            "2026-01-01T00:00:10|2|NULL|2",
            "2026-01-01T00:00:15|3|-7|1",
        ],
        "and no weight"
    );
    // Deduplication per window, and an aggregation by the windows of the result.
    let rows = query(
        "e TIMESTAMP(3), n BIGINT",
        "SELECT window_end, COUNT(*) FROM (
           SELECT window_start, window_end,
             ROW_NUMBER() OVER (PARTITION BY window_start, window_end, bidder ORDER BY ts DESC) AS place
           FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)))
         WHERE place = 1 GROUP BY window_start, window_end",
    );
    assert_eq!(rows, ["2026-01-01T00:00:10|3", "2026-01-01T00:00:20|1"]);
    // The last millisecond of the window is an event time again.
    let rows = query(
        "e TIMESTAMP(3), n BIGINT",
        "WITH best AS (SELECT window_time AS t FROM (
           SELECT window_time, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY price DESC) AS place
           FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))) WHERE place = 1)
         SELECT window_end, COUNT(*) FROM TABLE(TUMBLE(TABLE best, DESCRIPTOR(t), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end",
    );
    assert_eq!(rows, ["2026-01-01T00:00:10|2", "2026-01-01T00:00:20|1"]);
}

#[test]
fn aggregates_of_the_rows_before() {
    let rows = query(
        "a BIGINT, n BIGINT, total INT, recent BIGINT, pair INT, before_ INT, users BIGINT",
        "SELECT auction, COUNT(*) OVER w, SUM(price) OVER w,
           COUNT(*) OVER (PARTITION BY auction ORDER BY ts RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND CURRENT ROW),
           MAX(price) OVER (PARTITION BY auction ORDER BY ts ROWS BETWEEN 1 PRECEDING AND CURRENT ROW),
           LAG(price, 1, -1) OVER w, COUNT(DISTINCT bidder) OVER w
         FROM bids WINDOW w AS (PARTITION BY auction ORDER BY ts)",
    );
    assert_eq!(
        rows,
        [
            "1|1|100|1|100|-1|1",
            "1|2|300|2|200|100|2",
            "2|1|50|1|50|-1|1",
            "2|2|50|2|50|50|2",
            "1|3|600|1|300|200|2",
            "3|1|-7|1|-7|-1|1",
        ]
    );
}

#[test]
fn numbers_in_the_order_of_event_time_stay() {
    let rows = query(
        "a BIGINT, n BIGINT, f BIGINT",
        "SELECT auction, ROW_NUMBER() OVER w, FIRST_VALUE(bidder) OVER w
        FROM bids WINDOW w AS (PARTITION BY auction ORDER BY ts)",
    );
    assert_eq!(rows, ["1|1|10", "1|2|10", "2|1|10", "2|2|10", "1|3|10", "3|1|13"]);
    let alone = query(
        "n BIGINT, c STRING",
        "SELECT ROW_NUMBER() OVER (ORDER BY ts), channel FROM bids",
    );
    assert_eq!(alone, ["1|web", "2|app", "3|web", "4|NULL", "5|web", "6|App"]);
}

#[test]
fn order_of_processing_time_is_that_in_which_rows_come() {
    let one = |order: &str| {
        let sql = format!(
            "SELECT auction, price FROM {} WHERE place = 1",
            numbered(&format!("PARTITION BY auction ORDER BY PROCTIME() {order}"))
        );
        let text = explain(&format!("{BIDS}EXPLAIN {sql}"));
        let node = text.lines().find(|line| line.contains(" top-n "));
        (
            query("a BIGINT, p INT", &sql),
            node.is_some_and(|node| node.contains(" changes")),
        )
    };
    let first = ["1|100", "2|50", "3|-7"].map(str::to_owned).to_vec();
    assert_eq!(one("ASC"), (first, false), "no first row is ever taken back");
    let last = ["1|300", "2|NULL", "3|-7"].map(str::to_owned).to_vec();
    assert_eq!(one("DESC"), (last, true));
    let rows = query(
        "a BIGINT, n BIGINT, total INT, all_ BIGINT",
        "SELECT auction, ROW_NUMBER() OVER w, SUM(price) OVER w,
           COUNT(*) OVER (PARTITION BY auction ORDER BY PROCTIME() RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND CURRENT ROW)
         FROM bids WINDOW w AS (PARTITION BY auction ORDER BY PROCTIME() ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    );
    // All rows came at one moment.
    assert_eq!(
        rows,
        [
            "1|1|100|3",
            "1|2|300|3",
            "2|1|50|2",
            "2|2|50|2",
            "1|3|500|3",
            "3|1|-7|1"
        ]
    );
}

#[test]
fn functions_that_share_a_window_share_an_operator() {
    let text = explain(&format!(
        "{BIDS}EXPLAIN SELECT SUM(price) OVER w, AVG(price) OVER w, COUNT(*) OVER w FROM bids
         WINDOW w AS (PARTITION BY auction ORDER BY ts ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)"
    ));
    assert_eq!(text.matches(" over <-").count(), 1, "{text}");
}

#[test]
fn windows_over_rows_with_their_results() {
    let rows = query(
        "e TIMESTAMP(3), most BIGINT",
        "WITH counted AS (SELECT ts, COUNT(*) OVER (PARTITION BY auction ORDER BY ts) AS n FROM bids)
         SELECT window_end, MAX(n) FROM TABLE(TUMBLE(TABLE counted, DESCRIPTOR(ts), INTERVAL '5' SECOND))
         GROUP BY window_start, window_end",
    );
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:05|2",
            "2026-01-01T00:00:10|3",
            "2026-01-01T00:00:15|1"
        ]
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_hint() {
    let cases = [
        ("SELECT auction, place FROM {price}", "no filter bounds"),
        ("SELECT auction FROM {price} WHERE place > 3", "no filter bounds"),
        (
            "SELECT auction FROM {price} WHERE place < 10 OR price > 5",
            "no filter bounds",
        ),
        (
            "SELECT RANK() OVER (PARTITION BY auction ORDER BY price) FROM bids",
            "RANK is not supported",
        ),
        (
            "SELECT DENSE_RANK() OVER (ORDER BY price) FROM bids",
            "DENSE_RANK is not supported",
        ),
        (
            "SELECT ROW_NUMBER() OVER (PARTITION BY auction) FROM bids",
            "without an order",
        ),
        (
            "SELECT SUM(price) OVER (PARTITION BY auction ORDER BY bidder) FROM bids",
            "not the event time",
        ),
        ("SELECT SUM(price) OVER (ORDER BY ts DESC) FROM bids", "falling time"),
        (
            "SELECT SUM(price) OVER (PARTITION BY auction) FROM bids",
            "without an order",
        ),
        (
            "SELECT SUM(price) OVER (ORDER BY ts ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM bids",
            "FOLLOWING",
        ),
        (
            "SELECT SUM(price) OVER (ORDER BY ts ROWS BETWEEN 9 PRECEDING AND 1 PRECEDING) FROM bids",
            "this frame is not supported",
        ),
        (
            "SELECT LEAD(price) OVER (ORDER BY ts) FROM bids",
            "lead is not supported",
        ),
        (
            "SELECT LAG(price, bidder) OVER (ORDER BY ts) FROM bids",
            "offset of LAG",
        ),
        ("SELECT UPPER(channel) OVER (ORDER BY ts) FROM bids", "takes no OVER"),
        ("SELECT ROW_NUMBER() FROM bids", "needs OVER"),
        (
            "SELECT auction FROM bids WHERE ROW_NUMBER() OVER (ORDER BY ts) = 1",
            "cannot stand here",
        ),
        (
            "SELECT SUM(n) OVER (ORDER BY ts) FROM (SELECT ts, bidder AS n FROM {price} WHERE place = 1)",
            "OVER over a result that changes",
        ),
    ];
    for (sql, words) in cases {
        let text = sql.replace("{price}", &numbered("PARTITION BY auction ORDER BY price DESC"));
        let error = refused(&format!("{BIDS}EXPLAIN {text}"));
        assert!(error.message.contains(words), "{sql}\n{error}");
        assert!(error.hint.is_some() && error.position.is_some(), "{sql}\n{error}");
    }
}

#[test]
fn bound_is_of_the_number_that_it_names() {
    // The visits of each bidder in the order of time, and among all of them the dearest of each auction.
    let visits = "(SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder ORDER BY ts) AS visit FROM bids)";
    let both = format!("(SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS top FROM {visits})");
    let rows = |bounds: &str| {
        let mut rows = query(
            "a BIGINT, b BIGINT, visit BIGINT, top BIGINT",
            &format!("SELECT auction, bidder, visit, top FROM {both} WHERE {bounds}"),
        );
        rows.sort();
        rows
    };
    assert_eq!(rows("visit <= 1 AND top <= 2"), ["1|11|1|2", "2|12|1|2", "3|13|1|1"]);
    assert_eq!(rows("top <= 1 AND visit <= 3"), ["1|10|3|1", "2|10|2|1", "3|13|1|1"]);
    // The other number stays without a bound.
    let error = refused(&format!("{BIDS}EXPLAIN SELECT visit, top FROM {both} WHERE visit <= 3"));
    assert!(error.message.contains("ROW_NUMBER"), "{error}");
    // Over the numbers in the order of time, the lower one is not the upper one's, either.
    let visits_of_auctions =
        format!("(SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY ts) AS place FROM {visits})");
    let mut rows = query(
        "a BIGINT, b BIGINT, visit BIGINT, place BIGINT",
        &format!("SELECT auction, bidder, visit, place FROM {visits_of_auctions} WHERE visit <= 1"),
    );
    rows.sort();
    assert_eq!(rows, ["1|10|1|1", "1|11|1|2", "2|12|1|2", "3|13|1|1"]);
}
