//! Counts clicks per page in windows of five seconds of event time: a job built in Rust, without SQL.
//!
//! Alone, with everything embedded (the stream `clicks` must exist in the data directory's store):
//!
//! ```text
//! cargo run --release -p example-keyed-count -- --data-dir DIR --parallelism 2
//! ```
//! Under a server, as a process that the server starts, restarts and stops like any other job's:
//!
//! ```text
//! tidemill server --data-dir DIR --job-binaries target/release
//! tidemill job submit --executable example-keyed-count --name keyed-count -- clicks_per_page
//! ```
//! Its one argument is the stream that it writes. Kill it with SIGKILL: it comes back and nothing is missing or twice.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use tidemill::connectors::{TableDefinition, create_sink, create_source};
use tidemill::engine::aggregate::{AggregateCall, Count};
use tidemill::engine::graph::{EventTime, JobGraph, SinkNode, SourceNode, TimeDomain, WindowAggregate, WindowAssigner};
use tidemill::{BoxError, JobEnvironment};

fn main() -> ExitCode {
    tidemill::run_job(build)
}

/// Builds the graph: source, window aggregate, sink. The uid is what the state is kept under: it must never change.
fn build(environment: &JobEnvironment) -> Result<JobGraph, BoxError> {
    let output = match environment.arguments() {
        [] => "clicks_per_page",
        [stream] => stream,
        _ => return Err("this job takes one argument: the stream that it writes".into()),
    };
    let mut graph = JobGraph::new();

    // {"page": "/news", "ts": "2026-11-23 06:10:33.123", ...}: fields that are not named here are not decoded.
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    let click = Schema::new(vec![
        Field::new("page", DataType::Utf8, true),
        Field::new("ts", timestamp, true),
    ]);
    let clicks = table("clicks", "clicks", click);
    let source = SourceNode {
        table: clicks.name.clone(),
        physical_schema: Arc::clone(&clicks.schema),
        source: create_source(&clicks, &[0, 1], environment.connectors())?,
        computed: None,
        event_time: Some(EventTime {
            column: 1,
            delay_ms: 2_000,
            idle_timeout: None,
            max_drift_ms: None,
        }),
    };
    let clicks = graph.source(source)?;

    let count = AggregateCall {
        function: Arc::new(Count::new()),
        arguments: vec![],
        filter: None,
        name: "clicks".into(),
    };
    let per_page = WindowAggregate {
        keys: vec![0],
        window: WindowAssigner::Tumble {
            time: 1,
            size_ms: 5_000,
            offset_ms: 0,
        },
        aggregates: vec![count],
        window_names: ("window_start".into(), "window_end".into()),
        time: TimeDomain::EventTime,
        updates: None,
    };
    let per_page = graph.window_aggregate("clicks-per-page", clicks, per_page)?;

    let results = table("results", output, graph.schema(per_page).as_ref().clone());
    let sink = create_sink(&results, environment.connectors())?;
    graph.sink(
        "results",
        per_page,
        SinkNode {
            name: results.name,
            sink,
        },
    )?;
    Ok(graph)
}

/// A table over a stream of the embedded store, or of the server's, in JSON.
fn table(name: &str, stream: &str, schema: Schema) -> TableDefinition {
    let options = [("connector", "kinesis"), ("stream", stream), ("format", "json")];
    let mut options: BTreeMap<String, String> = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    if name == "clicks" {
        options.insert("source.init.position".into(), "TRIM_HORIZON".into());
    }
    TableDefinition {
        name: name.to_owned(),
        schema: Arc::new(schema),
        metadata_columns: Vec::new(),
        options,
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}
