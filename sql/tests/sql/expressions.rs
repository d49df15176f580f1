//! Expressions, by their values over a few rows.

use super::support::{BIDS, bids, job, query, run};
use std::collections::BTreeMap;

/// Evaluates an expression over the second bid (1, 11, 200, 'app', 2.25, 0.25, 00:00:01).
fn value(sql_type: &str, expr: &str) -> String {
    query(
        &format!("v {sql_type}"),
        &format!("SELECT {expr} FROM bids WHERE bidder = 11"),
    )
    .join(";")
}

/// Evaluates an expression that must fail when it runs.
fn failure(sql_type: &str, expr: &str) -> String {
    let sql = format!(
        "{BIDS}CREATE TABLE out (v {sql_type}) WITH ('connector' = 'test');\nINSERT INTO out SELECT {expr} FROM bids"
    );
    match run(&job(&sql).graph, &BTreeMap::from([("bids", bids())])) {
        Ok(rows) => panic!("{expr} did not fail: {rows:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn arithmetic_has_flinks_types() {
    assert_eq!(value("INT", "price + 1"), "201");
    assert_eq!(value("BIGINT", "auction * 3000000000"), "3000000000");
    assert_eq!(value("INT", "price / 3"), "66");
    assert_eq!(value("INT", "price % 7"), "4");
    assert_eq!(value("DOUBLE", "rate / 2"), "0.125");
    assert_eq!(value("DECIMAL(38, 3)", "fee * 1.5"), "3.375");
    assert_eq!(value("DECIMAL(38, 3)", "price * 0.908"), "181.600");
    assert_eq!(value("INT", "-price"), "-200");
}

#[test]
fn regexp_extract_gives_a_group_or_null() {
    let extract = |args: &str| value("STRING", &format!("regexp_extract({args})"));
    assert_eq!(extract("'foothebar', 'foo(.*?)(bar)', 2"), "bar");
    assert_eq!(extract("'foothebar', 'foo(.*?)(bar)'"), "foothebar");
    assert_eq!(extract("channel, '^(.)(z)?', 1"), "a");
    for null in [
        "channel, '^(.)(z)?', 2",
        "channel, '(x)', 1",
        "channel, 'a', 7",
        "channel, 'a', -1",
        "channel, 'a', CAST(NULL AS INT)",
        "CAST(NULL AS STRING), 'a'",
    ] {
        assert_eq!(extract(null), "NULL", "{null}");
    }
    let rows = query(
        "v STRING",
        "SELECT regexp_extract(channel, '[wW](e)|(p)$', price % 3) FROM bids",
    );
    // Groups 1 (e), 2 (p), 2, null, 0, -1.
    assert_eq!(rows, ["e", "p", "NULL", "NULL", "we", "NULL"]);
}

#[test]
fn overflow_and_division_by_zero_fail_with_the_expression() {
    let error = failure("INT", "price + 2147483647");
    assert!(error.contains("verflow") && error.contains("price"), "{error}");
    let error = failure("INT", "1 / (price - price)");
    assert!(error.to_lowercase().contains("divide by zero"), "{error}");
    let error = failure("INT", "CAST(channel AS INT)");
    assert!(
        error.contains("web") && error.contains("CAST(channel AS INT)"),
        "{error}"
    );
}

#[test]
fn conditions() {
    assert_eq!(
        value("STRING", "CASE WHEN price > 150 THEN 'high' ELSE 'low' END"),
        "high"
    );
    assert_eq!(value("STRING", "CASE channel WHEN 'app' THEN 'a' END"), "a");
    assert_eq!(value("STRING", "IF(price > 500, 'x', 'y')"), "y");
    assert_eq!(value("BOOLEAN", "price IN (1, 200)"), "true");
    assert_eq!(value("BOOLEAN", "price BETWEEN 1 AND 199"), "false");
    assert_eq!(value("BOOLEAN", "channel LIKE 'a%'"), "true");
    assert_eq!(value("BOOLEAN", "channel NOT LIKE '_pp'"), "false");
    assert_eq!(value("BOOLEAN", "channel IS NOT NULL AND NOT price = 3"), "true");
    assert_eq!(value("INT", "COALESCE(NULLIF(price, 200), 7)"), "7");
    assert_eq!(value("INT", "TRY_CAST(channel AS INT)"), "NULL");
    assert_eq!(
        query("a INT", "SELECT price FROM bids WHERE price > 100 OR price IS NULL"),
        ["200", "NULL", "300"]
    );
}

#[test]
fn text_functions_have_flinks_meaning() {
    assert_eq!(value("STRING", "UPPER(channel)"), "APP");
    assert_eq!(value("STRING", "CONCAT(channel, '-', price)"), "app-200");
    assert_eq!(value("STRING", "CONCAT(channel, CAST(NULL AS STRING))"), "NULL");
    assert_eq!(value("STRING", "channel || '!'"), "app!");
    assert_eq!(value("STRING", "SUBSTRING(channel, 2, 1)"), "p");
    assert_eq!(value("STRING", "SUBSTRING(channel FROM 2)"), "pp");
    assert_eq!(value("STRING", "TRIM(BOTH 'a' FROM channel)"), "pp");
    assert_eq!(value("INT", "CHAR_LENGTH(channel)"), "3");
    assert_eq!(value("STRING", "REGEXP_REPLACE(channel, 'p', 'q')"), "aqq");
    assert_eq!(value("STRING", "REPLACE(channel, 'p', 'q')"), "aqq");
    assert_eq!(value("STRING", "LPAD(channel, 5, '*')"), "**app");
    assert_eq!(value("INT", "GREATEST(price, 300)"), "300");
    assert_eq!(value("INT", "GREATEST(price, CAST(NULL AS INT))"), "NULL");
}

#[test]
fn time_functions() {
    assert_eq!(
        value("TIMESTAMP(3)", "ts + INTERVAL '90' SECOND"),
        "2026-01-01T00:01:31"
    );
    assert_eq!(value("INT", "EXTRACT(YEAR FROM ts)"), "2026");
    assert_eq!(value("INT", "SECOND(ts)"), "1");
    assert_eq!(value("TIMESTAMP(3)", "date_trunc('minute', ts)"), "2026-01-01T00:00:00");
    assert_eq!(
        value("TIMESTAMP_LTZ(3)", "TO_TIMESTAMP_LTZ(1767225600123, 3)"),
        "2026-01-01T00:00:00.123Z"
    );
    assert_eq!(
        value("TIMESTAMP_LTZ(3)", "TO_TIMESTAMP_LTZ(price, 0)"),
        "1970-01-01T00:03:20Z"
    );
    assert_eq!(
        value("TIMESTAMP(3)", "TO_TIMESTAMP('2026-02-03 04:05:06.789')"),
        "2026-02-03T04:05:06.789"
    );
    assert_eq!(value("DATE", "CAST(ts AS DATE)"), "2026-01-01");
    assert_eq!(value("DATE", "DATE '2026-02-03'"), "2026-02-03");
    assert_eq!(value("BOOLEAN", "ts < TIMESTAMP '2026-01-01 00:00:02'"), "true");
}

#[test]
fn clock_functions_read_the_ticks_wall_time() {
    assert_eq!(value("TIMESTAMP_LTZ(3)", "NOW()"), "2026-01-01T00:00:00.123Z");
    assert_eq!(
        value("TIMESTAMP_LTZ(3)", "CURRENT_TIMESTAMP"),
        "2026-01-01T00:00:00.123Z"
    );
    assert_eq!(value("TIMESTAMP_LTZ(3)", "PROCTIME()"), "2026-01-01T00:00:00.123Z");
    assert_eq!(value("TIMESTAMP(3)", "LOCALTIMESTAMP"), "2026-01-01T00:00:00.123");
    assert_eq!(value("DATE", "CURRENT_DATE"), "2026-01-01");
    assert_eq!(value("TIME", "CURRENT_TIME"), "00:00:00");
    assert_eq!(value("INT", "EXTRACT(YEAR FROM NOW() - INTERVAL '1' DAY)"), "2025");
    assert_eq!(
        query("a BIGINT", "SELECT auction FROM bids WHERE ts < LOCALTIMESTAMP"),
        ["1"]
    );
}

#[test]
fn chance_differs_between_rows_and_calls_and_repeats_for_the_same_tick() {
    let draw = || {
        query(
            "a DOUBLE, b DOUBLE, c STRING",
            "SELECT RAND(), RANDOM(), UUID() FROM bids",
        )
    };
    let rows = draw();
    assert_eq!(rows, draw());
    let mut seen = std::collections::BTreeSet::new();
    for row in &rows {
        seen.extend(row.split('|').map(str::to_owned));
    }
    assert_eq!(seen.len(), 18, "{rows:?}");
}

#[test]
fn a_drawn_number_is_drawn_once() {
    let rows = query(
        "a DOUBLE, b DOUBLE",
        "SELECT r, r + 0.0e0 FROM (SELECT RAND() AS r FROM bids) WHERE r < 2",
    );
    assert_eq!(rows.len(), 6);
    for row in rows {
        let (a, b) = row.split_once('|').unwrap();
        assert_eq!(a, b);
    }
}

#[test]
fn growing_text_is_limited_when_it_runs() {
    let error = failure("STRING", "repeat(channel, 2000000000)");
    assert!(error.contains("limit is"), "{error}");
    let error = failure("STRING", "lpad(channel, price * 1000000, 'x')");
    assert!(error.contains("limit is"), "{error}");
}
