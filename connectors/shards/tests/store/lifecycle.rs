//! States of streams, retention, forgotten shards.

use tidemill_shards::env::{ManualClock, SimDisk};
use tidemill_shards::{
    CreateStream, HashKey, ReadFrom, ShardId, ShardStore, StoreError, StoreOptions, StreamStatus, StreamUpdate,
};

use crate::support::*;

const HOUR_MS: u64 = 3_600_000;
const MIDDLE: u128 = 1 << 127;

fn slow(disk: &SimDisk, clock: &ManualClock) -> ShardStore {
    let options = StoreOptions {
        lifecycle_delay_ms: 1_000,
        ..options()
    };
    ShardStore::open_in(environment(disk, clock), options).unwrap()
}

fn busy(status: StreamStatus) -> StoreError {
    StoreError::StreamBusy {
        stream: name("s"),
        status,
    }
}

#[test]
fn states_are_told_for_a_while_and_go_on_over_a_restart() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let mut store = slow(&disk, &clock);
        let status = |store: &ShardStore| {
            let meta = store.describe_stream(&name("s")).unwrap();
            meta.status(store.now_ms())
        };
        create(&store, "s", 1).await;
        assert_eq!(status(&store), StreamStatus::Creating);
        let put_error = store.put_records(&name("s"), vec![entry("k", "x")]).await.unwrap_err();
        assert_eq!(put_error, busy(StreamStatus::Creating));
        assert_eq!(
            store.delete_stream(&name("s")).await.unwrap_err(),
            busy(StreamStatus::Creating)
        );
        clock.advance(999);
        drop(store);
        store = slow(&disk, &clock);
        assert_eq!(status(&store), StreamStatus::Creating);
        clock.advance(1);
        assert_eq!(status(&store), StreamStatus::Active);
        put(&store, "s", "k", "a").await;

        store
            .split_shard(&name("s"), ShardId(0), HashKey(MIDDLE))
            .await
            .unwrap();
        assert_eq!(status(&store), StreamStatus::Updating);
        let again = store
            .update_stream(&name("s"), StreamUpdate::IncreaseRetention(48))
            .await
            .unwrap_err();
        assert_eq!(again, busy(StreamStatus::Updating));
        // It is read and written as always.
        put(&store, "s", "k", "b").await;
        assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), ["a"]);
        clock.advance(1_000);
        drop(store);
        store = slow(&disk, &clock);
        assert_eq!(status(&store), StreamStatus::Active);

        store.delete_stream(&name("s")).await.unwrap();
        assert_eq!(status(&store), StreamStatus::Deleting);
        assert_eq!(
            store.delete_stream(&name("s")).await.unwrap_err(),
            busy(StreamStatus::Deleting)
        );
        let exists = store
            .create_stream(CreateStream::provisioned(name("s"), 1))
            .await
            .unwrap_err();
        assert_eq!(exists, StoreError::StreamExists(name("s")));
        drop(store);
        store = slow(&disk, &clock);
        assert_eq!(status(&store), StreamStatus::Deleting);
        clock.advance(1_000);
        let gone = StoreError::StreamNotFound(name("s"));
        assert_eq!(store.describe_stream(&name("s")).unwrap_err(), gone);
        assert_eq!(store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap_err(), gone);
        assert_eq!(store.delete_stream(&name("s")).await.unwrap_err(), gone);
        assert!(store.list_streams().is_empty());
        assert_eq!(store.open_shards(), 0);
        // The name is free, at once and after a restart.
        for _ in 0..2 {
            drop(store);
            store = slow(&disk, &clock);
            create(&store, "s", 1).await;
            clock.advance(1_000);
            assert!(read_all(&store, &shard("s", 0)).unwrap().is_empty());
            store.delete_stream(&name("s")).await.unwrap();
            clock.advance(1_000);
        }
        create(&store, "s", 1).await;
    });
}

#[test]
fn streams_whose_deletion_is_over_make_room_for_others() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let options = StoreOptions {
            lifecycle_delay_ms: 1_000,
            shards_max: 10,
            ..options()
        };
        let store = ShardStore::open_in(environment(&disk, &clock), options).unwrap();
        for round in 0..4 {
            for index in 0..10 {
                create(&store, &format!("s-{round}-{index}"), 1).await;
            }
            clock.advance(1_000);
            for index in 0..10 {
                store.delete_stream(&name(&format!("s-{round}-{index}"))).await.unwrap();
            }
            let full = store
                .create_stream(CreateStream::provisioned(name("more"), 1))
                .await
                .unwrap_err();
            assert!(matches!(full, StoreError::ShardLimit { current: 10, .. }), "{full:?}");
            clock.advance(1_000);
        }
    });
}

#[test]
fn records_older_than_the_retention_are_not_read_whatever_the_start() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        create(&store, "s", 1).await;
        let mut receipts = Vec::new();
        for hour in 0..30 {
            clock.advance(if hour == 0 { 0 } else { HOUR_MS });
            receipts.push(put(&store, "s", "k", format!("{hour}")).await);
        }
        let from = |from| {
            let at = store.resolve(&shard("s", 0), from).unwrap();
            texts(&read_from(&store, &shard("s", 0), at).unwrap())
        };
        let hours = |range: std::ops::Range<u64>| range.map(|hour| hour.to_string()).collect::<Vec<_>>();
        // Now is hour 29: what arrived in hour 5 or later is not older than a day.
        for start in [
            ReadFrom::TrimHorizon,
            ReadFrom::AtTimestamp(0),
            ReadFrom::AtTimestamp(NOW_MS + HOUR_MS),
            ReadFrom::At(receipts[2].sequence),
            ReadFrom::After(receipts[4].sequence),
        ] {
            assert_eq!(from(start), hours(5..30), "{start:?}");
        }
        assert_eq!(from(ReadFrom::AtTimestamp(NOW_MS + 7 * HOUR_MS)), hours(7..30));
        let horizon = store.trim_horizon(&shard("s", 0)).unwrap();
        assert!(horizon.counter <= receipts[5].sequence.counter);

        // Whoever goes on at a record is told when it has expired; whoever begins anywhere is not.
        let expired = |from| {
            let at = store.resolve(&shard("s", 0), from).unwrap();
            store.read(&shard("s", 0), at, ALL).unwrap().expired
        };
        assert!(expired(ReadFrom::At(receipts[2].sequence)));
        assert!(expired(ReadFrom::After(receipts[3].sequence)));
        for from in [
            ReadFrom::After(receipts[4].sequence),
            ReadFrom::At(receipts[5].sequence),
            ReadFrom::TrimHorizon,
            ReadFrom::AtTimestamp(0),
            ReadFrom::Latest,
        ] {
            assert!(!expired(from), "{from:?}");
        }

        // Both directions take effect at once.
        store
            .update_stream(&name("s"), StreamUpdate::IncreaseRetention(48))
            .await
            .unwrap();
        assert_eq!(from(ReadFrom::TrimHorizon), hours(0..30));
        store
            .update_stream(&name("s"), StreamUpdate::DecreaseRetention(24))
            .await
            .unwrap();
        assert_eq!(from(ReadFrom::TrimHorizon), hours(5..30));
        clock.advance(24 * HOUR_MS + 1);
        assert!(from(ReadFrom::TrimHorizon).is_empty());
        let latest = store.resolve(&shard("s", 0), ReadFrom::Latest).unwrap();
        assert_eq!(store.trim_horizon(&shard("s", 0)).unwrap(), latest);
        let oldest = store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap();
        let batch = store.read(&shard("s", 0), oldest, ALL).unwrap();
        assert_eq!((batch.next, batch.millis_behind_latest), (latest, 0));
        put(&store, "s", "k", "new").await;
        assert_eq!(from(ReadFrom::TrimHorizon), ["new"]);
    });
}

#[test]
fn closed_shards_are_listed_until_their_records_expire_and_then_forgotten() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        create(&store, "s", 1).await;
        put(&store, "s", "k", "old").await;
        clock.advance(HOUR_MS);
        store
            .split_shard(&name("s"), ShardId(0), HashKey(MIDDLE))
            .await
            .unwrap();
        let listed = |store: &ShardStore| -> Vec<u32> {
            let meta = store.describe_stream(&name("s")).unwrap();
            meta.shards.iter().map(|shard| shard.id.0).collect()
        };
        clock.advance(24 * HOUR_MS);
        assert_eq!(listed(&store), [0, 1, 2]);
        clock.advance(1);
        assert_eq!(listed(&store), [1, 2]);
        // Whoever still reads it is told of the end and the children.
        let at = store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap();
        assert!(store.read(&shard("s", 0), at, ALL).unwrap().at_end);

        store.expire().await.unwrap();
        assert!(store.read(&shard("s", 0), at, ALL).unwrap().at_end);
        // It is forgotten a day later.
        clock.advance(24 * HOUR_MS);
        store.expire().await.unwrap();
        let missing = store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap_err();
        assert!(matches!(missing, StoreError::ShardNotFound { .. }));
        drop(store);
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        assert!(store.damage().is_empty());
        assert_eq!(listed(&store), [1, 2]);
        // Ids are not given again.
        store.merge_shards(&name("s"), ShardId(1), ShardId(2)).await.unwrap();
        store.expire().await.unwrap();
        assert_eq!(listed(&store), [1, 2, 3]);
        // It can be told as well.
        clock.advance(1);
        let forget = StreamUpdate::ForgetClosedBefore(store.now_ms());
        store.update_stream(&name("s"), forget).await.unwrap();
        assert_eq!(listed(&store), [3]);
    });
}
