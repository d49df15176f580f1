//! Expiry: what is read, what is removed, and what a crash, a wrong clock or a full log makes of it.

use tidemill_shards::env::{Crash, Disk, ManualClock, SimDisk};
use tidemill_shards::{
    CreateStream, ErrorKind, PublishRequest, ReadFrom, RetentionOptions, SegmentReader, ShardStore, StageRequest,
    StagedRef, StoreError, StoreOptions, WhenFull,
};

use crate::support::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn open_at(disk: &SimDisk, clock: &ManualClock) -> ShardStore {
    ShardStore::open_in(environment(disk, clock), options()).unwrap()
}

/// The numbers of the segment files.
fn segments(disk: &SimDisk) -> Vec<u32> {
    let names = disk.list().unwrap();
    names
        .iter()
        .filter_map(|name| name.strip_suffix(".log")?.parse().ok())
        .collect()
}

async fn create_for(store: &ShardStore, stream: &str, hours: u32) {
    let request = CreateStream {
        retention_hours: hours,
        ..CreateStream::provisioned(name(stream), 1)
    };
    store.create_stream(request).await.unwrap();
}

/// Puts records of half a KiB: some fifteen fill a segment.
async fn fill(store: &ShardStore, stream: &str, prefix: &str, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    for index in 0..count {
        data.push(format!("{prefix} {index} {:0500}", 0));
        put(store, stream, "k", data[index].clone()).await;
    }
    data
}

fn read_texts(store: &ShardStore, stream: &str) -> Vec<String> {
    texts(&read_all(store, &shard(stream, 0)).unwrap())
}

async fn stage(store: &ShardStore, checkpoint: u64, data: &str) -> StagedRef {
    let request = StageRequest {
        job: "job".into(),
        sink: "sink".into(),
        stream: name("s"),
        lineage: LINEAGE,
        checkpoint,
        attempt: 0,
        worker: 0,
        entries: vec![entry("k", data)],
    };
    store.stage(request).await.unwrap()
}

async fn publish(store: &ShardStore, checkpoint: u64, staged: &StagedRef) -> Result<(), StoreError> {
    let request = PublishRequest {
        job: "job".into(),
        sink: "sink".into(),
        lineage: LINEAGE,
        checkpoint,
        generation: 1,
        decided_by: DECIDER,
        staged: vec![staged.clone()],
    };
    store.publish(request).await.map(|_| ())
}

#[test]
fn records_are_gone_when_their_retention_is_over_and_so_are_the_files() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        fill(&store, "s", "old", 60).await;
        let before = segments(&disk);
        assert!(before.len() > 4, "{before:?}");
        let first = store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap();

        clock.advance(HOUR);
        let young = fill(&store, "s", "young", 5).await;
        clock.advance(23 * HOUR);
        assert_eq!(read_texts(&store, "s").len(), 65, "exactly a day old is not gone");
        clock.advance(1);
        // Without any check: what has expired is not read, also when frames of both ages lie in one extent.
        assert_eq!(read_texts(&store, "s"), young);
        assert_eq!(texts(&read_from(&store, &shard("s", 0), first).unwrap()), young);
        let at = store.resolve(&shard("s", 0), ReadFrom::AtTimestamp(NOW_MS)).unwrap();
        assert_eq!(texts(&read_from(&store, &shard("s", 0), at).unwrap()), young);

        let before = segments(&disk);
        store.expire().await.unwrap();
        let after = segments(&disk);
        assert!(after.len() < before.len() && after[0] > 2, "{after:?}");
        assert!(disk.contents("0000000001.index").is_none());
        assert_eq!(read_texts(&store, "s"), young);
        let usage = store.usage();
        assert_eq!(usage.segments_removed as usize, before.len() - after.len());
        assert_eq!(usage.segments as usize, after.len());
        assert!((23 * HOUR + 1..=DAY).contains(&usage.oldest_record_age_ms), "{usage:?}");
        assert_eq!(
            usage.log_bytes,
            after
                .iter()
                .map(|n| disk.contents(&format!("{n:010}.log")).unwrap().len() as u64)
                .sum::<u64>()
        );

        drop(store);
        let store = open_at(&disk, &clock);
        assert!(store.damage().is_empty(), "{:?}", store.damage());
        assert_eq!(read_texts(&store, "s"), young);
        let next = put(&store, "s", "k", "next").await;
        assert_eq!(next.sequence.counter, 66, "numbers go on");
        clock.advance(25 * HOUR);
        assert!(read_texts(&store, "s").is_empty());
        store.expire().await.unwrap();
        drop(store);
        let store = open_at(&disk, &clock);
        assert!(read_texts(&store, "s").is_empty());
        assert_eq!(put(&store, "s", "k", "last").await.sequence.counter, 67);
        assert_eq!(read_texts(&store, "s"), ["last"]);
    });
}

#[test]
fn a_longer_retention_keeps_its_segments_between_removed_ones() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "short", 24).await;
        create_for(&store, "long", 48).await;
        fill(&store, "short", "a", 40).await;
        let kept = fill(&store, "long", "b", 3).await;
        fill(&store, "short", "c", 40).await;
        clock.advance(DAY + 1);
        store.expire().await.unwrap();
        let left = segments(&disk);
        assert!(
            left[0] > 1 && left.windows(2).any(|pair| pair[1] > pair[0] + 1),
            "{left:?}"
        );
        assert_eq!(read_texts(&store, "long"), kept);
        drop(store);
        let store = open_at(&disk, &clock);
        assert!(store.damage().is_empty());
        assert_eq!(read_texts(&store, "long"), kept);
        assert!(read_texts(&store, "short").is_empty());
        // The same with indexes that must be rebuilt from the log.
        drop(store);
        for number in segments(&disk) {
            disk.remove(&format!("{number:010}.index"));
        }
        let store = open_at(&disk, &clock);
        assert!(store.damage().is_empty());
        assert_eq!(read_texts(&store, "long"), kept);
        assert!(read_texts(&store, "short").is_empty());
    });
}

#[test]
fn a_segment_that_is_missing_although_nobody_removed_it_is_damage() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        fill(&store, "s", "old", 40).await;
        clock.advance(DAY + 1);
        fill(&store, "s", "young", 60).await;
        store.expire().await.unwrap();
        drop(store);
        let left = segments(&disk);
        assert!(left[0] > 1);
        let lost = left[1];
        let (log, index) = (format!("{lost:010}.log"), format!("{lost:010}.index"));
        let bytes = disk.contents(&log).unwrap();
        disk.remove(&log);
        let store = open_at(&disk, &clock);
        let error = read_all(&store, &shard("s", 0)).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        drop(store);
        // Without its index it is not known what was in there, but that something was.
        disk.remove(&index);
        let store = open_at(&disk, &clock);
        let error = read_all(&store, &shard("s", 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&log), "{error}");
        drop(store);
        disk.overwrite(&log, bytes);
        let store = open_at(&disk, &clock);
        assert_eq!(read_all(&store, &shard("s", 0)).unwrap().len(), 60);
    });
}

#[test]
fn deleted_streams_give_their_space_back() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        create_for(&store, "kept", 24).await;
        fill(&store, "s", "a", 60).await;
        store.delete_stream(&name("s")).await.unwrap();
        let kept = fill(&store, "kept", "b", 20).await;
        store.expire().await.unwrap();
        let left = segments(&disk);
        assert!(left[0] > 2, "{left:?}");
        drop(store);
        let store = open_at(&disk, &clock);
        assert_eq!(read_texts(&store, "kept"), kept);
        // A deletion and what is created under the name afterwards, in one batch or not, are told apart.
        create_for(&store, "s", 24).await;
        assert!(read_texts(&store, "s").is_empty());
    });
}

#[test]
fn every_crash_while_records_expire_keeps_the_live_ones() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        create_for(&store, "long", 72).await;
        fill(&store, "s", "old", 35).await;
        let mut long = fill(&store, "long", "long", 2).await;
        fill(&store, "s", "old", 15).await;
        let staged = stage(&store, 1, "staged").await;
        fill(&store, "s", "old", 15).await;
        clock.advance(DAY + 1);
        let begin = disk.operations();
        let mut young = fill(&store, "s", "young", 3).await;
        publish(&store, 1, &staged).await.unwrap();
        young.push("staged".to_owned());
        let from = disk.operations();
        store.expire().await.unwrap();
        let expired = disk.operations();
        young.extend(fill(&store, "s", "younger", 40).await);
        long.extend(fill(&store, "long", "longer", 2).await);
        store.expire().await.unwrap();
        let all = disk.operations();
        let left = segments(&disk);
        assert!(
            left[0] > 1 && left.windows(2).any(|pair| pair[1] > pair[0] + 1),
            "{left:?}"
        );
        for operations in begin..=all {
            for crash in [
                Crash::Dropped,
                Crash::Kept,
                Crash::Torn(operations as u64),
                Crash::Torn(!operations as u64),
            ] {
                let context = format!("{operations} of {begin}..{from}..{expired}..{all}, {crash:?}");
                let after = disk.after_crash(operations, crash);
                let store = ShardStore::open_in(environment(&after, &clock), options())
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(store.damage().is_empty(), "{context}: {:?}", store.damage());
                // The pause is longer than an hour: the clock is not believed yet, and some old records may be seen.
                let found: Vec<String> = read_texts(&store, "s")
                    .into_iter()
                    .filter(|text| !text.starts_with("old"))
                    .collect();
                assert_eq!(found[..], young[..found.len()], "{context}");
                assert!(operations < from || found.len() >= 4, "{context}");
                assert_eq!(
                    read_texts(&store, "long")[..],
                    long[..read_texts(&store, "long").len()],
                    "{context}"
                );
                if operations == all {
                    assert_eq!(found, young, "{context}");
                    assert_eq!(read_texts(&store, "long"), long, "{context}");
                }
                // It goes on: expiring again, writing and opening again.
                store.expire().await.unwrap();
                put(&store, "s", "k", "after").await;
                let before = read_texts(&store, "s");
                drop(store);
                let store = ShardStore::open_in(environment(&after, &clock), options()).unwrap();
                assert!(store.damage().is_empty(), "{context}: {:?}", store.damage());
                assert_eq!(read_texts(&store, "s"), before, "{context}");
                // Files that the log says are gone are gone.
                if operations >= expired {
                    let there = segments(&after);
                    assert!(!there.contains(&1), "{context}: {there:?}");
                }
            }
        }
    });
}

#[test]
fn files_left_by_a_crash_before_the_unlink_are_removed_at_the_next_start() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        fill(&store, "s", "old", 40).await;
        clock.advance(DAY + 1);
        let file = disk.contents("0000000001.log").unwrap();
        let index = disk.contents("0000000001.index").unwrap();
        store.expire().await.unwrap();
        drop(store);
        assert!(disk.contents("0000000001.log").is_none());
        disk.overwrite("0000000001.log", file);
        disk.overwrite("0000000001.index", index);
        disk.overwrite("foreign.file", vec![1]);
        let store = open_at(&disk, &clock);
        assert!(disk.contents("0000000001.log").is_none());
        assert!(disk.contents("0000000001.index").is_none());
        assert!(
            disk.contents("foreign.file").is_some(),
            "only what the log names is removed"
        );
        assert!(read_texts(&store, "s").is_empty());
    });
}

#[test]
fn staged_output_keeps_its_segment_until_it_is_published_or_given_up() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        let staged = stage(&store, 1, "staged").await;
        fill(&store, "s", "a", 60).await;
        clock.advance(3 * DAY);
        store.expire().await.unwrap();
        assert_eq!(segments(&disk)[0], 1, "a job may still publish it");
        assert!(!segments(&disk).contains(&2));
        assert_eq!(store.usage().segments_staged, 1);
        drop(store);
        // Also after a restart, whether the index of the segment is there or not.
        for index in [true, false] {
            let copy = disk.copy();
            if !index {
                copy.remove("0000000001.index");
            }
            let store = open_at(&copy, &clock);
            clock.advance(2 * HOUR);
            store.expire().await.unwrap();
            assert_eq!(segments(&copy)[0], 1);
            publish(&store, 1, &staged).await.unwrap();
            assert_eq!(read_texts(&store, "s"), ["staged"]);
            fill(&store, "s", "b", 60).await;
            store.expire().await.unwrap();
            assert_eq!(segments(&copy)[0], 1, "published records lie in it");
            drop(store);
            let store = open_at(&copy, &clock);
            assert_eq!(read_texts(&store, "s")[0], "staged");
            clock.advance(DAY + 1);
            store.expire().await.unwrap();
            clock.advance(HOUR);
            fill(&store, "s", "c", 40).await;
            store.expire().await.unwrap();
            assert!(segments(&copy)[0] > 2, "published and expired: {:?}", segments(&copy));
        }
        // A newer checkpoint of the sink makes it useless.
        let copy = disk.copy();
        let store = open_at(&copy, &clock);
        let newer = stage(&store, 2, "newer").await;
        publish(&store, 2, &newer).await.unwrap();
        store.expire().await.unwrap();
        assert!(!segments(&copy).contains(&1));
        drop(store);
        // Nobody came: it is given up, and publishing it then is refused, not done by half.
        let store = open_at(&disk, &clock);
        clock.advance(HOUR);
        store.expire().await.unwrap();
        clock.advance(7 * DAY);
        store.expire().await.unwrap();
        assert!(!segments(&disk).contains(&1));
        let error = publish(&store, 1, &staged).await.unwrap_err();
        assert!(matches!(error, StoreError::StagedMismatch { .. }), "{error}");
        assert!(read_texts(&store, "s").is_empty());
    });
}

#[test]
fn what_says_that_records_were_published_is_kept_as_long_as_they() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        create_for(&store, "other", 24).await;
        let staged = stage(&store, 1, "staged").await;
        fill(&store, "other", "a", 40).await;
        clock.advance(HOUR);
        publish(&store, 1, &staged).await.unwrap();
        clock.set(NOW_MS);
        fill(&store, "other", "b", 40).await;
        // All other records have expired, the published one has not.
        clock.set(NOW_MS + HOUR);
        clock.advance(23 * HOUR + 1);
        fill(&store, "other", "c", 1).await;
        store.expire().await.unwrap();
        drop(store);
        for index in [true, false] {
            let copy = disk.copy();
            for number in segments(&copy).into_iter().filter(|_| !index) {
                copy.remove(&format!("{number:010}.index"));
            }
            let store = open_at(&copy, &clock);
            assert_eq!(read_texts(&store, "s"), ["staged"]);
        }
    });
}

#[test]
fn a_clock_that_jumps_ahead_expires_nothing_until_it_has_stayed_there() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        let data = fill(&store, "s", "a", 40).await;
        let before = segments(&disk);
        // Ten years ahead for half an hour, then right again.
        clock.set(NOW_MS + 3_650 * DAY);
        assert_eq!(read_texts(&store, "s"), data);
        store.expire().await.unwrap();
        assert!(store.usage().clock_in_doubt);
        clock.advance(HOUR / 2);
        store.expire().await.unwrap();
        assert_eq!(read_texts(&store, "s"), data);
        // Also for a store that starts with the wrong clock.
        drop(store);
        let store = open_at(&disk, &clock);
        store.expire().await.unwrap();
        assert_eq!(read_texts(&store, "s"), data);
        assert_eq!(segments(&disk), before);
        clock.set(NOW_MS + HOUR / 2);
        store.expire().await.unwrap();
        assert!(!store.usage().clock_in_doubt);
        assert_eq!(read_texts(&store, "s"), data);
        // A day ahead, and it stays there: then it is the time.
        clock.set(NOW_MS + 2 * DAY);
        store.expire().await.unwrap();
        assert_eq!(read_texts(&store, "s"), data);
        clock.advance(HOUR);
        store.expire().await.unwrap();
        assert!(read_texts(&store, "s").is_empty());
        assert!(segments(&disk).len() < before.len());
        // Back: nothing happens, and new records are kept.
        clock.set(NOW_MS);
        put(&store, "s", "k", "new").await;
        store.expire().await.unwrap();
        assert_eq!(read_texts(&store, "s"), ["new"]);
    });
}

#[test]
fn time_is_written_down_so_that_a_restart_of_an_idle_store_trusts_its_clock() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        put(&store, "s", "k", "a").await;
        for _ in 0..30 {
            clock.advance(HOUR);
            store.expire().await.unwrap();
        }
        drop(store);
        let store = open_at(&disk, &clock);
        assert!(read_texts(&store, "s").is_empty());
        assert!(!store.usage().clock_in_doubt);
    });
}

fn bounded(when_full: WhenFull) -> StoreOptions {
    let all = options();
    StoreOptions {
        retention: RetentionOptions {
            disk_bytes_max: Some(6 * all.segment_bytes),
            when_full,
            ..RetentionOptions::default()
        },
        ..all
    }
}

#[test]
fn a_full_log_refuses_records_until_something_expires_or_is_deleted() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let options = bounded(WhenFull::Refuse);
        let store = ShardStore::open_in(environment(&disk, &clock), options.clone()).unwrap();
        create_for(&store, "s", 24).await;
        create_for(&store, "other", 24).await;
        let mut acknowledged = Vec::new();
        let error = loop {
            let data = format!("{:0500}", acknowledged.len());
            match store.put_records(&name("s"), vec![entry("k", data.clone())]).await {
                Ok(_) => acknowledged.push(data),
                Err(error) => break error,
            }
            assert!(acknowledged.len() < 1_000);
        };
        assert!(matches!(error, StoreError::StoreFull { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert!(store.usage().log_bytes <= store.usage().log_bytes_max);
        assert_eq!(read_texts(&store, "s"), acknowledged, "reading goes on");
        assert!(store.failure().is_none());
        drop(store);
        let store = ShardStore::open_in(environment(&disk, &clock), options).unwrap();
        assert_eq!(read_texts(&store, "s"), acknowledged);
        assert!(
            store
                .put_records(&name("s"), vec![entry("k", vec![1; 9_000])])
                .await
                .is_err()
        );
        // Time makes room.
        clock.advance(DAY + 1);
        store.expire().await.unwrap();
        clock.advance(HOUR);
        let again = fill(&store, "s", "again", 30).await;
        assert_eq!(read_texts(&store, "s"), again);
        // A deletion makes room, also when there is none left for its own frame.
        while store
            .put_records(&name("s"), vec![entry("k", vec![b'x'; 500])])
            .await
            .is_ok()
        {}
        while store.put_records(&name("other"), vec![entry("k", "x")]).await.is_ok() {}
        store.delete_stream(&name("s")).await.unwrap();
        clock.advance(1_000);
        fill(&store, "other", "there is room", 20).await;
        assert!(store.usage().log_bytes <= store.usage().log_bytes_max);
    });
}

#[test]
fn a_full_log_drops_the_oldest_records_only_when_told_so() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let options = bounded(WhenFull::DropOldest);
        let store = ShardStore::open_in(environment(&disk, &clock), options.clone()).unwrap();
        create_for(&store, "s", 24).await;
        let data = fill(&store, "s", "a", 300).await;
        let usage = store.usage();
        assert!(usage.log_bytes <= usage.log_bytes_max, "{usage:?}");
        let left = read_texts(&store, "s");
        assert!(left.len() > 20 && left.len() < 100, "{}", left.len());
        assert_eq!(left[..], data[data.len() - left.len()..]);
        assert_eq!(usage.records_dropped as usize, data.len() - left.len());
        drop(store);
        let store = ShardStore::open_in(environment(&disk, &clock), options).unwrap();
        assert!(store.damage().is_empty());
        assert_eq!(read_texts(&store, "s"), left);
    });
}

#[test]
fn a_bound_without_room_for_the_log_itself_is_refused() {
    let mut options = bounded(WhenFull::Refuse);
    options.retention.disk_bytes_max = Some(3 * options.segment_bytes);
    let error = ShardStore::open_in(environment(&SimDisk::new(), &ManualClock::new(NOW_MS)), options).unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
}

#[test]
fn a_reader_whose_segment_is_removed_in_between_looks_again() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = open_at(&disk, &clock);
        create_for(&store, "s", 24).await;
        fill(&store, "s", "old", 40).await;
        let from = store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap();
        let reader = SegmentReader::on(std::sync::Arc::new(disk.clone()));
        let located = store.locate(&shard("s", 0), from, ALL).unwrap();
        clock.advance(DAY + 1);
        let young = fill(&store, "s", "young", 2).await;
        store.expire().await.unwrap();
        // What was located is gone for a reader that has not opened it; asking again tells what is there.
        assert!(reader.read(&located, ALL).is_err());
        let located = store.locate(&shard("s", 0), from, ALL).unwrap();
        assert_eq!(texts(&reader.read(&located, ALL).unwrap().records), young);

        // Readers, writers and expiry at the same time: never an error.
        let writer = store.clone();
        let ticking = clock.clone();
        let writing = tokio::spawn(async move {
            for _ in 0..30 {
                fill(&writer, "s", "x", 20).await;
                ticking.advance(12 * HOUR);
                writer.expire().await.unwrap();
            }
        });
        while !writing.is_finished() {
            let store = store.clone();
            tokio::task::spawn_blocking(move || store.read(&shard("s", 0), from, ALL).unwrap())
                .await
                .unwrap();
        }
        writing.await.unwrap();
    });
}
