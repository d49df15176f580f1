//! Bytes in and out: appends to the log, and decoding of JSON lines.

#![allow(clippy::disallowed_methods, reason = "benchmarks set their stage with files")]

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use tidemill_connectors::{ConnectorEnvironment, TableDefinition, create_source};
use tidemill_engine::metrics::OperatorMetrics;
use tidemill_engine::source::{ReadOutcome, SplitContext};
use tidemill_shards::{CreateStream, PutEntry, ShardStore, StoreOptions, StreamName};

const RECORDS: usize = 1_000;
const RECORD_BYTES: usize = 1_024;
const JSON_ROWS: usize = 20_000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started")
}

/// Each iteration puts 1,000 records of 1 KiB at once and waits for their one `fdatasync`.
fn log_append(criterion: &mut Criterion) {
    let (runtime, directory) = (runtime(), tempfile::tempdir().expect("a temporary directory"));
    let store = ShardStore::open(directory.path(), StoreOptions::default()).expect("an empty directory");
    let stream = StreamName::new("bench").expect("a valid name");
    runtime
        .block_on(store.create_stream(CreateStream::provisioned(stream.clone(), 4)))
        .expect("a new stream");
    let entry = |key: usize| PutEntry {
        partition_key: key.to_string(),
        explicit_hash_key: None,
        data: vec![b'x'; RECORD_BYTES].into(),
    };
    let entries: Vec<PutEntry> = (0..RECORDS).map(entry).collect();
    let mut group = criterion.benchmark_group("storage");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
    group.bench_function("log_append/1000_x_1KiB", |bencher| {
        bencher.iter(|| {
            let receipts = runtime
                .block_on(store.put_records(&stream, entries.clone()))
                .expect("the log is sound");
            assert!(receipts.iter().all(Result::is_ok));
        });
    });
    group.finish();
}

/// Reads a file of wide records, all columns or two of them.
fn json_decode(criterion: &mut Criterion) {
    let (runtime, directory) = (runtime(), tempfile::tempdir().expect("a temporary directory"));
    let mut lines = String::new();
    for row in 0..JSON_ROWS {
        let _ = writeln!(
            lines,
            r#"{{"id":{row},"page":"/products/{}","user":"user-{}","revenue_cents":{},"ok":true,"ratio":{}.25,"ts":"2026-01-01 00:{:02}:{:02}.{:03}","agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","country":"DE"}}"#,
            row % 50,
            row % 1_000,
            row % 10_000,
            row % 7,
            row / 60_000 % 60,
            row / 1_000 % 60,
            row % 1_000
        );
    }
    let path = directory.path().join("clicks.json");
    std::fs::write(&path, &lines).expect("a temporary file");
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = [
        ("id", DataType::Int64),
        ("page", DataType::Utf8),
        ("user", DataType::Utf8),
        ("revenue_cents", DataType::Int64),
        ("ok", DataType::Boolean),
        ("ratio", DataType::Float64),
        ("ts", time),
        ("agent", DataType::Utf8),
        ("country", DataType::Utf8),
    ];
    let schema = Schema::new(
        fields
            .map(|(name, data_type)| Field::new(name, data_type, true))
            .to_vec(),
    );
    let options = [
        ("connector", "filesystem"),
        ("path", path.to_str().expect("a UTF-8 path")),
        ("format", "json"),
    ];
    let table = TableDefinition {
        name: "clicks".into(),
        schema: Arc::new(schema),
        metadata_columns: Vec::new(),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    };
    let mut group = criterion.benchmark_group("storage");
    group.throughput(Throughput::Bytes(lines.len() as u64)).sample_size(20);
    for (name, projection) in [
        ("all_columns", (0..9).collect::<Vec<_>>()),
        ("2_of_9_columns", vec![1, 3]),
    ] {
        group.bench_function(format!("json_decode/{name}"), |bencher| {
            bencher.iter(|| {
                let source = create_source(&table, &projection, &ConnectorEnvironment::new()).expect("valid options");
                let mut enumerator = source.enumerator().expect("a file");
                let found = runtime.block_on(enumerator.discover(&BTreeMap::new())).expect("a file");
                let context = SplitContext {
                    table: "clicks".into(),
                    worker: 0,
                    waker: Arc::new(|| {}),
                    runtime: runtime.handle().clone(),
                    metrics: Arc::new(OperatorMetrics::default()),
                };
                let mut reader = source.open_split(&found.new[0], context).expect("a file");
                let mut rows = 0;
                loop {
                    match reader.read(8_192, 1 << 22).expect("well-formed lines") {
                        ReadOutcome::Rows(batch) => rows += batch.num_rows(),
                        ReadOutcome::Pending => std::thread::yield_now(),
                        ReadOutcome::Ended => break,
                    }
                }
                assert_eq!(rows, JSON_ROWS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, log_append, json_decode);
criterion_main!(benches);
