//! The generator alone: every column of every event, read and dropped.

use super::{NexmarkOptions, Ran};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tidemill_connectors::{ConnectorEnvironment, TableDefinition, create_source, nexmark_schema};
use tidemill_engine::job::TickOptions;
use tidemill_engine::metrics::OperatorMetrics;
use tidemill_engine::source::{ReadOutcome, Source, Split, SplitContext};

pub(super) async fn run(options: &NexmarkOptions) -> anyhow::Result<Ran> {
    let schema = nexmark_schema();
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let values = [
        ("connector", "nexmark".to_owned()),
        ("events", options.events.to_string()),
        ("first.event.rate", options.event_rate.to_string()),
        ("seed", options.seed.to_string()),
        ("splits", options.parallelism.to_string()),
    ];
    let table = TableDefinition {
        name: "nexmark".to_owned(),
        schema,
        metadata_columns: Vec::new(),
        options: values.map(|(key, value)| (key.to_owned(), value)).into(),
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    };
    let source = create_source(&table, &columns, &ConnectorEnvironment::new())?;
    let splits = source.enumerator()?.discover(&BTreeMap::new()).await?.new;
    let started = Instant::now();
    let runtime = tokio::runtime::Handle::current();
    let readers = splits.into_iter().enumerate().map(|(worker, split)| {
        let (source, runtime) = (Arc::clone(&source), runtime.clone());
        tokio::task::spawn_blocking(move || read(source.as_ref(), &split, worker, runtime))
    });
    let mut events = 0;
    for reader in readers.collect::<Vec<_>>() {
        events += reader.await.context("a generator panicked")??;
    }
    Ok(Ran {
        events,
        seconds: started.elapsed().as_secs_f64(),
        rows_out: 0,
        rows_late: 0,
        ticks: 0,
        checkpoints: Vec::new(),
        latency: None,
    })
}

/// Reads a split to its end; returns its rows.
fn read(
    source: &dyn Source,
    split: &Split,
    worker: usize,
    runtime: tokio::runtime::Handle,
) -> tidemill_engine::Result<u64> {
    let context = SplitContext {
        table: "nexmark".to_owned(),
        worker,
        waker: Arc::new(|| ()),
        runtime,
        metrics: Arc::new(OperatorMetrics::default()),
    };
    let mut reader = source.open_split(split, context)?;
    let ticks = TickOptions::default();
    let mut rows = 0;
    loop {
        match reader.read(ticks.rows_max, ticks.bytes_max)? {
            ReadOutcome::Rows(batch) => rows += std::hint::black_box(batch).num_rows() as u64,
            ReadOutcome::Pending => std::thread::yield_now(),
            ReadOutcome::Ended => return Ok(rows),
        }
    }
}
