//! Put, read, starting points, restart.

use tidemill_shards::env::{ManualClock, SimDisk};
use tidemill_shards::{CreateStream, ErrorKind, HashKey, PutEntry, ReadFrom, ReadLimits, ShardStore, StoreError};

use crate::support::*;

#[test]
fn records_come_back_in_order_also_after_a_restart() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let mut sequences = Vec::new();
        for index in 0..200 {
            // Two keys on different shards; 200 records of 100 bytes fill several segments.
            let key = if index % 2 == 0 { "a" } else { "b" };
            sequences.push(put(&store, "s", key, format!("{index:0100}")).await);
        }
        let shards: std::collections::BTreeSet<_> = sequences.iter().map(|receipt| receipt.shard).collect();
        let read = |store: &ShardStore| {
            shards
                .iter()
                .flat_map(|id| read_all(store, &shard("s", id.0)).unwrap())
                .collect::<Vec<_>>()
        };
        let before = read(&store);
        assert_eq!(before.len(), 200);
        for record in &before {
            let index: usize = texts(std::slice::from_ref(record))[0].parse().unwrap();
            assert_eq!(record.sequence, sequences[index].sequence);
            assert_eq!(record.partition_key(), if index.is_multiple_of(2) { "a" } else { "b" });
        }
        assert!(before.windows(2).all(|pair| {
            pair[0].sequence.shard_index != pair[1].sequence.shard_index || pair[0].sequence < pair[1].sequence
        }));
        drop(store);
        let store = open(&disk).unwrap();
        assert_eq!(read(&store), before);
        assert!(store.damage().is_empty());
        let next = put(&store, "s", "a", "x").await;
        assert!(next.sequence > sequences[198].sequence);
        // Missing and damaged index files are rebuilt.
        drop(store);
        disk.remove("0000000001.index");
        disk.overwrite("0000000002.index", b"nonsense".to_vec());
        assert_eq!(read(&open(&disk).unwrap())[..100], before[..100]);
        assert!(disk.contents("0000000001.index").is_some());
    });
}

#[test]
fn every_starting_point() {
    block_on(async {
        let clock = ManualClock::new(NOW_MS);
        let disk = SimDisk::new();
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        create(&store, "s", 1).await;
        let mut receipts = Vec::new();
        for index in 0..10 {
            clock.advance(1000);
            receipts.push(put(&store, "s", "k", format!("{index}")).await);
        }
        let shard = shard("s", 0);
        let from = |from| {
            let position = store.resolve(&shard, from).unwrap();
            texts(&read_from(&store, &shard, position).unwrap())
        };
        let all: Vec<String> = (0..10).map(|index| index.to_string()).collect();
        assert_eq!(from(ReadFrom::TrimHorizon), all);
        assert!(from(ReadFrom::Latest).is_empty());
        assert_eq!(from(ReadFrom::At(receipts[4].sequence)), all[4..]);
        assert_eq!(from(ReadFrom::After(receipts[4].sequence)), all[5..]);
        assert_eq!(from(ReadFrom::AtTimestamp(0)), all);
        assert_eq!(from(ReadFrom::AtTimestamp(NOW_MS + 5000)), all[4..]);
        assert_eq!(from(ReadFrom::AtTimestamp(NOW_MS + 5001)), all[5..]);
        assert!(from(ReadFrom::AtTimestamp(NOW_MS + 99_000)).is_empty());
        let start = store.describe_stream(&name("s")).unwrap().shards[0].starting_sequence();
        assert_eq!(from(ReadFrom::At(start)), all);
        assert_eq!(from(ReadFrom::After(start)), all);

        // The age of what was read tells how far behind a reader is.
        let position = store.resolve(&shard, ReadFrom::TrimHorizon).unwrap();
        let batch = store
            .read(
                &shard,
                position,
                ReadLimits {
                    records_max: 1,
                    bytes_max: 1,
                },
            )
            .unwrap();
        assert_eq!((batch.records.len(), batch.millis_behind_latest), (1, 9000));

        // The same number in another stream of that name is refused.
        store.delete_stream(&name("s")).await.unwrap();
        assert!(matches!(
            store.resolve(&shard, ReadFrom::TrimHorizon),
            Err(StoreError::StreamNotFound(_))
        ));
        clock.advance(5000);
        create(&store, "s", 1).await;
        let error = store.resolve(&shard, ReadFrom::At(receipts[0].sequence)).unwrap_err();
        assert!(matches!(error, StoreError::ForeignPosition { .. }), "{error}");
        assert!(matches!(
            store.read(&shard, position, ALL),
            Err(StoreError::ForeignPosition { .. })
        ));
    });
}

#[test]
fn time_that_goes_back_does_not_go_back_in_a_shard() {
    block_on(async {
        let clock = ManualClock::new(NOW_MS);
        let disk = SimDisk::new();
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        create(&store, "s", 1).await;
        put(&store, "s", "k", "0").await;
        clock.set(NOW_MS - 3_600_000);
        put(&store, "s", "k", "1").await;
        drop(store);
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        put(&store, "s", "k", "2").await;
        clock.set(NOW_MS + 7);
        put(&store, "s", "k", "3").await;
        let arrivals: Vec<u64> = read_all(&store, &shard("s", 0))
            .unwrap()
            .iter()
            .map(|r| r.arrival_ms)
            .collect();
        assert_eq!(arrivals, [NOW_MS, NOW_MS, NOW_MS, NOW_MS + 7]);
    });
}

#[test]
fn keys_route_by_md5_and_explicit_hash_keys_override() {
    block_on(async {
        let store = open(&SimDisk::new()).unwrap();
        create(&store, "s", 4).await;
        let meta = store.describe_stream(&name("s")).unwrap();
        for index in 0..40 {
            let key = format!("key-{index}");
            let receipt = put(&store, "s", &key, "x").await;
            assert_eq!(receipt.shard, meta.route(HashKey::of(&key)).unwrap().id);
        }
        for explicit in [0, 1 << 126, u128::MAX] {
            let entry = PutEntry {
                explicit_hash_key: Some(HashKey(explicit)),
                ..entry("same", "x")
            };
            let receipt = store.put_records(&name("s"), vec![entry]).await.unwrap()[0]
                .clone()
                .unwrap();
            assert_eq!(receipt.shard, meta.route(HashKey(explicit)).unwrap().id);
        }
    });
}

#[test]
fn bad_records_fail_alone_and_large_requests_are_stored_whole() {
    block_on(async {
        let store = open(&SimDisk::new()).unwrap();
        create(&store, "s", 2).await;
        let mebibyte = vec![7u8; (1 << 20) - 1];
        let mut entries = vec![
            entry("", "x"),
            entry("k", mebibyte.clone()),
            entry(&"é".repeat(256), "x"),
        ];
        entries.push(entry(&"k".repeat(257), "x"));
        entries.push(entry("kk", mebibyte.clone()));
        entries.extend((0..8).map(|index| entry(&format!("{index}"), mebibyte.clone())));
        let results = store.put_records(&name("s"), entries).await.unwrap();
        let stored: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(stored[..5], [false, true, true, false, false]);
        assert!(stored[5..].iter().all(|stored| *stored));
        assert_eq!(results[4].as_ref().unwrap_err().kind(), ErrorKind::User);
        let records: usize = (0..2).map(|id| read_all(&store, &shard("s", id)).unwrap().len()).sum();
        assert_eq!(records, 10);
    });
}

#[test]
fn streams_are_created_once_and_within_the_limits() {
    block_on(async {
        let disk = SimDisk::new();
        let store = ShardStore::open_in(
            environment(&disk, &ManualClock::new(NOW_MS)),
            tidemill_shards::StoreOptions {
                shards_max: 6,
                ..options()
            },
        )
        .unwrap();
        let meta = store.create_stream(CreateStream::on_demand(name("a"))).await.unwrap();
        assert_eq!(meta.shards.len(), 4);
        assert_eq!(meta.arn, "arn:aws:kinesis:us-east-1:000000000000:stream/a");
        let again = store
            .create_stream(CreateStream::on_demand(name("a")))
            .await
            .unwrap_err();
        assert_eq!(again, StoreError::StreamExists(name("a")));
        let many = store
            .create_stream(CreateStream::provisioned(name("b"), 3))
            .await
            .unwrap_err();
        assert_eq!(
            many,
            StoreError::ShardLimit {
                current: 4,
                limit: 6,
                requested: 3
            }
        );
        let none = store
            .create_stream(CreateStream::provisioned(name("b"), 0))
            .await
            .unwrap_err();
        assert_eq!(none.kind(), ErrorKind::User);
        create(&store, "b", 2).await;
        store.delete_stream(&name("a")).await.unwrap();
        assert_eq!(
            store.delete_stream(&name("a")).await.unwrap_err(),
            StoreError::StreamNotFound(name("a"))
        );
        let names: Vec<String> = store.list_streams().iter().map(|meta| meta.name.to_string()).collect();
        assert_eq!(names, ["b"]);
    });
}

#[test]
fn subscribers_wake_when_records_are_visible() {
    block_on(async {
        let store = open(&SimDisk::new()).unwrap();
        create(&store, "s", 1).await;
        let mut durable = store.subscribe();
        let before = *durable.borrow_and_update();
        let reader = tokio::spawn({
            let store = store.clone();
            async move {
                durable.changed().await.unwrap();
                assert!(*durable.borrow_and_update() > before);
                texts(&read_all(&store, &shard("s", 0)).unwrap())
            }
        });
        put(&store, "s", "k", "hello").await;
        assert_eq!(reader.await.unwrap(), ["hello"]);
    });
}
