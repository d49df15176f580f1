//! GROUPING SETS, ROLLUP and CUBE: the same rows as one statement per grouping.

use super::engine::{assert_engine_agrees, sink, tables};
use super::support::{BIDS, explain, query, refused};

const TUMBLE: &str = "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND))";
const COLUMNS: &str = "e TIMESTAMP(3), a BIGINT, c STRING, b BIGINT, n BIGINT, autions BIGINT, p INT";

/// One statement per grouping: what is grouped by, and the bits of `GROUPING_ID(auction, channel, bidder)`.
fn united(from: &str, window: &str, groupings: &[(&[&str], i64)]) -> Vec<String> {
    let one = |(keys, bits): &(&[&str], i64)| {
        let column = |name: &str, null: &str| match keys.contains(&name) {
            true => name.to_owned(),
            false => format!("CAST(NULL AS {null})"),
        };
        let keys = [&[window], *keys].concat();
        let keys: Vec<&str> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        let end = if window.is_empty() {
            "CAST(NULL AS TIMESTAMP(3))"
        } else {
            "window_end"
        };
        format!(
            "SELECT {end}, {}, {}, {}, COUNT(*), COUNT(auction), SUM(price), {bits} FROM {from} GROUP BY {}",
            column("auction", "BIGINT"),
            column("channel", "STRING"),
            column("bidder", "BIGINT"),
            keys.join(", ")
        )
    };
    let queries: Vec<String> = groupings.iter().map(one).collect();
    sorted(&queries.join(" UNION ALL "))
}

fn sorted(select: &str) -> Vec<String> {
    let mut rows = query(&format!("{COLUMNS}, id BIGINT"), select);
    rows.sort();
    rows
}

fn grouped(from: &str, end: &str, by: &str) -> Vec<String> {
    sorted(&format!(
        "SELECT {end}, auction, channel, bidder, COUNT(*), COUNT(auction), SUM(price), GROUPING_ID(auction, channel, bidder)
         FROM {from} GROUP BY {by}"
    ))
}

#[test]
fn groupings_are_those_of_one_statement_each() {
    let window = "window_start, window_end";
    let all: &[(&[&str], i64)] = &[
        (&["auction", "channel", "bidder"], 0),
        (&["auction", "channel"], 1),
        (&["auction", "bidder"], 2),
        (&["auction"], 3),
        (&["channel", "bidder"], 4),
        (&["channel"], 5),
        (&["bidder"], 6),
        (&[], 7),
    ];
    for (by, groupings) in [
        (
            "GROUPING SETS ((auction, channel), (bidder), ())",
            vec![all[1], all[6], all[7]],
        ),
        (
            "ROLLUP (auction, channel, bidder)",
            vec![all[0], all[1], all[3], all[7]],
        ),
        ("CUBE (auction, channel, bidder)", all.to_vec()),
        ("ROLLUP ((auction, channel), bidder)", vec![all[0], all[1], all[7]]),
        // Keys that are in every grouping, and a product of groupings; a grouping twice gives its rows twice.
        (
            "auction, GROUPING SETS ((channel), (channel)), bidder",
            vec![all[0], all[0]],
        ),
        ("ROLLUP (auction), CUBE (channel, bidder)", all.to_vec()),
    ] {
        let expected = united(TUMBLE, window, &groupings);
        assert!(expected.len() > groupings.len(), "{expected:?}");
        assert_eq!(
            grouped(TUMBLE, "window_end", &format!("{window}, {by}")),
            expected,
            "{by}"
        );
    }
    // Sessions are those of the whole rows, whatever they are grouped by; here each is of one auction.
    let session = "TABLE(SESSION(TABLE bids PARTITION BY (auction, channel), DESCRIPTOR(ts), INTERVAL '3' SECOND))";
    for (by, groupings) in [
        (
            "ROLLUP (auction, channel, bidder)",
            vec![all[0], all[1], all[3], all[7]],
        ),
        ("CUBE (auction, channel, bidder)", all.to_vec()),
    ] {
        let expected = united(session, window, &groupings);
        assert_eq!(
            grouped(session, "window_end", &format!("{window}, {by}")),
            expected,
            "{by}"
        );
    }
    // Named inside the groupings.
    let inside =
        "GROUPING SETS ((window_start, window_end, auction, bidder, channel), (channel, window_end, window_start))";
    assert_eq!(
        grouped(TUMBLE, "window_end", inside),
        united(TUMBLE, window, &[all[0], all[5]])
    );
}

#[test]
fn groupings_without_a_window() {
    let groupings: &[(&[&str], i64)] = &[(&["auction", "channel"], 1), (&["auction"], 3)];
    let expected = united("bids", "", groupings);
    let by = "GROUPING SETS ((auction, channel), (auction))";
    let rows = sorted(&format!(
        "SELECT CAST(NULL AS TIMESTAMP(3)), auction, channel, CAST(NULL AS BIGINT), COUNT(*), COUNT(auction), SUM(price),
           GROUPING(auction) * 4 + GROUPING(channel) * 2 + 1 FROM bids GROUP BY {by}"
    ));
    assert_eq!(rows, expected);
}

#[test]
fn engine_agrees_on_groupings_of_every_window() {
    let sinks = sink(
        "out",
        "e TIMESTAMP(3), c STRING, a BIGINT, n BIGINT, users BIGINT, rate DOUBLE, id BIGINT",
    );
    for window in [
        "TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND)",
        "HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
        "CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)",
        "SESSION(TABLE bids PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '2' SECOND)",
        "SESSION(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
    ] {
        assert_engine_agrees(&format!(
            "{}INSERT INTO out SELECT window_end, UPPER(channel), auction, COUNT(*), COUNT(DISTINCT bidder), SUM(rate),
               GROUPING(UPPER(channel), auction)
             FROM {window} WHERE price > 0 GROUP BY window_start, window_end, ROLLUP (UPPER(channel), auction)
             HAVING COUNT(*) > 3 OR GROUPING(auction) = 1",
            tables(&sinks)
        ));
    }
}

#[test]
fn keys_are_computed_once_for_all_groupings() {
    let text = explain(&format!(
        "{BIDS}EXPLAIN SELECT window_end, UPPER(channel), COUNT(*) FROM {TUMBLE}
         GROUP BY window_start, window_end, CUBE (UPPER(channel), auction)"
    ));
    let graph = text.split("== job graph ==").nth(1).unwrap();
    assert_eq!(graph.matches("window aggregate").count(), 1, "{graph}");
    assert_eq!(graph.matches("source bids").count(), 1, "{graph}");
    assert_eq!(graph.matches("union").count(), 2, "one, and its uid: {graph}");
}

#[test]
fn grouping_of_one_grouping_is_zero() {
    let rows = query(
        "a BIGINT, g BIGINT, n BIGINT",
        &format!(
            "SELECT auction, GROUPING(auction), COUNT(*) FROM {TUMBLE} GROUP BY window_start, window_end, auction"
        ),
    );
    assert!(rows.contains(&"1|0|3".to_owned()), "{rows:?}");
}

#[test]
fn groupings_that_cannot_be_are_refused() {
    let refusal = |select: &str| {
        refused(&format!(
            "{BIDS}CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');\nINSERT INTO out {select};"
        ))
    };
    let error = refusal(&format!(
        "SELECT COUNT(*) FROM {TUMBLE} GROUP BY GROUPING SETS ((window_start, window_end), (auction))"
    ));
    assert!(error.message.contains("does not name the window"), "{error}");
    let error = refusal(&format!(
        "SELECT GROUPING(bidder) FROM {TUMBLE} GROUP BY window_start, window_end, ROLLUP (auction)"
    ));
    assert!(error.message.contains("GROUPING is of what GROUP BY names"), "{error}");
    let error = refusal("SELECT COUNT(*) FROM bids GROUP BY ROLLUP (auction), GROUPING SETS (ROLLUP (bidder))");
    assert!(error.message.contains("rollup is not supported yet"), "{error}");
}
