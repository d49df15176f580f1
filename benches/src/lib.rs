//! What the benchmarks share: the job that the tick loop is measured with.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_connectors::{ConnectorEnvironment, ConnectorError, TableDefinition, create_sink, create_source};
use tidemill_engine::aggregate::{AggregateCall, Count};
use tidemill_engine::graph::{EventTime, JobGraph, SinkNode, SourceNode, TimeDomain, WindowAggregate, WindowAssigner};

/// The size of the job's windows in milliseconds of event time; there is one row to a millisecond.
const WINDOW_MS: i64 = 1_000_000;

/// How far hopping windows are apart, likewise.
const SLIDE_MS: i64 = 50_000;

/// Makes a table of a connector.
fn table(name: &str, schema: Schema, options: &[(&str, &str)]) -> TableDefinition {
    TableDefinition {
        name: name.to_owned(),
        schema: Arc::new(schema),
        metadata_columns: Vec::new(),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}

/// Builds the job of the tick loop: `datagen` of five columns, counted per key in tumbling windows, into `blackhole`.
///
/// # Errors
/// When a connector refuses its options.
///
/// # Panics
/// When the graph is not valid, which would be a bug here.
pub fn tumbling_count(rows: u64, keys: u64) -> Result<JobGraph, ConnectorError> {
    let window = WindowAssigner::Tumble {
        time: 4,
        size_ms: WINDOW_MS,
        offset_ms: 0,
    };
    windowed_count(rows, keys, window)
}

/// Builds the same job with hopping windows: one begins every 50 s of event time and each is `slides` times as long, so a row
/// is in `slides` windows. The result has as many rows per slide as there are keys, whatever `slides` is.
///
/// # Errors
/// When a connector refuses its options.
///
/// # Panics
/// When the graph is not valid, which would be a bug here.
pub fn hopping_count(rows: u64, keys: u64, slides: i64) -> Result<JobGraph, ConnectorError> {
    let window = WindowAssigner::Hop {
        time: 4,
        size_ms: slides * SLIDE_MS,
        slide_ms: SLIDE_MS,
        offset_ms: 0,
    };
    windowed_count(rows, keys, window)
}

fn windowed_count(rows: u64, keys: u64, window: WindowAssigner) -> Result<JobGraph, ConnectorError> {
    let environment = ConnectorEnvironment::new();
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema = Schema::new(vec![
        Field::new("auction", DataType::Int64, false),
        Field::new("bidder", DataType::Int64, false),
        Field::new("price", DataType::Int64, false),
        Field::new("discount", DataType::Float64, false),
        Field::new("ts", time, false),
    ]);
    let (rows, last_key) = (rows.to_string(), keys.saturating_sub(1).to_string());
    let options = [
        ("connector", "datagen"),
        ("rows-per-second", "unlimited"),
        ("number-of-rows", rows.as_str()),
        ("fields.auction.min", "0"),
        ("fields.auction.max", last_key.as_str()),
        ("fields.bidder.min", "0"),
        ("fields.bidder.max", "1000000"),
        ("fields.price.min", "1"),
        ("fields.price.max", "100000000"),
        ("fields.ts.kind", "sequence"),
        ("fields.ts.start", "2026-01-01 00:00:00"),
        ("fields.ts.step", "1 ms"),
    ];
    let bids = table("bids", schema, &options);
    let columns: Vec<usize> = (0..bids.schema.fields().len()).collect();
    let source = create_source(&bids, &columns, &environment)?;
    let mut graph = JobGraph::new();
    let input = graph
        .source(SourceNode {
            table: "bids".into(),
            physical_schema: Arc::clone(&bids.schema),
            source,
            computed: None,
            event_time: Some(EventTime {
                column: 4,
                delay_ms: 0,
                idle_timeout: None,
                max_drift_ms: None,
            }),
        })
        .expect("a table with a timestamp");
    let spec = WindowAggregate {
        keys: vec![0],
        window,
        aggregates: vec![AggregateCall {
            function: Arc::new(Count::new()),
            arguments: Vec::new(),
            filter: None,
            name: "bids".into(),
        }],
        window_names: ("window_start".into(), "window_end".into()),
        time: TimeDomain::EventTime,
        updates: None,
    };
    let counts = graph
        .window_aggregate("counts", input, spec)
        .expect("columns of the table");
    let out = table(
        "out",
        graph.schema(counts).as_ref().clone(),
        &[("connector", "blackhole")],
    );
    let sink = create_sink(&out, &environment)?;
    graph
        .sink(
            "out",
            counts,
            SinkNode {
                name: "out".into(),
                sink,
            },
        )
        .expect("a new uid");
    Ok(graph)
}
