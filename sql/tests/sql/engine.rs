//! Whole jobs on the engine, at several parallelisms and odd cuts, against the interpreter.

use super::support::{BIDS, result_lines, run};
use arrow::array::{Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidemill_connectors::{ConnectorError, TableDefinition};
use tidemill_engine::job::{JobConfig, JobEnd, start};
use tidemill_engine::sink::{DeliveryGuarantee, Sink};
use tidemill_engine::source::Source;
use tidemill_engine::testing::{MemorySink, MemorySource};
use tidemill_sql::{Connectors, JobPlan, Plan, PlanOptions, plan_with};

/// Tables in memory: every source has the same rows, in two splits; sinks collect.
struct Memory {
    rows: RecordBatch,
    rows_max: usize,
    sinks: Mutex<BTreeMap<String, (MemorySink, SchemaRef)>>,
}

impl Connectors for Memory {
    fn check_source(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn check_sink(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn create_source(&self, table: &TableDefinition, projection: &[usize]) -> Result<Arc<dyn Source>, ConnectorError> {
        let projected = Arc::new(table.schema.project(projection).unwrap());
        let columns = projected
            .fields()
            .iter()
            .map(|field| Arc::clone(self.rows.column_by_name(field.name()).unwrap()));
        let rows = RecordBatch::try_new(Arc::clone(&projected), columns.collect()).unwrap();
        let half = rows.num_rows() / 2;
        // Interleaved, so that both splits cover the same time.
        let part = |parity: i64| {
            let indexes = Int64Array::from_iter_values((0..rows.num_rows() as i64).filter(|row| row % 2 == parity));
            let taken = arrow::compute::take_record_batch(&rows, &indexes).unwrap();
            assert!(taken.num_rows() >= half);
            vec![taken]
        };
        Ok(Arc::new(
            MemorySource::bounded(vec![part(0), part(1)]).with_rows_max(self.rows_max),
        ))
    }

    fn create_sink(&self, table: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError> {
        let sink = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
        let known = (sink.clone(), Arc::clone(&table.schema));
        assert!(
            self.sinks.lock().unwrap().insert(table.name.clone(), known).is_none(),
            "one sink per table here"
        );
        Ok(Arc::new(sink))
    }
}

/// Bids in the order of arrival, out of order by less than the watermark's delay.
fn bids(count: i64) -> RecordBatch {
    let spread = |i: i64, of: i64| (i.wrapping_mul(2_654_435_761) >> 7).rem_euclid(of);
    let time = |i: i64| 1_767_225_600_000 + i * 40 + spread(i, 1_900);
    let price = |i: i64| (i % 17 != 0).then(|| spread(i, 500) as i32 - 20);
    let channel = |i: i64| (i % 11 != 0).then(|| ["web", "app", "App"][spread(i, 3) as usize]);
    let schema = Schema::new(vec![
        Field::new("auction", DataType::Int64, true),
        Field::new("bidder", DataType::Int64, true),
        Field::new("price", DataType::Int32, true),
        Field::new("channel", DataType::Utf8, true),
        Field::new("rate", DataType::Float64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((0..count).map(|i| spread(i, 7)))),
        Arc::new(Int64Array::from_iter_values((0..count).map(|i| spread(i + 1, 40)))),
        Arc::new(Int32Array::from_iter((0..count).map(price))),
        Arc::new(StringArray::from_iter((0..count).map(channel))),
        // Quarters have exact sums in any order.
        Arc::new(Float64Array::from_iter_values(
            (0..count).map(|i| spread(i, 100) as f64 * 0.25),
        )),
        Arc::new(TimestampMillisecondArray::from_iter_values((0..count).map(time))),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn planned(sql: &str, connectors: &Memory) -> JobPlan {
    match plan_with(sql, connectors, &PlanOptions::default()) {
        Ok(Plan::Job(job)) => *job,
        Ok(Plan::Explain(_)) => panic!("planned an explanation"),
        Err(error) => panic!("{error}"),
    }
}

/// Runs a job on the engine, and the interpreter; both must give the same rows, in any order.
pub(crate) fn assert_engine_agrees(sql: &str) {
    let rows = bids(1_500);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for (parallelism, rows_max) in [(1, 10_000), (2, 37), (3, 101)] {
        let connectors = Memory {
            rows: rows.clone(),
            rows_max,
            sinks: Mutex::default(),
        };
        let job = planned(sql, &connectors);
        let expected = run(&job.graph, &BTreeMap::from([("bids", rows.clone())])).unwrap();
        let config = JobConfig {
            parallelism,
            ..JobConfig::new("sql")
        };
        let handle = start(job.graph, config, runtime.handle()).unwrap();
        assert_eq!(runtime.block_on(handle.wait()).unwrap(), JobEnd::Finished);
        for (table, mut expected) in expected {
            let sinks = connectors.sinks.lock().unwrap();
            let (sink, schema) = &sinks[&table];
            let mut found = result_lines(&sink.concat(schema).unwrap());
            found.sort();
            expected.sort();
            assert!(!found.is_empty(), "{sql}");
            assert_eq!(found, expected, "parallelism {parallelism}: {sql}");
        }
    }
}

pub(crate) fn sink(name: &str, columns: &str) -> String {
    format!("CREATE TABLE {name} ({columns}) WITH ('connector' = 'memory');\n")
}

pub(crate) fn tables(sinks: &str) -> String {
    // The rows of this test have no fee.
    format!("{}{sinks}", BIDS.replace(" fee DECIMAL(10, 2),", ""))
}

const TUMBLE: &str = "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))";

#[test]
fn projection_filter_and_union() {
    let sinks = sink("out", "a BIGINT, c STRING, p INT");
    assert_engine_agrees(&format!(
        "{}INSERT INTO out SELECT auction, UPPER(channel), price * 2 FROM bids WHERE price > 100
         UNION ALL SELECT bidder, 'x', price FROM bids WHERE channel IS NULL",
        tables(&sinks)
    ));
}

#[test]
fn windowed_aggregates() {
    let sinks = sink(
        "out",
        "s TIMESTAMP(3), a BIGINT, n BIGINT, users BIGINT, total INT, lo INT, hi INT, rate DOUBLE, web BIGINT",
    );
    assert_engine_agrees(&format!(
        "{}INSERT INTO out SELECT window_start, auction, COUNT(*), COUNT(DISTINCT bidder), SUM(price), MIN(price),
           MAX(price), SUM(rate), COUNT(*) FILTER (WHERE channel = 'web')
         FROM {TUMBLE} GROUP BY window_start, window_end, auction",
        tables(&sinks)
    ));
}

#[test]
fn windows_of_windows() {
    let sinks = sink("out", "s TIMESTAMP(3), n BIGINT, m BIGINT");
    assert_engine_agrees(&format!(
        "{}CREATE VIEW small AS SELECT window_time AS t, auction, COUNT(*) AS n FROM {TUMBLE}
           GROUP BY window_start, window_end, window_time, auction;
         INSERT INTO out SELECT window_start, SUM(n), MAX(n)
           FROM TABLE(TUMBLE(TABLE small, DESCRIPTOR(t), INTERVAL '20' SECOND)) GROUP BY window_start, window_end",
        tables(&sinks)
    ));
}

#[test]
fn aggregation_over_windows_of_an_aggregation() {
    let sinks = sink("out", "s TIMESTAMP(3), n BIGINT, most BIGINT");
    assert_engine_agrees(&format!(
        "{}INSERT INTO out SELECT window_start, COUNT(*), MAX(n) FROM (
           SELECT window_start, window_end, bidder, COUNT(*) AS n FROM {TUMBLE} GROUP BY window_start, window_end, bidder)
         WHERE n > 1 GROUP BY window_start, window_end",
        tables(&sinks)
    ));
}

#[test]
fn hopping_cumulating_and_session_windows() {
    let columns = "s TIMESTAMP(3), e TIMESTAMP(3), a BIGINT, n BIGINT, total INT, lo INT, rate DOUBLE, web BIGINT";
    let windows = [
        "HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '10' SECOND, INTERVAL '1' SECOND)",
        "CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '12' SECOND)",
        "SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '4' SECOND)",
    ];
    for window in windows {
        for distinct in ["", ", COUNT(DISTINCT bidder)"] {
            let more = if distinct.is_empty() { "" } else { ", users BIGINT" };
            assert_engine_agrees(&format!(
                "{}INSERT INTO out SELECT window_start, window_end, auction, COUNT(*), SUM(price), MIN(price), SUM(rate),
                   COUNT(*) FILTER (WHERE channel = 'web'){distinct}
                 FROM TABLE({window}) GROUP BY window_start, window_end, auction HAVING COUNT(*) > 1",
                tables(&sink("out", &format!("{columns}{more}")))
            ));
        }
    }
}

#[test]
fn rows_with_all_their_windows() {
    let hop = "TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '20' SECOND))";
    let sinks = sink("out", "a BIGINT, s TIMESTAMP(3), t TIMESTAMP(3)") + &sink("counts", "e TIMESTAMP(3), n BIGINT");
    assert_engine_agrees(&format!(
        "{}INSERT INTO out SELECT auction, window_start, window_time FROM {hop} WHERE price > 100;
         INSERT INTO counts SELECT window_end, COUNT(*) FROM {hop}
           WHERE EXTRACT(SECOND FROM window_start) > 10 GROUP BY window_start, window_end",
        tables(&sinks)
    ));
}

#[test]
fn windows_over_hops_and_sessions() {
    let sinks = sink("out", "s TIMESTAMP(3), n BIGINT, m BIGINT") + &sink("most", "e TIMESTAMP(3), n BIGINT");
    assert_engine_agrees(&format!(
        "{}CREATE VIEW sessions AS SELECT window_time AS t, auction, COUNT(*) AS n
           FROM TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '4' SECOND))
           GROUP BY window_start, window_end, window_time, auction;
         INSERT INTO out SELECT window_start, SUM(n), MAX(n)
           FROM TABLE(HOP(TABLE sessions, DESCRIPTOR(t), INTERVAL '5' SECOND, INTERVAL '20' SECOND))
           GROUP BY window_start, window_end;
         INSERT INTO most SELECT window_end, MAX(n) FROM (
           SELECT auction, window_start, window_end, COUNT(*) AS n
           FROM TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
           GROUP BY auction, window_start, window_end) GROUP BY window_start, window_end",
        tables(&sinks)
    ));
}

#[test]
fn several_statements_over_one_source_and_view() {
    let sinks = sink("out", "a BIGINT, n BIGINT") + &sink("big", "a BIGINT, n BIGINT") + &sink("raw", "a BIGINT");
    assert_engine_agrees(&format!(
        "{}CREATE VIEW v AS SELECT auction, COUNT(*) AS n FROM {TUMBLE} GROUP BY window_start, window_end, auction;
         INSERT INTO out SELECT auction, n FROM v;
         INSERT INTO big SELECT auction, n FROM v WHERE n > 20;
         INSERT INTO raw SELECT bidder FROM bids WHERE price IS NULL;",
        tables(&sinks)
    ));
}

#[test]
fn null_into_not_null_fails_the_job_with_the_columns_name() {
    let sql = format!(
        "{}INSERT INTO out SELECT price FROM bids",
        tables(&sink("out", "p INT NOT NULL"))
    );
    let connectors = Memory {
        rows: bids(100),
        rows_max: 10,
        sinks: Mutex::default(),
    };
    let job = planned(&sql, &connectors);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let handle = start(job.graph, JobConfig::new("sql"), runtime.handle()).unwrap();
    let error = runtime.block_on(handle.wait()).unwrap_err().to_string();
    assert!(error.contains("column p of table out is NOT NULL"), "{error}");
}

#[test]
fn joins_of_all_kinds() {
    let sinks = sink("out", "a BIGINT, p INT, q INT, t TIMESTAMP(3)");
    let near = "a.bidder = b.auction AND b.ts BETWEEN a.ts - INTERVAL '1' SECOND AND a.ts + INTERVAL '3' SECOND";
    let windows =
        |table: &str| format!("(SELECT * FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '2' SECOND)))");
    let (left, right) = (windows("dear"), windows("cheap"));
    let same = "a.window_start = b.window_start AND a.window_end = b.window_end";
    let mut queries = vec![
        "SELECT a.auction, a.price, b.price, a.ts FROM dear AS a JOIN cheap AS b ON a.bidder = b.auction AND a.rate > b.rate"
            .to_owned(),
        "SELECT a.auction, a.price, b.price, c.ts FROM dear AS a, cheap AS b, dear AS c WHERE a.bidder = b.auction
           AND c.auction = b.bidder AND c.bidder = 5"
            .to_owned(),
        format!("SELECT a.auction, a.price, 0, a.ts FROM {left} AS a WHERE a.bidder IN
           (SELECT b.bidder FROM {right} AS b WHERE {same})"),
        format!("SELECT a.auction, a.price, 0, a.ts FROM {left} AS a WHERE NOT EXISTS
           (SELECT b.bidder FROM {right} AS b WHERE {same} AND b.bidder = a.bidder)"),
        "SELECT a.auction, a.price, m.price, m.window_time FROM bids AS a JOIN (
           SELECT MAX(price) AS price, window_end, window_time
           FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND))
           GROUP BY window_start, window_end, window_time) AS m
         ON a.price = m.price WHERE a.ts BETWEEN m.window_end - INTERVAL '2' SECOND AND m.window_end"
            .to_owned(),
        // The joined row's time makes windows again.
        format!("SELECT COUNT(*), MIN(p), MAX(q), window_end FROM
           TABLE(TUMBLE(TABLE near, DESCRIPTOR(t), INTERVAL '1' SECOND)) GROUP BY window_start, window_end"),
        format!("SELECT COUNT(*), MIN(p), MAX(q), window_end FROM
           TABLE(TUMBLE(TABLE near, DESCRIPTOR(u), INTERVAL '1' SECOND)) GROUP BY window_start, window_end"),
    ];
    for kind in ["INNER", "LEFT", "RIGHT", "FULL"] {
        queries.push(format!(
            "SELECT a.auction, a.price, b.price, a.ts FROM dear AS a {kind} JOIN cheap AS b ON {near}"
        ));
        queries.push(format!(
            "SELECT a.auction, a.price, b.price, b.ts FROM {left} AS a {kind} JOIN {right} AS b
           ON {same} AND a.bidder = b.bidder"
        ));
    }
    for query in queries {
        assert_engine_agrees(&format!(
            "{}CREATE VIEW dear AS SELECT * FROM bids WHERE price > 300;
             CREATE VIEW cheap AS SELECT * FROM bids WHERE price < 250;
             CREATE VIEW near AS SELECT a.price AS p, b.price AS q, a.ts AS t, b.ts AS u
               FROM dear AS a JOIN cheap AS b ON {near};
             INSERT INTO out {query}",
            tables(&sinks)
        ));
    }
}

#[test]
fn first_rows_of_each_key() {
    let ranked = |order: &str| {
        format!(
            "SELECT auction, price, bidder, place FROM (
               SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY {order}) AS place FROM bids)"
        )
    };
    let sinks = sink("best", "a BIGINT, p INT, b BIGINT, n BIGINT") + &sink("latest", "a BIGINT, ts TIMESTAMP(3)");
    assert_engine_agrees(&format!(
        "{}INSERT INTO best {} WHERE place <= 5;
         INSERT INTO latest SELECT auction, ts FROM (
           SELECT *, ROW_NUMBER() OVER (PARTITION BY auction, bidder ORDER BY ts DESC) AS place FROM bids)
           WHERE place = 1",
        tables(&sinks),
        // A total order, so that it does not matter over which worker a row comes.
        ranked("price DESC, ts ASC, bidder ASC, rate ASC")
    ));
}

#[test]
fn first_rows_of_each_window() {
    let sinks = sink("out", "s TIMESTAMP(3), a BIGINT, n BIGINT, place BIGINT") + &sink("top", "e TIMESTAMP(3), p INT");
    assert_engine_agrees(&format!(
        "{}CREATE VIEW counts AS SELECT window_start, window_end, auction, COUNT(*) AS n FROM {TUMBLE}
           GROUP BY window_start, window_end, auction;
         INSERT INTO out SELECT window_start, auction, n, place FROM (
           SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, auction ASC) AS place
           FROM counts) WHERE place BETWEEN 1 AND 3;
         INSERT INTO top SELECT window_end, price FROM (
           SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, channel ORDER BY price DESC) AS place
           FROM TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '9' SECOND))) WHERE place <= 2",
        tables(&sinks)
    ));
}

#[test]
fn rows_with_what_is_computed_of_the_rows_before() {
    // Times of one auction differ, so the order of its rows is that of time alone.
    let columns = "a BIGINT, ts TIMESTAMP(3), n BIGINT, total INT, lo INT, users BIGINT, rate DOUBLE";
    let frames = [
        "ROWS BETWEEN 4 PRECEDING AND CURRENT ROW",
        "RANGE BETWEEN INTERVAL '5' SECOND PRECEDING AND CURRENT ROW",
        "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    ];
    for frame in frames {
        assert_engine_agrees(&format!(
            "{}INSERT INTO out SELECT auction, ts, COUNT(*) OVER w, SUM(price) OVER w, MIN(price) OVER w,
               COUNT(DISTINCT bidder) OVER w, SUM(rate) OVER w
             FROM bids WINDOW w AS (PARTITION BY auction ORDER BY ts {frame})",
            tables(&sink("out", columns))
        ));
    }
}
