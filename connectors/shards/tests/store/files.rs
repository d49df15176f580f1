//! Real files: a second owner, a reader beside the owner, many putters at once.

use std::collections::BTreeSet;

use tidemill_shards::{
    ErrorKind, Housekeeping, ReadFrom, ReadLimits, SegmentReader, ShardStore, SharedAccess, StoreError, StoreOptions,
};

use crate::support::*;

fn small() -> StoreOptions {
    StoreOptions {
        segment_bytes: 256 << 10,
        housekeeping: Housekeeping::Background,
        ..StoreOptions::default()
    }
}

#[test]
fn second_store_on_a_directory_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = ShardStore::open(directory.path(), small()).unwrap();
    let error = ShardStore::open(directory.path(), small()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }));
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.to_string().contains(&directory.path().display().to_string()),
        "{error}"
    );
    drop(store);
    ShardStore::open(directory.path(), small()).unwrap();
}

#[test]
fn many_putters_share_syncs_and_keep_their_own_order() {
    block_on(async {
        const PUTTERS: usize = 64;
        const EACH: usize = 100;
        let directory = tempfile::tempdir().unwrap();
        let store = ShardStore::open(directory.path(), small()).unwrap();
        create(&store, "s", 4).await;
        let mut durable = store.subscribe();
        let commits = tokio::spawn(async move {
            let mut commits = 0;
            while durable.changed().await.is_ok() {
                commits += 1;
            }
            commits
        });
        let putters: Vec<_> = (0..PUTTERS)
            .map(|putter| {
                let store = store.clone();
                tokio::spawn(async move {
                    for index in 0..EACH {
                        put(&store, "s", &format!("putter-{putter}"), format!("{putter}:{index}")).await;
                    }
                })
            })
            .collect();
        for putter in putters {
            putter.await.unwrap();
        }
        // A reader that has nothing but the directory sees what the store sees.
        let reader = SegmentReader::open(&store.directory().unwrap()).unwrap();
        let limits = ReadLimits {
            records_max: 100,
            bytes_max: 1 << 20,
        };
        let mut all = Vec::new();
        for id in 0..4 {
            let shard = shard("s", id);
            let mut from = store.resolve(&shard, ReadFrom::TrimHorizon).unwrap();
            loop {
                let located = store.locate(&shard, from, limits).unwrap();
                let json = serde_json::to_string(&located).unwrap();
                let batch = reader.read(&serde_json::from_str(&json).unwrap(), limits).unwrap();
                if batch.records.is_empty() {
                    break;
                }
                from = batch.next;
                all.extend(texts(&batch.records));
            }
        }
        assert_eq!(all.len(), PUTTERS * EACH);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), PUTTERS * EACH);
        for putter in 0..PUTTERS {
            let prefix = format!("{putter}:");
            let own: Vec<usize> = all
                .iter()
                .filter_map(|text| text.strip_prefix(&prefix)?.parse().ok())
                .collect();
            assert_eq!(own, (0..EACH).collect::<Vec<_>>());
        }
        drop(store);
        let commits = commits.await.unwrap();
        assert!(commits < PUTTERS * EACH / 2, "{commits} commits: they are not grouped");
        let store = ShardStore::open(directory.path(), small()).unwrap();
        let records: usize = (0..4).map(|id| read_all(&store, &shard("s", id)).unwrap().len()).sum();
        assert_eq!(records, PUTTERS * EACH);
    });
}

#[test]
fn the_store_serves_the_trait() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store: SharedAccess = std::sync::Arc::new(ShardStore::open(directory.path(), small()).unwrap());
        store
            .create_stream(tidemill_shards::CreateStream::on_demand(name("s")))
            .await
            .unwrap();
        assert_eq!(store.list_shards(&name("s")).await.unwrap().len(), 4);
        let receipts = store.put_records(&name("s"), vec![entry("k", "v")]).await.unwrap();
        let shard = shard("s", receipts[0].as_ref().unwrap().shard.0);
        let from = store.resolve(&shard, ReadFrom::AtTimestamp(0)).await.unwrap();
        let batch = store.read(&shard, from, ALL).await.unwrap();
        assert_eq!(texts(&batch.records), ["v"]);
        assert!(!batch.at_end);
        assert!(store.locate(&shard, batch.next, ALL).await.unwrap().extents.is_empty());
    });
}

#[test]
fn requests_and_answers_cross_a_socket_without_field_names() {
    fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = bincode::serialize(value).unwrap();
        assert_eq!(&bincode::deserialize::<T>(&bytes).unwrap(), value);
    }
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store = ShardStore::open(directory.path(), small()).unwrap();
        create(&store, "s", 2).await;
        round_trip(&tidemill_shards::CreateStream::on_demand(name("t")));
        round_trip(&store.describe_stream(&name("s")).unwrap());
        let entries = vec![entry("k", "v")];
        round_trip(&entries);
        round_trip(
            &store
                .put_records(&name("s"), vec![entry("k", "v"), entry("", "x")])
                .await
                .unwrap(),
        );
        let shard = shard(
            "s",
            store.put_records(&name("s"), entries.clone()).await.unwrap()[0]
                .as_ref()
                .unwrap()
                .shard
                .0,
        );
        round_trip(&ReadFrom::AtTimestamp(5));
        let from = store.resolve(&shard, ReadFrom::TrimHorizon).unwrap();
        round_trip(&store.locate(&shard, from, ALL).unwrap());
        let batch = store.read(&shard, from, ALL).unwrap();
        round_trip(&batch);
        round_trip(&ReadFrom::At(batch.records[0].sequence));
        let request = tidemill_shards::StageRequest {
            job: "j".into(),
            sink: "s".into(),
            stream: name("s"),
            lineage: LINEAGE,
            checkpoint: 1,
            attempt: 1,
            worker: 0,
            entries,
        };
        round_trip(&request);
        let staged = vec![store.stage(request).await.unwrap()];
        let publish = tidemill_shards::PublishRequest {
            job: "j".into(),
            sink: "s".into(),
            lineage: LINEAGE,
            checkpoint: 1,
            generation: 1,
            decided_by: DECIDER,
            staged,
        };
        round_trip(&publish);
        round_trip(&store.publish(publish.clone()).await);
        round_trip(
            &store
                .publish(tidemill_shards::PublishRequest {
                    checkpoint: 0,
                    ..publish
                })
                .await,
        );
    });
}

#[test]
fn ten_thousand_shards_open_again() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            segment_bytes: 16 << 20,
            ..small()
        };
        let store = ShardStore::open(directory.path(), options.clone()).unwrap();
        create(&store, "s", 10_000).await;
        let entries = (0..10_000)
            .map(|index| entry(&format!("{index}"), format!("{index}")))
            .collect();
        let receipts = store.put_records(&name("s"), entries).await.unwrap();
        drop(store);
        let store = ShardStore::open(directory.path(), options).unwrap();
        assert_eq!(store.describe_stream(&name("s")).unwrap().shards.len(), 10_000);
        for index in (0..10_000).step_by(997) {
            let receipt = receipts[index].as_ref().unwrap();
            let shard = shard("s", receipt.shard.0);
            let from = store.resolve(&shard, ReadFrom::At(receipt.sequence)).unwrap();
            assert_eq!(
                texts(&store.read(&shard, from, ALL).unwrap().records)[0],
                index.to_string()
            );
        }
    });
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let _store = ShardStore::open(&data, small()).unwrap();
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    for file in std::fs::read_dir(&data).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            file.path()
        );
    }
}
