//! The shape of plans: what is shared, what is read, what names an operator's state.

use super::support::{BIDS, bids, explain, job, refused, run};
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_engine::graph::{NodeKind, SourceNode};
use tidemill_sql::JobPlan;

const OUT: &str = "CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');\n
CREATE TABLE counts (n BIGINT) WITH ('connector' = 'test');\n";

const COUNT: &str = "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))
  WHERE price > 3 GROUP BY window_start, window_end, auction";

fn planned(statements: &str) -> JobPlan {
    job(&format!("{BIDS}{OUT}{statements}"))
}

fn source(plan: &JobPlan) -> &SourceNode {
    let mut sources = plan.graph.nodes().iter().filter_map(|node| match &node.kind {
        NodeKind::Source(source) => Some(source),
        _ => None,
    });
    let source = sources.next().unwrap();
    assert!(sources.next().is_none(), "a table is read twice");
    source
}

fn columns(source: &SourceNode) -> Vec<&str> {
    source
        .physical_schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect()
}

fn uids(plan: &JobPlan, prefix: &str) -> Vec<String> {
    plan.graph
        .nodes()
        .iter()
        .map(|node| node.uid.clone())
        .filter(|uid| uid.starts_with(prefix))
        .collect()
}

#[test]
fn a_table_is_read_once_with_the_columns_that_any_statement_needs() {
    let plan = planned(
        "INSERT INTO out SELECT auction FROM bids WHERE price > 1;
         INSERT INTO out SELECT bidder FROM bids;
         INSERT INTO out SELECT bidder FROM (SELECT * FROM bids) UNION ALL SELECT auction FROM bids",
    );
    assert_eq!(columns(source(&plan)), ["auction", "bidder", "price", "ts"]);
    assert_eq!(uids(&plan, "sink:"), ["sink:out", "sink:out:2", "sink:out:3"]);
    let read = plan.tables.iter().find(|table| table.name == "bids").unwrap();
    assert_eq!(
        (read.columns_read.len(), read.is_written, read.connector.as_str()),
        (4, false, "test")
    );
    assert!(plan.tables.iter().any(|table| table.name == "out" && table.is_written));
}

#[test]
fn statements_over_one_view_share_its_aggregation() {
    let view = format!("CREATE VIEW v (n) AS {COUNT};");
    let plan = planned(&format!(
        "{view} INSERT INTO out SELECT n FROM v; INSERT INTO counts SELECT n + 1 FROM v WHERE n > 1"
    ));
    assert_eq!(uids(&plan, "window-aggregate").len(), 1);
}

#[test]
fn event_time_is_what_the_table_says() {
    let plan = planned("SET 'table.exec.source.idle-timeout' = '3 s'; INSERT INTO out SELECT auction FROM bids");
    let source = source(&plan);
    assert_eq!(columns(source), ["auction", "ts"]);
    let time = source.event_time.as_ref().unwrap();
    assert_eq!(
        (time.column, time.delay_ms, time.idle_timeout),
        (1, 2_000, Some(Duration::from_secs(3)))
    );
}

#[test]
fn computed_columns_read_what_they_are_made_of() {
    let tables = "CREATE TABLE clicks (
        unused STRING, millis BIGINT, page STRING, ts AS TO_TIMESTAMP_LTZ(millis, 3), size AS CHAR_LENGTH(page),
        arrival TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
        WATERMARK FOR ts AS ts) WITH ('connector' = 'test');
      CREATE TABLE out (page STRING, n BIGINT) WITH ('connector' = 'test');";
    let plan = job(&format!(
        "{tables} INSERT INTO out SELECT page, COUNT(*) FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY window_start, window_end, page"
    ));
    let source = source(&plan);
    assert_eq!(columns(source), ["millis", "page"]);
    assert_eq!(source.event_time.as_ref().unwrap().column, 1);
    let rows = super::support::rows(
        &[
            ("millis", arrow::datatypes::DataType::Int64),
            ("page", arrow::datatypes::DataType::Utf8),
        ],
        "0,a\n59999,a\n60000,a\n1,b",
    );
    assert_eq!(
        run(&plan.graph, &BTreeMap::from([("clicks", rows)])).unwrap()["out"],
        ["a|2", "b|1", "a|1"]
    );
}

#[test]
fn uids_of_state_outlive_changes_elsewhere() {
    let aggregate = |statements: &str| uids(&planned(statements), "window-aggregate").remove(0);
    let first = aggregate(&format!("INSERT INTO out {COUNT}"));
    let changed_output = COUNT.replace("COUNT(*)", "COUNT(*) * 2").replace("SELECT", "SELECT ");
    assert_eq!(first, aggregate(&format!("INSERT INTO out {changed_output}")));
    assert_eq!(
        first,
        aggregate(&format!(
            "INSERT INTO out SELECT bidder FROM bids; INSERT INTO counts {COUNT}"
        ))
    );
    assert_eq!(
        first,
        aggregate(&format!(
            "CREATE VIEW v (n) AS {COUNT}; INSERT INTO out SELECT n FROM v WHERE n > 2"
        ))
    );
    let inner = COUNT.replace("TABLE bids", "TABLE b");
    assert_eq!(
        first,
        aggregate(&format!(
            "CREATE VIEW b AS SELECT ts, price, auction FROM bids; INSERT INTO out {inner}"
        ))
    );
    assert_ne!(
        first,
        aggregate(&format!("INSERT INTO out {}", COUNT.replace("price > 3", "price > 4")))
    );
    assert_ne!(
        first,
        aggregate(&format!("INSERT INTO out {}", COUNT.replace("'5'", "'6'")))
    );
    assert_ne!(
        first,
        aggregate(&format!("INSERT INTO out {}", COUNT.replace(", auction", ", bidder")))
    );
    assert_ne!(
        first,
        aggregate(&format!("INSERT INTO out {}", COUNT.replace("COUNT(*)", "SUM(bidder)")))
    );
}

#[test]
fn uids_are_durable() {
    // A change here loses the state of users' jobs: it must be meant.
    let plan = planned(&format!("INSERT INTO out {COUNT}"));
    assert_eq!(uids(&plan, "window-aggregate"), ["window-aggregate-5e60dbd97f868216"]);
}

#[test]
fn plan_hash_tells_plans_apart() {
    let hash = |statements: &str| planned(statements).plan_hash;
    assert_eq!(
        hash("INSERT INTO out SELECT auction FROM bids"),
        hash("INSERT INTO out\n SELECT `auction` FROM bids;")
    );
    assert_ne!(
        hash("INSERT INTO out SELECT auction FROM bids"),
        hash("INSERT INTO out SELECT bidder FROM bids")
    );
    assert_ne!(
        hash("INSERT INTO out SELECT auction FROM bids"),
        hash("INSERT INTO counts SELECT auction FROM bids")
    );
}

#[test]
fn settings_are_the_jobs() {
    let plan = planned(
        "SET 'pipeline.name' = 'clicks'; SET 'parallelism.default' = '3';
         SET 'execution.checkpointing.interval' = '30 s'; INSERT INTO out SELECT auction FROM bids",
    );
    assert_eq!(plan.settings.name.as_deref(), Some("clicks"));
    assert_eq!(plan.settings.parallelism, Some(3));
    assert_eq!(plan.settings.checkpoint_interval, Some(Duration::from_secs(30)));
}

#[test]
fn views_with_names_and_nested_queries() {
    let plan = planned(
        "CREATE TEMPORARY VIEW v (x, y) AS SELECT auction, price FROM bids WHERE price > 60;
         CREATE VIEW w AS SELECT x * 10 AS z FROM v AS vv WHERE vv.y < 300;
         CREATE TABLE IF NOT EXISTS bids (a INT) WITH ('connector' = 'ignored');
         INSERT INTO out WITH a AS (SELECT z FROM w), b AS (SELECT z FROM a) SELECT q.z FROM (SELECT z FROM b) AS q",
    );
    assert_eq!(
        run(&plan.graph, &BTreeMap::from([("bids", bids())])).unwrap()["out"],
        ["10", "10"]
    );
}

#[test]
fn union_casts_to_common_types() {
    let plan = planned(
        "INSERT INTO out SELECT price FROM bids WHERE price > 250 UNION ALL SELECT auction FROM bids WHERE price < 0",
    );
    assert_eq!(
        run(&plan.graph, &BTreeMap::from([("bids", bids())])).unwrap()["out"],
        ["300", "3"]
    );
    let error = refused(&format!(
        "{BIDS}{OUT}INSERT INTO out SELECT ts FROM bids UNION ALL SELECT rate FROM bids"
    ));
    assert!(error.message.contains("without a common one"), "{error}");
}

#[test]
fn filter_of_an_inner_query_runs_before_what_is_outside() {
    let plan = planned(
        "INSERT INTO out SELECT 100 / (a - 1) FROM (SELECT auction AS a FROM bids WHERE auction > 1) WHERE 10 / (a - 1) > 6",
    );
    assert_eq!(
        run(&plan.graph, &BTreeMap::from([("bids", bids())])).unwrap()["out"],
        ["100", "100"]
    );
}

#[test]
fn explain_shows_both_plans_and_runs_nothing() {
    let text = explain(&format!(
        "{BIDS}{OUT}EXPLAIN PLAN FOR INSERT INTO out SELECT auction FROM bids WHERE price > 1"
    ));
    let expected = "== logical plan ==
Projection: bids.auction
  Filter: bids.price > Int64(1)
    TableScan: bids

== job graph ==
#0 source bids (auction Int64, price Int32, ts Timestamp(ms)) [uid source:bids]
#1 filter <- #0 (a Int64) where (price > INT:1) [uid calc-";
    assert!(text.starts_with(expected), "{text}");
    assert!(
        text.contains("\n#2 sink out <- #1 (a Int64) [uid sink:out]\n"),
        "{text}"
    );
}

#[test]
fn a_projection_that_changes_nothing_is_no_operator() {
    let plan = job("CREATE TABLE one (a BIGINT, b STRING) WITH ('connector' = 'test');
         CREATE TABLE two (a BIGINT, b STRING) WITH ('connector' = 'test');
         INSERT INTO two SELECT * FROM one");
    assert_eq!(plan.graph.nodes().len(), 2);
}

#[test]
fn columns_without_a_name_get_flinks() {
    let text = explain(&format!(
        "{BIDS}EXPLAIN SELECT price, price + 1, price, COALESCE(price, 1) FROM bids"
    ));
    assert!(
        text.contains("(price Int32, EXPR$1 Int32, price0 Int32, EXPR$3 Int32)"),
        "{text}"
    );
}

#[test]
fn queries_as_users_write_them() {
    for (columns, query) in [
        (
            "a BIGINT, b BIGINT, p INT, c STRING, f DECIMAL(10, 2), r DOUBLE, ts TIMESTAMP(3)",
            "SELECT bids.* FROM bids",
        ),
        (
            "s TIMESTAMP(3), n BIGINT",
            "SELECT w.window_start, COUNT(1) AS n FROM TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECONDS) AS w GROUP BY w.window_start, w.window_end",
        ),
        (
            "s TIMESTAMP(3), n BIGINT",
            "(SELECT window_end, COUNT(auction) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(`ts`), INTERVAL '1' DAY)) GROUP BY window_start, window_end)",
        ),
        (
            "k STRING, n BIGINT",
            "SELECT CASE WHEN price > 100 THEN 'high' ELSE 'low' END AS band, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, CASE WHEN price > 100 THEN 'high' ELSE 'low' END",
        ),
        (
            "k STRING, n BIGINT",
            "SELECT CASE WHEN price > 100 THEN 'high' ELSE 'low' END AS band, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, band",
        ),
        (
            "n BIGINT",
            "SELECT COUNT(*) FROM (SELECT ts AS time_of_bid FROM bids WHERE channel IN ('web', 'app')) AS q, bids",
        ),
        (
            "r DOUBLE",
            "SELECT CAST(SUM(price) AS DOUBLE) / COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end",
        ),
        (
            "r STRING",
            "SELECT MAX(channel) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, auction HAVING auction > 1",
        ),
    ] {
        let sql = format!("{BIDS}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\nINSERT INTO out {query};");
        if query.ends_with("bids") && query.contains("AS q,") {
            assert!(refused(&sql).message.contains("join"), "{query}");
            continue;
        }
        let rows = run(&job(&sql).graph, &BTreeMap::from([("bids", bids())])).unwrap_or_else(|e| panic!("{e} {query}"));
        assert!(!rows["out"].is_empty(), "{query}");
    }
}

#[test]
fn a_renamed_time_attribute_stays_one() {
    let plan = planned(
        "CREATE VIEW v (w, t) AS SELECT auction, ts FROM bids;
         INSERT INTO out SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(t), INTERVAL '1' DAY)) GROUP BY window_start, window_end",
    );
    assert_eq!(
        run(&plan.graph, &BTreeMap::from([("bids", bids())])).unwrap()["out"],
        ["6"]
    );
}

#[test]
fn processing_time_is_a_computed_column() {
    let plan = job(
        "CREATE TABLE ticks (a BIGINT, seen AS PROCTIME()) WITH ('connector' = 'test');
         CREATE TABLE out (seen TIMESTAMP_LTZ(3)) WITH ('connector' = 'test');
         INSERT INTO out SELECT seen FROM ticks",
    );
    let rows = super::support::rows(&[("a", arrow::datatypes::DataType::Int64)], "1\n2");
    let rows = run(&plan.graph, &BTreeMap::from([("ticks", rows)])).unwrap();
    assert_eq!(rows["out"], ["2026-01-01T00:00:00.123Z", "2026-01-01T00:00:00.123Z"]);
}
