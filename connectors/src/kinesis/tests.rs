mod aggregated;
mod fake;
#[cfg(feature = "aws")]
pub(super) mod http;
mod live;
mod resharding;
mod starting;

use super::*;
use crate::conformance::sink::{
    Process, SinkUnderTest, check_at_least_once, check_exactly_once, check_run_again_without_checkpoints, schema,
};
use crate::conformance::source::Reading;
use crate::conformance::{lines, runtime};
use crate::table::MetadataColumn;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::collections::BTreeMap;
use tidemill_engine::sink::PreCommitId;
use tidemill_engine::source::{SplitId, SplitState};
use tidemill_shards::{
    CreateStream, Position, PutEntry, ReadFrom, ReadLimits, ShardRef, ShardStore, StoreOptions, StreamName,
};

struct Store {
    _directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    store: ShardStore,
}

impl Store {
    fn new(shards: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            segment_bytes: 4 << 20,
            ..StoreOptions::default()
        };
        let store = ShardStore::open(directory.path(), options).unwrap();
        let this = Self {
            _directory: directory,
            runtime: runtime(),
            store,
        };
        this.create(shards);
        this
    }

    fn create(&self, shards: u32) {
        let request = CreateStream::provisioned(name(), shards);
        self.runtime
            .block_on(ShardAccess::create_stream(&self.store, request))
            .unwrap();
    }

    fn put(&self, records: impl IntoIterator<Item = impl Into<String>>) {
        let entry = |(i, data): (usize, String)| PutEntry {
            partition_key: format!("key-{i}"),
            explicit_hash_key: None,
            data: data.into_bytes().into(),
        };
        let entries = records.into_iter().map(Into::into).enumerate().map(entry).collect();
        for result in self
            .runtime
            .block_on(ShardAccess::put_records(&self.store, &name(), entries))
            .unwrap()
        {
            result.unwrap();
        }
    }

    fn stored(&self) -> Vec<(String, String)> {
        let text = |(key, data): (String, Vec<u8>)| (key, String::from_utf8(data).unwrap());
        self.stored_raw().into_iter().map(text).collect()
    }

    fn stored_raw(&self) -> Vec<(String, Vec<u8>)> {
        let limits = ReadLimits {
            records_max: 10_000,
            bytes_max: 8 << 20,
        };
        let mut found = Vec::new();
        for shard in self.runtime.block_on(self.store.list_shards(&name())).unwrap() {
            let shard = ShardRef::new(name(), shard.id);
            let from = self
                .runtime
                .block_on(ShardAccess::resolve(&self.store, &shard, ReadFrom::TrimHorizon))
                .unwrap();
            let mut from: Position = from;
            loop {
                let batch = self
                    .runtime
                    .block_on(ShardAccess::read(&self.store, &shard, from, limits))
                    .unwrap();
                if batch.records.is_empty() {
                    break;
                }
                from = batch.next;
                for record in batch.records {
                    found.push((record.partition_key().to_owned(), record.data.to_vec()));
                }
            }
        }
        found
    }

    fn environment(&self) -> ConnectorEnvironment {
        ConnectorEnvironment::new().with_shards(Arc::new(self.store.clone()))
    }
}

fn name() -> StreamName {
    StreamName::new("clicks").unwrap()
}

fn table(schema: arrow::datatypes::SchemaRef, options: &[(&str, &str)]) -> TableDefinition {
    let mut all = BTreeMap::from([
        ("connector".to_owned(), "kinesis".to_owned()),
        ("stream".to_owned(), "clicks".to_owned()),
        ("format".to_owned(), "json".to_owned()),
    ]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    TableDefinition {
        name: "t".to_owned(),
        schema,
        metadata_columns: Vec::new(),
        options: all,
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}

fn source(store: &Store, options: &[(&str, &str)]) -> Arc<dyn Source> {
    crate::create_source(&table(schema(), options), &[0, 1], &store.environment()).unwrap()
}

fn record(id: usize) -> String {
    format!(r#"{{"other":[1,2],"id":{id},"name":"n{id}"}}"#)
}

/// Reads what is there from the splits, in reads of `size`, and gives rows and the state of each split.
fn drain(reading: &Reading<'_>, splits: &[Split], rows: usize, size: usize) -> (Vec<String>, Vec<Split>) {
    let mut readers: Vec<_> = splits.iter().map(|split| reading.open(split)).collect();
    let mut found = Vec::new();
    while found.len() < rows {
        let seen = reading.wakes.count();
        let mut idle = true;
        for reader in &mut readers {
            if let tidemill_engine::source::ReadOutcome::Rows(batch) = reader.read(size, 1 << 20).unwrap() {
                found.extend(lines(&[batch]));
                idle = false;
            }
            if found.len() >= rows {
                break;
            }
        }
        if idle && !readers.iter_mut().any(|reader| reader.is_ready()) {
            reading.wakes.wait_beyond(seen);
        }
    }
    let after = splits.iter().zip(&readers).map(|(split, reader)| Split {
        id: split.id.clone(),
        position: reader.position(),
    });
    (found, after.collect())
}

fn numbers(rows: &[String]) -> Vec<usize> {
    let mut numbers: Vec<usize> = rows
        .iter()
        .map(|row| row.split('|').next().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn every_record_is_read_once_from_any_position() {
    let store = Store::new(3);
    store.put((0..500).map(record));
    let source = source(&store, &[("source.init.position", "TRIM_HORIZON")]);
    let reading = Reading::new(source.as_ref());
    let splits = reading.discover(&BTreeMap::new());
    assert_eq!(splits.len(), 3);
    for (first, size) in [(1, 1), (100, 7), (250, 1000)] {
        let (mut rows, rest) = drain(&reading, &splits, first, size);
        let left = 500 - rows.len();
        rows.extend(drain(&reading, &rest, left, 64).0);
        assert_eq!(numbers(&rows), (0..500).collect::<Vec<_>>());
    }
}

#[test]
fn latest_is_decided_once() {
    let store = Store::new(2);
    store.put((0..10).map(record));
    let source = source(&store, &[]);
    let reading = Reading::new(source.as_ref());
    let splits = reading.discover(&BTreeMap::new());
    // These arrive before anything was read: a restart from these splits must still see them.
    store.put((10..20).map(record));
    assert_eq!(
        numbers(&drain(&reading, &splits, 10, 100).0),
        (10..20).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers(&drain(&reading, &splits, 10, 100).0),
        (10..20).collect::<Vec<_>>()
    );
}

#[test]
fn a_waiting_reader_is_woken_by_new_records() {
    let store = Store::new(1);
    let source = source(&store, &[]);
    let reading = Reading::new(source.as_ref());
    let splits = reading.discover(&BTreeMap::new());
    let mut reader = reading.open(&splits[0]);
    assert!(matches!(
        reader.read(10, 1000).unwrap(),
        tidemill_engine::source::ReadOutcome::Pending
    ));
    assert!(!reader.is_ready());
    let seen = reading.wakes.count();
    store.put([record(1)]);
    reading.wakes.wait_beyond(seen);
    assert!(reader.is_ready());
    assert_eq!(reading.next(reader.as_mut(), 10).unwrap().unwrap().num_rows(), 1);
}

#[test]
fn a_bad_record_names_its_place_or_is_dropped() {
    let store = Store::new(1);
    store.put([record(1), r#"{"id":"many"}"#.to_owned(), record(3)]);
    let strict = source(&store, &[("source.init.position", "TRIM_HORIZON")]);
    let reading = Reading::new(strict.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let mut reader = reading.open(&split);
    let error = reading.next(reader.as_mut(), 10).unwrap_err().to_string();
    assert!(error.contains("clicks/shardId-000000000000"), "{error}");
    assert!(error.contains("sequence number "), "{error}");
    assert!(error.contains("field id: 'many' is not a number"), "{error}");
    assert!(error.contains("set 'json.ignore-parse-errors' = 'true'"), "{error}");

    let lenient = source(
        &store,
        &[
            ("source.init.position", "TRIM_HORIZON"),
            ("json.ignore-parse-errors", "true"),
        ],
    );
    let reading = Reading::new(lenient.as_ref());
    let mut reader = reading.open(&split);
    let batch = reading.next(reader.as_mut(), 10).unwrap().unwrap();
    assert_eq!(numbers(&lines(&[batch])), [1, 3]);
    assert_eq!(reading.metrics.rows_dropped.get(), 1);
}

#[test]
fn metadata_columns_are_filled() {
    let store = Store::new(1);
    store.put([record(7)]);
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let schema = Schema::new(vec![
        Field::new("seq", DataType::Utf8, true),
        Field::new("id", DataType::Int64, true),
        Field::new("shard", DataType::Utf8View, true),
        Field::new("at", utc, true),
        Field::new("key", DataType::Utf8, true),
    ]);
    let mut table = table(Arc::new(schema), &[("source.init.position", "TRIM_HORIZON")]);
    for (column, key) in [
        ("seq", "sequence-number"),
        ("shard", "shard-id"),
        ("at", "timestamp"),
        ("key", "partition-key"),
    ] {
        table.metadata_columns.push(MetadataColumn {
            column: column.to_owned(),
            key: key.to_owned(),
        });
    }
    let source = crate::create_source(&table, &[4, 2, 1, 0, 3], &store.environment()).unwrap();
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let mut reader = reading.open(&split);
    let batch = reading.next(reader.as_mut(), 10).unwrap().unwrap();
    let row = lines(&[batch]).remove(0);
    assert!(row.starts_with("key-0|shardId-000000000000|7|"), "{row}");
    assert!(row.contains('Z'), "{row}");

    for (column, key) in [
        "sequence_number",
        "shard_id",
        "approximate_arrival_timestamp",
        "partition_key",
    ]
    .into_iter()
    .enumerate()
    {
        table.metadata_columns[column].key = key.to_owned();
    }
    let source = crate::create_source(&table, &[4, 2, 1, 0, 3], &store.environment()).unwrap();
    let reading = Reading::new(source.as_ref());
    let mut reader = reading.open(&split);
    let batch = reading.next(reader.as_mut(), 10).unwrap().unwrap();
    assert_eq!(lines(&[batch]), [row], "the names of the API mean the same");

    table.metadata_columns[0].key = "sequence-numbr".to_owned();
    let error = crate::check_source(&table).unwrap_err().to_string();
    assert!(error.contains("did you mean 'sequence-number'?"), "{error}");
}

#[test]
fn a_stream_that_was_created_again_is_not_mistaken() {
    let store = Store::new(1);
    let source = source(&store, &[("source.init.position", "TRIM_HORIZON")]);
    let reading = Reading::new(source.as_ref());
    let known: BTreeMap<_, _> = [(
        SplitId("shardId-000000000000".to_owned()),
        SplitState {
            position: "4711@12".to_owned(),
            ended: false,
        },
    )]
    .into();
    let mut enumerator = source.enumerator().unwrap();
    let error = reading
        .runtime
        .block_on(enumerator.discover(&known))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("created again") && error.contains("another name"),
        "{error}"
    );
    let split = Split {
        id: SplitId("shardId-000000000000".to_owned()),
        position: "4711@12".to_owned(),
    };
    let mut reader = reading.open(&split);
    let error = reading.next(reader.as_mut(), 10).unwrap_err();
    assert!(error.to_string().contains("created again"), "{error}");
    assert!(!error.is_retryable(), "{error:?}");
}

#[test]
fn output_is_not_written_to_a_stream_that_took_the_name_of_the_one_that_was_opened() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let written = Written {
            store: Store::new(1),
            options: vec![("sink.delivery-guarantee", guarantee)],
        };
        let mut process = Process::start(&written, 1);
        process.tick(0..4);
        let one = process.pre_commit(1, 0);
        if process.committer.is_some() {
            process.publish(1, &one).unwrap();
        }
        assert_eq!(written.visible(), [0, 1, 2, 3]);
        let store = &written.store;
        store.runtime.block_on(store.store.delete_stream(&name())).unwrap();
        store.create(1);
        let writer = &mut process.writers[0];
        writer.write(&crate::conformance::sink::rows(4..6), 0).unwrap();
        let pre_commit = writer
            .pre_commit(PreCommitId {
                checkpoint: 2,
                attempt: 0,
            })
            .unwrap();
        let error = store.runtime.block_on(pre_commit).unwrap_err();
        assert!(
            error.to_string().contains("created again while"),
            "{guarantee}: {error}"
        );
        assert!(!error.is_retryable(), "{error:?}");
        assert_eq!(written.visible(), Vec::<i64>::new(), "{guarantee}");
    }
}

#[test]
fn a_table_whose_stream_is_missing_is_found_out_before_the_job_starts() {
    let store = Store::new(1);
    let other = table(schema(), &[("stream", "nosuch")]);
    let source = crate::create_source(&other, &[0, 1], &store.environment()).unwrap();
    let sink = crate::create_sink(&other, &store.environment()).unwrap();
    for error in [
        store.runtime.block_on(source.check()).unwrap_err(),
        store.runtime.block_on(sink.check()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("stream nosuch does not exist"), "{error}");
        assert!(!error.is_retryable(), "{error:?}");
    }
    let there = crate::create_sink(&table(schema(), &[]), &store.environment()).unwrap();
    store.runtime.block_on(there.check()).unwrap();
}

#[test]
fn a_missing_stream_or_another_arn_is_told() {
    let store = Store::new(1);
    for (options, about) in [
        (&[("stream", "nosuch")][..], "stream nosuch does not exist"),
        (&[("stream", "nosuch")], "`tidemill stream create nosuch --shards 1`"),
        (&[("aws.region", "eu-west-9")], "correct the option 'aws.region'"),
    ] {
        let source = source(&store, options);
        let mut enumerator = source.enumerator().unwrap();
        let error = store
            .runtime
            .block_on(enumerator.discover(&BTreeMap::new()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(about), "{error}");
    }
}

struct Written {
    store: Store,
    options: Vec<(&'static str, &'static str)>,
}

impl SinkUnderTest for Written {
    fn sink(&self) -> Arc<dyn Sink> {
        crate::create_sink(&table(schema(), &self.options), &self.store.environment()).unwrap()
    }

    fn visible(&self) -> Vec<i64> {
        let id = |(_, data): (String, String)| {
            serde_json::from_str::<serde_json::Value>(&data).unwrap()["id"]
                .as_i64()
                .unwrap()
        };
        let mut ids: Vec<i64> = self.store.stored().into_iter().map(id).collect();
        ids.sort_unstable();
        ids
    }
}

#[test]
fn exactly_once_output_conforms() {
    check_exactly_once(&Written {
        store: Store::new(2),
        options: Vec::new(),
    });
}

#[test]
fn a_run_without_the_checkpoints_of_the_one_before_adds_its_records() {
    check_run_again_without_checkpoints(&Written {
        store: Store::new(2),
        options: Vec::new(),
    });
}

#[test]
fn at_least_once_output_conforms() {
    check_at_least_once(&Written {
        store: Store::new(2),
        options: vec![
            ("sink.delivery-guarantee", "at-least-once"),
            ("sink.partitioner", "random"),
        ],
    });
}

#[test]
fn full_buffers_are_staged_ahead_of_the_checkpoint() {
    let test = Written {
        store: Store::new(2),
        options: Vec::new(),
    };
    let mut process = Process::start(&test, 1);
    process.tick(0..2);
    let one = process.pre_commit(1, 0);
    process.publish(1, &one).unwrap();
    // Some 12 MiB in a tick, of which most is staged before the pre-commit.
    for _ in 0..6 {
        process.writers[0]
            .write(&crate::conformance::sink::rows(2..40_002), 0)
            .unwrap();
    }
    let two = process.pre_commit(2, 0);
    let refs: Vec<tidemill_shards::StagedRef> = serde_json::from_slice(&two[0]).unwrap();
    assert!(refs.len() > 2, "{} parts", refs.len());
    process.publish(2, &two).unwrap();
    assert_eq!(test.visible().len(), 2 + 6 * 40_000);
}

#[test]
fn partition_keys_come_from_partitioned_by() {
    let store = Store::new(2);
    let mut table = table(schema(), &[("sink.partitioner-field-delimiter", "#")]);
    table.partition_keys = vec!["name".to_owned(), "id".to_owned()];
    struct Keyed(TableDefinition, ConnectorEnvironment);
    impl SinkUnderTest for Keyed {
        fn sink(&self) -> Arc<dyn Sink> {
            crate::create_sink(&self.0, &self.1).unwrap()
        }
        fn visible(&self) -> Vec<i64> {
            Vec::new()
        }
    }
    let mut process = Process::start(&Keyed(table.clone(), store.environment()), 1);
    process.tick(0..4);
    let one = process.pre_commit(1, 0);
    process.publish(1, &one).unwrap();
    let mut keys: Vec<String> = store.stored().into_iter().map(|(key, _)| key).collect();
    keys.sort();
    assert_eq!(keys, ["n0#0", "n0#3", "n1#1", "n2#2"]);
    table.options.insert("sink.partitioner".to_owned(), "fixed".to_owned());
    assert!(
        crate::check_sink(&table)
            .unwrap_err()
            .to_string()
            .contains("PARTITIONED BY")
    );
}

#[test]
fn a_record_that_is_too_large_fails_with_its_size() {
    let test = Written {
        store: Store::new(1),
        options: Vec::new(),
    };
    let mut process = Process::start(&test, 1);
    let long: Vec<String> = vec!["x".repeat(2 << 20)];
    let batch = arrow::array::RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(arrow::array::Int64Array::from(vec![1])),
            Arc::new(arrow::array::StringArray::from(long)),
        ],
    )
    .unwrap();
    process.writers[0].write(&batch, 0).unwrap();
    let id = tidemill_engine::sink::PreCommitId {
        checkpoint: 1,
        attempt: 0,
    };
    let pending = process.writers[0].pre_commit(id).unwrap();
    let error = test.store.runtime.block_on(pending).unwrap_err().to_string();
    assert!(error.contains("KiB") || error.contains("bytes"), "{error}");
}

const ENDPOINT: (&str, &str) = ("aws.endpoint", "http://127.0.0.1:4566");

#[test]
fn output_to_a_missing_stream_tells_how_to_create_it() {
    let test = Written {
        store: Store::new(1),
        options: vec![("stream", "nosuch")],
    };
    let mut process = Process::start(&test, 1);
    let id = tidemill_engine::sink::PreCommitId {
        checkpoint: 1,
        attempt: 0,
    };
    // The stream is looked for in the background: whoever asks first after that is told.
    let error = match process.writers[0].pre_commit(id) {
        Ok(pending) => test.store.runtime.block_on(pending).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("stream nosuch does not exist"), "{error}");
    assert!(error.contains("`tidemill stream create nosuch --shards 1`"), "{error}");
}

#[test]
fn wrong_options_are_refused() {
    for (options, about) in [
        (&[("scan.stream.initpos", "LATEST")][..], "source."),
        (&[("source.init.position", "AT_TIMESTAMP")], "source.init.timestamp"),
        (&[("source.init.timestamp", "2024-05-01T00:00:00Z")], "no effect"),
        (&[("source.init.position", "EARLIEST")], "is not one of LATEST"),
        (&[("stream", "a/b")], "not a stream name"),
        (
            &[("stream.arn", "arn:aws:kinesis:us-east-1:000000000000:stream/clicks")],
            "together with stream",
        ),
        (
            &[("format", "")],
            "add for example 'format' = 'json' to its WITH; there are json, csv, raw",
        ),
        (
            &[("format", "parquet")],
            "there is no format 'parquet' for the connector 'kinesis'; there are json, csv, raw, debezium-json",
        ),
        (&[("format", "jsn")], "did you mean 'json'?"),
        (
            &[("json.ignore-parse-error", "true")],
            "did you mean 'json.ignore-parse-errors'?",
        ),
        (&[("sink.delivery-guarantee", "none")], "not offered"),
        (
            &[("source.init.position", "AT_SEQUENCE_NUMBER")],
            "source.init.sequence-numbers",
        ),
        (&[("source.init.sequence-numbers", "shardId-0:1")], "no effect"),
        (&[("source.deaggregation", "none")], "is not one of shard, all, off"),
        (&[("source.on-data-loss", "ignore")], "is not one of fail, continue"),
        (&[("source.reader.type", "EFO")], "EFO is not supported"),
        (
            &[("sink.aggregation.max-count", "5")],
            "no effect without 'sink.aggregation.enabled'",
        ),
        (
            &[
                ("sink.aggregation.enabled", "true"),
                ("sink.aggregation.max-size", "11mb"),
            ],
            "10 mb",
        ),
        (
            &[("sink.producer.aggregation-enabled", "true")],
            "sink.aggregation.enabled",
        ),
        (&[("sink.batch.max-size", "100")], "no effect without 'aws.endpoint'"),
        (
            &[("aws.credentials.provider", "AUTO")],
            "no effect without 'aws.endpoint'",
        ),
        (&[("aws.endpoint", "localhost:4566")], "is not an endpoint"),
        (
            &[ENDPOINT, ("sink.delivery-guarantee", "exactly-once")],
            "cannot take it back",
        ),
        (&[ENDPOINT, ("sink.batch.max-size", "501")], "must be 1 to 500"),
        (
            &[ENDPOINT, ("sink.requests.max-buffered", "10")],
            "at least 'sink.batch.max-size'",
        ),
        (
            &[ENDPOINT, ("sink.flush-buffer.size", "11mb")],
            "what a request may have",
        ),
        (
            &[ENDPOINT, ("source.shard.get-records.max-record-count", "0")],
            "must be 1 to 10000",
        ),
        (
            &[ENDPOINT, ("aws.credentials.provider", "ASSUME_ROLE")],
            "not supported",
        ),
        (&[ENDPOINT, ("aws.credentials.provider", "BASIC")], "basic.accesskeyid"),
        (
            &[ENDPOINT, ("aws.credentials.basic.secretkey", "hush")],
            "has no effect with this",
        ),
        (&[ENDPOINT, ("aws.credentials.role.externalId", "x")], "not supported"),
        (&[ENDPOINT, ("aws.trust.all.certificates", "true")], "always checked"),
    ] {
        let error = crate::check_source(&table(schema(), options)).unwrap_err().to_string();
        assert!(error.contains(about), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
    let error = crate::check_source(&table(schema(), &[("format", "debezium-json")])).unwrap_err();
    assert!(error.to_string().contains("can only be written yet"), "{error}");
    let at = [
        ("source.init.position", "AT_TIMESTAMP"),
        ("source.init.timestamp", "1714521600.5"),
    ];
    assert_eq!(
        KinesisOptions::parse(&table(schema(), &at)).unwrap().start,
        options::InitialPosition::AtTimestamp(1_714_521_600_500)
    );
    let error = crate::create_source(&table(schema(), &[]), &[0], &ConnectorEnvironment::new())
        .err()
        .unwrap();
    assert!(error.to_string().contains("tidemill server"), "{error}");
}
