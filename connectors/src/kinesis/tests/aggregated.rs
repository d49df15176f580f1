//! Aggregated records, read and written.

use super::super::aggregation::Aggregator;
use super::fake::FakeStore;
use super::resharding::Stream as _;
use super::*;
use crate::conformance::sink::rows;
use tidemill_engine::source::ReadOutcome;

/// The row of a number as its producer writes it.
fn row(id: usize, key: &str) -> String {
    format!(r#"{{"id":{id},"name":"{key}"}}"#)
}

fn aggregated(key: &str, ids: std::ops::Range<usize>) -> Vec<u8> {
    let mut record = Aggregator::new(key);
    ids.for_each(|id| record.push(row(id, key).as_bytes()));
    record.finish().to_vec()
}

fn source_of(store: &Arc<FakeStore>, options: &[(&str, &str)]) -> Arc<dyn Source> {
    let shards: Arc<dyn ShardAccess> = Arc::clone(store) as _;
    let environment = ConnectorEnvironment::new().with_shards(shards);
    let mut all = vec![("source.init.position", "TRIM_HORIZON")];
    all.extend(options);
    crate::create_source(&table(schema(), &all), &[0, 1], &environment).unwrap()
}

#[test]
fn positions_are_exact_within_an_aggregated_record() {
    let store = FakeStore::new(1, 1);
    store.put_data("a", row(0, "a").into());
    store.put_data("b", aggregated("b", 1..8));
    store.put_data("none", aggregated("none", 0..0));
    store.put_data("c", row(8, "c").into());
    store.put_data("d", aggregated("d", 9..12));
    store.split(0);
    let source = source_of(&store, &[]);
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let (all, _) = reading.read_split(&split, &[100], usize::MAX);
    assert_eq!(numbers(&all), (0..12).collect::<Vec<_>>());
    for sizes in [&[1][..], &[2], &[3, 1]] {
        let (again, positions) = reading.read_split(&split, sizes, usize::MAX);
        assert_eq!(again, all);
        for (position, before) in positions {
            let id = split.id.clone();
            let (rest, _) = reading.read_split(
                &Split {
                    id,
                    position: position.clone(),
                },
                &[2],
                usize::MAX,
            );
            assert_eq!(rest, all[before..], "from {position}");
        }
    }
    let (_, positions) = reading.read_split(&split, &[3], 3);
    assert_eq!(
        positions,
        [("1@2+2".to_owned(), 3)],
        "two of the second record's rows were read"
    );
}

#[test]
fn user_records_of_another_shard_are_dropped_unless_asked_for() {
    let store = FakeStore::new(1, 1);
    store.split(0);
    // Somebody aggregated for the parent: a record for the one child holds rows of keys of the other.
    let ranges: Vec<_> = tidemill_shards::HashRange::tiles(2).collect();
    let key_of = |range: &tidemill_shards::HashRange| {
        let mut keys = (0..).map(|n| format!("key{n}"));
        keys.find(|key| range.contains(tidemill_shards::HashKey::of(key)))
            .unwrap()
    };
    let (ours, others) = (key_of(&ranges[0]), key_of(&ranges[1]));
    let data = {
        // The key table of a record of one key, with the other's name in it.
        let sealed = |message: Vec<u8>| {
            use md5::Digest;
            let digest = md5::Md5::digest(&message);
            [&[0xf3, 0x89, 0x9a, 0xc2][..], &message, &digest].concat()
        };
        let bytes =
            |field: u8, bytes: &[u8]| [&[field << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
        let entry = |key: u8, data: String| bytes(3, &[&[8, key][..], &bytes(3, data.as_bytes())].concat());
        let keys = [bytes(1, ours.as_bytes()), bytes(1, others.as_bytes())].concat();
        sealed(
            [
                keys,
                entry(0, row(1, &ours)),
                entry(1, row(2, &others)),
                entry(0, row(3, &ours)),
            ]
            .concat(),
        )
    };
    store.put_data(&ours, data);
    for (option, expected) in [("shard", vec![1, 3]), ("all", vec![1, 2, 3])] {
        let source = source_of(&store, &[("source.deaggregation", option)]);
        let reading = Reading::new(source.as_ref());
        let split = Split {
            id: SplitId("shardId-000000000001".to_owned()),
            position: "2@0".to_owned(),
        };
        let (rows, positions) = reading.read_split(&split, &[10], expected.len());
        assert_eq!(numbers(&rows), expected);
        assert_eq!(positions.last().unwrap().0, "2@2");
        assert_eq!(reading.metrics.rows_dropped.get(), 3 - expected.len() as u64);
    }
}

#[test]
fn aggregated_records_are_not_opened_when_told_so() {
    let store = FakeStore::new(1, 1);
    store.put_data("b", aggregated("b", 1..8));
    let source = source_of(&store, &[("source.deaggregation", "off")]);
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let error = reading.next(reading.open(&split).as_mut(), 10).unwrap_err().to_string();
    assert!(error.contains("cannot be decoded"), "{error}");
}

#[test]
fn a_bad_row_within_a_record_names_its_place() {
    let store = FakeStore::new(1, 1);
    let mut record = Aggregator::new("a");
    record.push(row(1, "a").as_bytes());
    record.push(b"{");
    store.put_data("a", record.finish().to_vec());
    let source = source_of(&store, &[]);
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let error = reading.next(reading.open(&split).as_mut(), 10).unwrap_err().to_string();
    assert!(
        error.contains("user record 1 of the record with sequence number"),
        "{error}"
    );
}

#[test]
fn sub_sequence_numbers_and_keys_of_user_records_are_metadata() {
    let store = FakeStore::new(1, 1);
    store.put_data("outer", aggregated("inner", 0..2));
    store.put_data("plain", row(2, "plain").into());
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("sub", DataType::Int64, true),
    ]);
    let mut table = table(
        Arc::new(schema),
        &[
            ("source.init.position", "TRIM_HORIZON"),
            ("source.deaggregation", "all"),
        ],
    );
    for (column, key) in [("key", "partition-key"), ("sub", "sub-sequence-number")] {
        let (column, key) = (column.to_owned(), key.to_owned());
        table.metadata_columns.push(MetadataColumn { column, key });
    }
    let environment = ConnectorEnvironment::new().with_shards(Arc::clone(&store) as _);
    let source = crate::create_source(&table, &[0, 1, 2], &environment).unwrap();
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let (rows, _) = reading.read_split(&split, &[10], 3);
    assert_eq!(rows, ["0|inner|0", "1|inner|1", "2|plain|0"]);
}

#[test]
fn written_rows_are_aggregated_and_read_back() {
    for (partition_keys, guarantee) in [(&[][..], "exactly-once"), (&["name"][..], "at-least-once")] {
        let store = Store::new(2);
        let mut table = table(
            schema(),
            &[
                ("source.init.position", "TRIM_HORIZON"),
                ("sink.aggregation.enabled", "true"),
                ("sink.aggregation.max-count", "100"),
                ("sink.delivery-guarantee", guarantee),
            ],
        );
        table.partition_keys = partition_keys.iter().map(|key| (*key).to_owned()).collect();
        struct Aggregated(TableDefinition, ConnectorEnvironment);
        impl SinkUnderTest for Aggregated {
            fn sink(&self) -> Arc<dyn Sink> {
                crate::create_sink(&self.0, &self.1).unwrap()
            }
            fn visible(&self) -> Vec<i64> {
                Vec::new()
            }
        }
        let mut process = Process::start(&Aggregated(table.clone(), store.environment()), 1);
        process.writers[0].write(&rows(0..1_000), 0).unwrap();
        process.tick(1_000..1_004);
        let one = process.pre_commit(1, 0);
        if process.committer.is_some() {
            process.publish(1, &one).unwrap();
        }
        let stored = store.stored_raw();
        assert!(stored.len() < 40, "{} records", stored.len());
        let source = crate::create_source(&table, &[0, 1], &store.environment()).unwrap();
        let reading = Reading::new(source.as_ref());
        let splits = reading.discover(&BTreeMap::new());
        assert_eq!(
            numbers(&drain(&reading, &splits, 1_004, 64).0),
            (0..1_004).collect::<Vec<_>>()
        );
        assert_eq!(reading.metrics.rows_dropped.get(), 0);
    }
}

#[test]
fn a_read_that_ends_within_a_record_is_ready_for_more() {
    let store = FakeStore::new(1, 1);
    store.put_data("b", aggregated("b", 0..3));
    let source = source_of(&store, &[]);
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let mut reader = reading.open(&split);
    let _ = reading.next(reader.as_mut(), 1).unwrap().unwrap();
    assert!(reader.is_ready());
    assert!(matches!(reader.read(10, 1 << 20).unwrap(), ReadOutcome::Rows(batch) if batch.num_rows() == 2));
}
