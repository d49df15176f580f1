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
