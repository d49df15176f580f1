//! Power cuts after every disk operation, with what was not synced lost, kept or torn; and disks that fail.

use std::collections::BTreeMap;

use tidemill_shards::env::{Crash, SimDisk};
use tidemill_shards::{ErrorKind, PublishRequest, ReadFrom, SequenceNumber, StageRequest, StoreError};

use crate::support::*;

/// What was acknowledged once this many operations were done.
struct Acknowledged {
    operations: usize,
    data: String,
    sequence: SequenceNumber,
}

#[test]
fn every_prefix_of_the_disk_operations_recovers_what_was_acknowledged() {
    block_on(async {
        let disk = SimDisk::new();
        let mut acknowledged = Vec::new();
        let (mut created, mut published) = (0, 0);
        for round in 0..2 {
            let store = open(&disk).unwrap();
            if round == 0 {
                create(&store, "s", 1).await;
                created = disk.operations();
            }
            for index in 0..30 {
                let data = format!("{round}-{index}-{}", "x".repeat(150 + index * 7));
                let receipt = put(&store, "s", "k", data.clone()).await;
                acknowledged.push(Acknowledged {
                    operations: disk.operations(),
                    data,
                    sequence: receipt.sequence,
                });
            }
            if round == 0 {
                let request = StageRequest {
                    job: "j".into(),
                    sink: "k".into(),
                    stream: name("s"),
                    lineage: LINEAGE,
                    checkpoint: 1,
                    attempt: 1,
                    worker: 0,
                    entries: vec![entry("k", "staged-a"), entry("k", "staged-b")],
                };
                let staged = store.stage(request).await.unwrap();
                let request = PublishRequest {
                    job: "j".into(),
                    sink: "k".into(),
                    lineage: LINEAGE,
                    checkpoint: 1,
                    generation: 1,
                    decided_by: DECIDER,
                    staged: vec![staged],
                };
                store.publish(request).await.unwrap();
                published = disk.operations();
            }
        }
        let all = disk.operations();
        assert!(
            disk.contents("0000000003.log").is_some(),
            "the history must roll segments"
        );
        for operations in 0..=all {
            for crash in [
                Crash::Dropped,
                Crash::Kept,
                Crash::Torn(operations as u64),
                Crash::Torn(!operations as u64),
            ] {
                let context = format!("{operations} of {all} operations, {crash:?}");
                let after = disk.after_crash(operations, crash);
                let store = open(&after).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(store.damage().is_empty(), "{context}: {:?}", store.damage());
                if store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).is_err() {
                    assert!(operations < created, "{context}");
                    continue;
                }
                let records = read_all(&store, &shard("s", 0)).unwrap_or_else(|error| panic!("{context}: {error}"));
                let found: BTreeMap<SequenceNumber, String> =
                    records.iter().map(|r| r.sequence).zip(texts(&records)).collect();
                assert_eq!(found.len(), records.len(), "{context}");
                for record in acknowledged.iter().filter(|record| record.operations <= operations) {
                    assert_eq!(found.get(&record.sequence), Some(&record.data), "{context}");
                }
                let staged = records
                    .iter()
                    .filter(|record| record.data.starts_with(b"staged"))
                    .count();
                assert!(
                    staged == 2 || (staged == 0 && operations < published),
                    "{context}: {staged}"
                );
                // New records go behind everything that was ever seen, and the store recovers again.
                let receipt = put(&store, "s", "k", "after").await;
                assert!(found.keys().all(|sequence| *sequence < receipt.sequence), "{context}");
                let before = read_all(&store, &shard("s", 0)).unwrap();
                drop(store);
                assert_eq!(
                    read_all(&open(&after).unwrap(), &shard("s", 0)).unwrap(),
                    before,
                    "{context}"
                );
            }
        }
    });
}

#[test]
fn a_failed_write_or_sync_poisons_the_log_until_it_is_opened_again() {
    block_on(async {
        for operations in 0..8 {
            let disk = SimDisk::new();
            let store = open(&disk).unwrap();
            create(&store, "s", 1).await;
            put(&store, "s", "k", "before").await;
            disk.fail_after(operations);
            let mut acknowledged = vec!["before".to_owned()];
            let failure = loop {
                let data = format!("record {}", acknowledged.len());
                match store.put_records(&name("s"), vec![entry("k", data.clone())]).await {
                    Ok(_) => acknowledged.push(data),
                    Err(error) => break error,
                }
            };
            assert!(matches!(failure, StoreError::Poisoned { .. }), "{failure}");
            assert_eq!(failure.kind(), ErrorKind::Internal);
            // The disk is well again; the log is not.
            let again = store
                .put_records(&name("s"), vec![entry("k", "again")])
                .await
                .unwrap_err();
            assert_eq!(again, failure);
            assert_eq!(store.failure(), Some(failure));
            assert_eq!(
                texts(&read_all(&store, &shard("s", 0)).unwrap()),
                acknowledged,
                "reading goes on"
            );
            drop(store);
            let store = open(&disk.copy()).unwrap();
            let found = texts(&read_all(&store, &shard("s", 0)).unwrap());
            assert_eq!(found[..acknowledged.len()], acknowledged);
            put(&store, "s", "k", "sound").await;
        }
    });
}

#[test]
fn a_full_disk_refuses_appends_and_recovers_by_itself() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1).await;
        disk.set_capacity(Some(20 << 10));
        let mut acknowledged = Vec::new();
        let error = loop {
            let data = format!("{:0500}", acknowledged.len());
            match store.put_records(&name("s"), vec![entry("k", data.clone())]).await {
                Ok(_) => acknowledged.push(data),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), acknowledged);
        disk.set_capacity(None);
        put(&store, "s", "k", "there is room again").await;
        drop(store);
        assert_eq!(
            read_all(&open(&disk).unwrap(), &shard("s", 0)).unwrap().len(),
            acknowledged.len() + 1
        );
    });
}
