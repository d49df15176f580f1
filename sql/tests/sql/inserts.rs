//! What `INSERT INTO` takes, casts and refuses.

use super::support::{BIDS, bids, job, plan, refused, run};
use std::collections::BTreeMap;

fn inserted(columns: &str, insert: &str) -> Result<Vec<String>, String> {
    let sql = format!("{BIDS}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\n{insert}");
    let sinks = run(&job(&sql).graph, &BTreeMap::from([("bids", bids())]));
    sinks
        .map(|sinks| sinks["out"].clone())
        .map_err(|error| error.to_string())
}

fn refusal(columns: &str, insert: &str) -> String {
    let error = refused(&format!(
        "{BIDS}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\n{insert}"
    ));
    format!(
        "{} {} {}",
        error.position.unwrap(),
        error.message,
        error.hint.unwrap_or_default()
    )
}

#[test]
fn narrow_numbers_are_widened() {
    let rows = inserted(
        "a BIGINT, b DOUBLE, c DECIMAL(12, 2)",
        "INSERT INTO out SELECT price, price, price FROM bids",
    );
    assert_eq!(rows.unwrap()[0], "100|100.0|100.00");
}

#[test]
fn column_list_reorders_and_fills_with_null() {
    let rows = inserted(
        "a BIGINT, b STRING, c INT",
        "INSERT INTO out (c, a) SELECT price, auction FROM bids",
    );
    assert_eq!(rows.unwrap()[1], "1|NULL|200");
}

#[test]
fn wrong_type_is_refused_at_the_querys_column() {
    let text = refusal(
        "a BIGINT, b INT",
        "INSERT INTO out SELECT auction,\n  channel FROM bids",
    );
    assert!(
        text.starts_with("line 7, column 3 column 2 of the query is STRING and column b of table out is INT"),
        "{text}"
    );
    let text = refusal("a INT", "INSERT INTO out SELECT auction FROM bids");
    assert!(
        text.contains("is BIGINT and column a of table out is INT write CAST(... AS INT)"),
        "{text}"
    );
}

#[test]
fn wrong_number_of_columns_is_refused() {
    let text = refusal("a BIGINT", "INSERT INTO out SELECT auction, bidder FROM bids");
    assert!(
        text.starts_with("line 6, column 33 the query gives 2 columns and table out takes 1"),
        "{text}"
    );
    let text = refusal("a BIGINT, b INT", "INSERT INTO out SELECT auction FROM bids");
    assert!(text.ends_with("select in this order: a, b"), "{text}");
    let text = refusal("a BIGINT, b INT", "INSERT INTO out (a) SELECT * FROM bids");
    assert!(
        text.starts_with("line 6, column 28 the query gives 7 columns"),
        "{text}"
    );
}

#[test]
fn column_list_is_checked() {
    assert!(refusal("aa BIGINT", "INSERT INTO out (ab) SELECT auction FROM bids").contains("did you mean aa?"));
    assert!(
        refusal(
            "a BIGINT",
            "INSERT INTO out (a, a) SELECT auction, auction AS b FROM bids"
        )
        .contains("named twice")
    );
    let computed = "a BIGINT, b AS a + 1";
    assert!(refusal(computed, "INSERT INTO out (b) SELECT auction FROM bids").contains("cannot be written"));
    let not_null = "a BIGINT NOT NULL, b BIGINT";
    assert!(refusal(not_null, "INSERT INTO out (b) SELECT auction FROM bids").contains("NOT NULL and gets no value"));
}

#[test]
fn null_into_not_null_fails_the_job() {
    let columns = "a INT NOT NULL";
    let error = inserted(columns, "INSERT INTO out SELECT price FROM bids").unwrap_err();
    assert!(
        error.contains("column a of table out is NOT NULL and 1 of 6 rows are null"),
        "{error}"
    );
    assert_eq!(
        inserted(
            columns,
            "INSERT INTO out SELECT price FROM bids WHERE price IS NOT NULL"
        )
        .unwrap()
        .len(),
        5
    );
}

#[test]
fn too_long_text_fails_the_job() {
    let error = inserted("a VARCHAR(2)", "INSERT INTO out SELECT channel FROM bids").unwrap_err();
    assert!(
        error.contains("column a of table out takes values of at most 2, and one has length 3"),
        "{error}"
    );
    assert_eq!(
        inserted("a CHAR(3)", "INSERT INTO out SELECT channel FROM bids").unwrap()[3],
        "NULL"
    );
    assert!(inserted("a CHAR(4)", "INSERT INTO out SELECT channel FROM bids").is_err());
}

#[test]
fn computed_and_virtual_columns_are_not_written() {
    let columns = "a BIGINT, arrival TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL, twice AS a * 2";
    let rows = inserted(columns, "INSERT INTO out SELECT auction FROM bids").unwrap();
    assert_eq!(rows[0], "1");
}

#[test]
fn a_table_without_columns_that_fit_is_refused_before_its_connector_is_made() {
    let text = "CREATE TABLE out (a BIGINT) WITH ('connector' = 'nope'); INSERT INTO out SELECT auction FROM bids";
    assert!(plan(&format!("{BIDS}{text}")).is_err());
}
