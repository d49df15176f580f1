//! Power cuts after every disk operation, with what was not synced lost, kept or torn; and disks that fail.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_shards::env::{Crash, Entropy, ManualClock, SeededEntropy, SimDisk};
use tidemill_shards::limits::ROOM_RETRY_MS;
use tidemill_shards::{
    ErrorKind, Housekeeping, PublishRequest, ReadFrom, SequenceNumber, ShardStore, StageRequest, StoreError,
    StoreOptions,
};

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
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
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
        clock.advance(ROOM_RETRY_MS);
        put(&store, "s", "k", "there is room again").await;
        drop(store);
        assert_eq!(
            read_all(&open(&disk).unwrap(), &shard("s", 0)).unwrap().len(),
            acknowledged.len() + 1
        );
    });
}

#[test]
fn a_full_disk_is_asked_for_room_once_a_second() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        create(&store, "s", 1).await;
        disk.set_capacity(Some(12 << 10));
        let refused = async |count: usize| {
            for _ in 0..count {
                let outcome = store.put_records(&name("s"), vec![entry("k", vec![b'x'; 9_000])]).await;
                assert!(matches!(outcome, Err(StoreError::NoSpace { .. })), "{outcome:?}");
            }
            disk.refused()
        };
        assert_eq!(refused(100).await, 1);
        // What fits into the segment in use is taken all the time.
        put(&store, "s", "k", "small").await;
        clock.advance(ROOM_RETRY_MS);
        assert_eq!(refused(100).await, 2);
        // A clock that is set back does not put the next attempt off.
        clock.set(NOW_MS - 3_600_000);
        assert_eq!(refused(100).await, 3);
        assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), ["small"]);
    });
}

#[test]
fn room_that_was_missing_ahead_of_time_is_looked_for_again() {
    block_on(async {
        let disk = SimDisk::new();
        disk.set_capacity(Some(12 << 10));
        let options = StoreOptions {
            housekeeping: Housekeeping::Background,
            ..options()
        };
        let store = ShardStore::open_in(environment(&disk, &ManualClock::new(NOW_MS)), options).unwrap();
        // The second segment is prepared as soon as the first is in use, and does not fit.
        while disk.refused() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        disk.set_capacity(None);
        create(&store, "s", 1).await;
        for index in 0..40 {
            put(&store, "s", "k", format!("{index:0500}")).await;
        }
        assert_eq!(read_all(&store, &shard("s", 0)).unwrap().len(), 40);
    });
}

/// A disk that fills up and gets room again at random, then loses power: what was acknowledged is there, once, in
/// order, and nothing that was refused.
#[test]
fn full_disks_lose_nothing_that_was_acknowledged() {
    block_on(async {
        let mut refused = 0;
        for seed in 0..40_u64 {
            let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
            let random = SeededEntropy::new(seed);
            let byte = || {
                let mut byte = [0];
                random.fill(&mut byte).unwrap();
                usize::from(byte[0])
            };
            let options = StoreOptions {
                housekeeping: if seed % 2 == 0 {
                    Housekeeping::Inline
                } else {
                    Housekeeping::Background
                },
                ..options()
            };
            let store = ShardStore::open_in(environment(&disk, &clock), options).unwrap();
            create(&store, "s", 1).await;
            let mut acknowledged = Vec::new();
            for index in 0..120 {
                match byte() % 8 {
                    0 => disk.set_capacity(Some(disk.bytes() + 64 * byte())),
                    1 => disk.set_capacity(None),
                    2 => clock.advance(ROOM_RETRY_MS),
                    _ => {}
                }
                let data = format!("{index} {}", "x".repeat(16 * byte()));
                match store.put_records(&name("s"), vec![entry("k", data.clone())]).await {
                    Ok(_) => acknowledged.push(data),
                    Err(StoreError::NoSpace { .. }) => refused += 1,
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            assert_eq!(
                texts(&read_all(&store, &shard("s", 0)).unwrap()),
                acknowledged,
                "{seed}"
            );
            let after = disk.after_crash(disk.operations(), Crash::Dropped);
            let store = open(&after).unwrap();
            assert_eq!(
                texts(&read_all(&store, &shard("s", 0)).unwrap()),
                acknowledged,
                "{seed}"
            );
        }
        assert!(refused > 100, "the disks were hardly ever full: {refused}");
    });
}
