//! Tiering: records move to objects and are read as before, whatever fails in between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidemill_shards::env::{Crash, Disk, ManualClock, SimDisk};
use tidemill_shards::{
    ErrorKind, ObjectTier, PublishRequest, ReadFrom, ReadLimits, RetentionOptions, ShardAccess, ShardStore,
    StageRequest, StoreError, StoreOptions, TierError,
};

use crate::support::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

#[derive(Debug, Clone)]
enum Change {
    Created(String, Bytes),
    Deleted(String),
}

#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<String, Bytes>,
    /// Changes, and how many operations the disk had done by then.
    journal: Vec<(usize, Change)>,
    /// Names of all objects that were ever created.
    ever: Vec<String>,
    /// Calls that still succeed.
    budget: Option<usize>,
    /// Objects are stored without their last byte.
    truncates: bool,
}

/// Whether it is the object that says whose place it is.
fn is_mark(name: &str) -> bool {
    name.ends_with("/store")
}

/// Objects in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryTier {
    contents: Arc<Mutex<Contents>>,
    disk: SimDisk,
}

impl MemoryTier {
    pub(crate) fn new(disk: &SimDisk) -> Self {
        Self {
            contents: Arc::default(),
            disk: disk.clone(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let contents = self.contents.lock().unwrap();
        let names = contents.objects.keys().filter(|name| !is_mark(name));
        names.cloned().collect()
    }

    pub(crate) fn fail_after(&self, calls: Option<usize>) {
        self.contents.lock().unwrap().budget = calls;
    }

    /// The objects as they were when the disk had done this many operations.
    fn after_crash(&self, operations: usize, disk: &SimDisk) -> Self {
        let after = Self::new(disk);
        let contents = self.contents.lock().unwrap();
        for (at, change) in contents.journal.iter().filter(|(at, _)| *at <= operations) {
            let _ = at;
            let mut after = after.contents.lock().unwrap();
            match change.clone() {
                Change::Created(name, bytes) => drop(after.objects.insert(name, bytes)),
                Change::Deleted(name) => drop(after.objects.remove(&name)),
            }
        }
        after
    }

    fn spend(&self) -> Result<std::sync::MutexGuard<'_, Contents>, TierError> {
        let mut contents = self.contents.lock().unwrap();
        match &mut contents.budget {
            Some(0) => return Err(TierError::Unavailable("injected fault".to_owned())),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(contents)
    }
}

impl ObjectTier for MemoryTier {
    fn create(&self, name: &str, bytes: Bytes) -> Result<(), TierError> {
        let mut contents = self.spend()?;
        assert!(
            is_mark(name) || !contents.ever.contains(&name.to_owned()),
            "a name is used once"
        );
        contents.ever.push(name.to_owned());
        let bytes = if contents.truncates {
            bytes.slice(..bytes.len() - 1)
        } else {
            bytes
        };
        let change = Change::Created(name.to_owned(), bytes.clone());
        contents.journal.push((self.disk.operations(), change));
        contents.objects.insert(name.to_owned(), bytes);
        Ok(())
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, TierError> {
        let contents = self.spend()?;
        let bytes = contents.objects.get(name).ok_or(TierError::NotFound)?;
        let end = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(end)..end))
    }

    fn delete(&self, name: &str) -> Result<(), TierError> {
        let mut contents = self.spend()?;
        contents
            .journal
            .push((self.disk.operations(), Change::Deleted(name.to_owned())));
        contents.objects.remove(name);
        Ok(())
    }

    fn describe(&self) -> String {
        "objects in memory".to_owned()
    }
}

pub(crate) fn tiered_options() -> StoreOptions {
    StoreOptions {
        retention: RetentionOptions {
            local_retention_ms: 0,
            ..RetentionOptions::default()
        },
        ..options()
    }
}

pub(crate) fn open_tiered(disk: &SimDisk, clock: &ManualClock, tier: &MemoryTier) -> Result<ShardStore, StoreError> {
    ShardStore::open_tiered(environment(disk, clock), tiered_options(), Some(Arc::new(tier.clone())))
}

struct World {
    disk: SimDisk,
    clock: ManualClock,
    tier: MemoryTier,
    store: ShardStore,
}

impl World {
    async fn new() -> Self {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let tier = MemoryTier::new(&disk);
        let store = open_tiered(&disk, &clock, &tier).unwrap();
        create(&store, "s", 1).await;
        create(&store, "other", 2).await;
        Self {
            disk,
            clock,
            tier,
            store,
        }
    }

    fn reopen(&mut self) {
        self.store = open_tiered(&self.disk, &self.clock, &self.tier).unwrap();
        assert!(self.store.damage().is_empty(), "{:?}", self.store.damage());
    }

    fn logs(&self) -> usize {
        self.disk
            .list()
            .unwrap()
            .iter()
            .filter(|name| name.ends_with(".log"))
            .count()
    }

    fn texts(&self, stream: &str, id: u32) -> Vec<String> {
        texts(&read_all(&self.store, &shard(stream, id)).unwrap())
    }
}

async fn fill(store: &ShardStore, stream: &str, prefix: &str, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    for index in 0..count {
        data.push(format!("{prefix} {index} {:0400}", 0));
        put(store, stream, &format!("key {}", index % 3), data[index].clone()).await;
    }
    data
}

/// Puts, and publishes output that was staged in an older segment.
async fn history(store: &ShardStore, clock: &ManualClock) -> Vec<String> {
    let mut data = fill(store, "s", "a", 20).await;
    let request = StageRequest {
        job: "job".into(),
        sink: "sink".into(),
        stream: name("s"),
        lineage: LINEAGE,
        checkpoint: 1,
        attempt: 0,
        worker: 0,
        entries: vec![entry("k", "staged 1"), entry("k", "staged 2")],
    };
    let staged = store.stage(request).await.unwrap();
    fill(store, "other", "o", 40).await;
    clock.advance(1_000);
    data.extend(fill(store, "s", "b", 20).await);
    let request = PublishRequest {
        job: "job".into(),
        sink: "sink".into(),
        lineage: LINEAGE,
        checkpoint: 1,
        generation: 1,
        decided_by: DECIDER,
        staged: vec![staged],
    };
    store.publish(request).await.unwrap();
    data.extend(["staged 1".to_owned(), "staged 2".to_owned()]);
    clock.advance(1_000);
    data.extend(fill(store, "s", "c", 40).await);
    data
}

#[test]
fn tiered_records_are_read_as_if_they_were_local() {
    block_on(async {
        let mut world = World::new().await;
        let data = history(&world.store, &world.clock).await;
        let others = [world.texts("other", 0), world.texts("other", 1)];
        let before = read_all(&world.store, &shard("s", 0)).unwrap();
        let logs = world.logs();
        let entries = world.store.usage().index_entries;
        world.store.tier().await.unwrap();
        assert!(
            world.store.usage().index_entries < entries,
            "one entry for each shard of an object"
        );
        assert!(logs > 6 && world.logs() <= 3, "{logs} {}", world.logs());
        let usage = world.store.usage();
        assert!(usage.tiered_objects > 6 && usage.tiered_bytes > 20_000, "{usage:?}");
        assert_eq!((usage.tier_garbage, usage.tier_failures), (0, 0));
        assert_eq!(usage.tiered_objects as usize, world.tier.names().len());
        for restart in [false, true] {
            if restart {
                world.reopen();
            }
            assert_eq!(world.texts("s", 0), data);
            assert_eq!(
                read_all(&world.store, &shard("s", 0)).unwrap(),
                before,
                "numbers, times and keys"
            );
            assert_eq!([world.texts("other", 0), world.texts("other", 1)], others);
            // All at once, one by one from every place, and by time.
            let from = world.store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap();
            let batch = ShardAccess::read(&world.store, &shard("s", 0), from, ALL)
                .await
                .unwrap();
            assert_eq!(batch.records, before);
            for (at, record) in before.iter().enumerate() {
                let from = world
                    .store
                    .resolve(&shard("s", 0), ReadFrom::At(record.sequence))
                    .unwrap();
                let one = ReadLimits {
                    records_max: 1,
                    bytes_max: 1,
                };
                assert_eq!(
                    world.store.read(&shard("s", 0), from, one).unwrap().records,
                    before[at..=at]
                );
            }
            for time in [NOW_MS, NOW_MS + 1, NOW_MS + 1_000, NOW_MS + 1_001, NOW_MS + 2_000] {
                let from = world
                    .store
                    .resolve(&shard("s", 0), ReadFrom::AtTimestamp(time))
                    .unwrap();
                let found = read_from(&world.store, &shard("s", 0), from).unwrap();
                let expected: Vec<_> = before
                    .iter()
                    .filter(|record| record.arrival_ms >= time)
                    .cloned()
                    .collect();
                assert_eq!(found, expected, "{time}");
            }
        }
        // Local indexes of tiered segments are only a copy.
        for name in world
            .disk
            .list()
            .unwrap()
            .into_iter()
            .filter(|name| name.ends_with(".tier"))
        {
            world.disk.remove(&name);
        }
        let error = ShardStore::open_in(environment(&world.disk, &world.clock), tiered_options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        world.reopen();
        assert_eq!(world.texts("s", 0), data);
        // A store that was not told where its objects are says so, and takes records.
        let untold = ShardStore::open_in(environment(&world.disk, &world.clock), tiered_options()).unwrap();
        let error = read_all(&untold, &shard("s", 0)).unwrap_err();
        assert!(matches!(error, StoreError::TierUnavailable { .. }), "{error}");
        put(&untold, "s", "k", "x").await;
    });
}

#[test]
fn objects_of_expired_and_deleted_records_are_deleted() {
    block_on(async {
        let mut world = World::new().await;
        history(&world.store, &world.clock).await;
        world.store.tier().await.unwrap();
        assert!(world.tier.names().len() > 6);
        world.store.delete_stream(&name("other")).await.unwrap();
        world.store.expire().await.unwrap();
        assert!(world.store.usage().tier_garbage > 0);
        let all = world.tier.names().len();
        // Whether this process or the next one deletes them.
        world.reopen();
        world.tier.fail_after(Some(1));
        assert!(world.store.tier().await.is_err());
        world.tier.fail_after(None);
        world.store.tier().await.unwrap();
        assert!(world.tier.names().len() < all);
        assert_eq!(world.store.usage().tier_garbage, 0);
        world.clock.advance(DAY + 1);
        let young = fill(&world.store, "s", "young", 30).await;
        world.store.expire().await.unwrap();
        world.store.tier().await.unwrap();
        world.store.expire().await.unwrap();
        world.store.tier().await.unwrap();
        assert_eq!(world.texts("s", 0), young);
        assert_eq!(world.tier.names().len() as u64, world.store.usage().tiered_objects);
        world.clock.advance(DAY + 1);
        world.store.expire().await.unwrap();
        world.store.tier().await.unwrap();
        assert!(world.tier.names().is_empty());
        world.reopen();
        assert!(world.texts("s", 0).is_empty());
        assert!(!world.disk.list().unwrap().iter().any(|name| name.ends_with(".tier")));
    });
}

#[test]
fn every_crash_while_segments_move_loses_nothing() {
    block_on(async {
        let world = World::new().await;
        let mut data = history(&world.store, &world.clock).await;
        let others = [world.texts("other", 0), world.texts("other", 1)];
        let begin = world.disk.operations();
        world.store.tier().await.unwrap();
        data.extend(fill(&world.store, "s", "d", 20).await);
        world.store.tier().await.unwrap();
        world.clock.advance(HOUR / 2);
        let all = world.disk.operations();
        assert!(all - begin > 40, "{begin} {all}");
        for operations in begin..=all {
            for crash in [Crash::Dropped, Crash::Kept, Crash::Torn(operations as u64)] {
                let context = format!("{operations} of {begin}..{all}, {crash:?}");
                let disk = world.disk.after_crash(operations, crash);
                let tier = world.tier.after_crash(operations, &disk);
                let store =
                    open_tiered(&disk, &world.clock, &tier).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(store.damage().is_empty(), "{context}: {:?}", store.damage());
                let check = |store: &ShardStore| {
                    let found = texts(&read_all(store, &shard("s", 0)).unwrap_or_else(|e| panic!("{context}: {e}")));
                    assert!(found.len() >= 82, "{context}: {}", found.len());
                    assert_eq!(found[..], data[..found.len()], "{context}");
                    for (id, other) in others.iter().enumerate() {
                        assert_eq!(
                            texts(&read_all(store, &shard("other", id as u32)).unwrap()),
                            *other,
                            "{context}"
                        );
                    }
                };
                check(&store);
                // It goes on where it was, and what the crash left over is deleted.
                store.tier().await.unwrap();
                store.tier().await.unwrap();
                check(&store);
                assert_eq!(tier.names().len() as u64, store.usage().tiered_objects, "{context}");
                drop(store);
                check(&open_tiered(&disk, &world.clock, &tier).unwrap());
            }
        }
    });
}

#[test]
fn an_object_store_that_fails_at_any_call_delays_and_loses_nothing() {
    block_on(async {
        for calls in 0..60 {
            let mut world = World::new().await;
            let data = history(&world.store, &world.clock).await;
            world.tier.fail_after(Some(calls));
            let outcome = world.store.tier().await;
            if let Err(error) = &outcome {
                assert!(matches!(error, StoreError::TierUnavailable { .. }), "{error}");
                assert_eq!(error.kind(), ErrorKind::Retry);
                assert_eq!(world.store.usage().tier_failures, 1);
            }
            // Down: puts and local reads go on; what is tiered is an error that may go away.
            put(&world.store, "s", "k", "more").await;
            let latest = world.store.resolve(&shard("s", 0), ReadFrom::Latest).unwrap();
            assert!(read_from(&world.store, &shard("s", 0), latest).unwrap().is_empty());
            world.tier.fail_after(Some(0));
            world.reopen_if(calls % 2 == 0);
            if world.store.usage().tiered_objects > 0 && calls % 2 == 0 {
                let error = read_all(&world.store, &shard("s", 0)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
            }
            world.tier.fail_after(None);
            world.store.tier().await.unwrap();
            world.store.tier().await.unwrap();
            let found = world.texts("s", 0);
            assert_eq!(found[..data.len()], data);
            assert_eq!(found.len(), data.len() + 1);
            assert_eq!(
                world.tier.names().len() as u64,
                world.store.usage().tiered_objects,
                "{calls}"
            );
            if outcome.is_ok() {
                assert!(calls > 11);
                return;
            }
        }
        panic!("no round went through");
    });
}

impl World {
    fn reopen_if(&mut self, really: bool) {
        if really {
            self.reopen();
        }
    }
}

#[test]
fn an_object_that_does_not_read_back_is_not_trusted() {
    block_on(async {
        let world = World::new().await;
        let data = history(&world.store, &world.clock).await;
        let logs = world.logs();
        world.tier.contents.lock().unwrap().truncates = true;
        let error = world.store.tier().await.unwrap_err();
        assert!(error.to_string().contains("read back"), "{error}");
        assert_eq!(world.logs(), logs, "the local copy stays");
        world.tier.contents.lock().unwrap().truncates = false;
        world.store.tier().await.unwrap();
        assert_eq!(world.texts("s", 0), data);
        assert!(world.logs() < logs);
    });
}

#[test]
fn an_object_deleted_from_outside_is_an_error_for_its_range_only() {
    block_on(async {
        let mut world = World::new().await;
        let data = history(&world.store, &world.clock).await;
        world.store.tier().await.unwrap();
        let before = read_all(&world.store, &shard("s", 0)).unwrap();
        world.reopen();
        let lost: Vec<String> = world.tier.names().into_iter().take(1).collect();
        for name in &lost {
            world.tier.contents.lock().unwrap().objects.remove(name);
        }
        let mut unreadable = 0;
        for (at, record) in before.iter().enumerate() {
            let from = world
                .store
                .resolve(&shard("s", 0), ReadFrom::At(record.sequence))
                .unwrap();
            match world.store.read(&shard("s", 0), from, ALL) {
                Ok(batch) => assert_eq!(batch.records[0], before[at]),
                Err(StoreError::Corrupt(corruption)) => {
                    assert_eq!(corruption.shards, [shard("s", 0).to_string()]);
                    assert!(lost.contains(&corruption.file), "{corruption}");
                    assert!(corruption.reason.contains("records"), "{corruption}");
                    unreadable += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let others = [
            read_all(&world.store, &shard("other", 0)),
            read_all(&world.store, &shard("other", 1)),
        ];
        let broken = others.iter().filter(|found| found.is_err()).count();
        assert!(unreadable > 0 || broken > 0);
        assert!(unreadable < data.len());
        put(&world.store, "s", "k", "goes on").await;
    });
}

#[test]
fn a_place_that_is_not_there_is_away_and_its_records_are_not_lost() {
    block_on(async {
        let mut world = World::new().await;
        let mut data = history(&world.store, &world.clock).await;
        world.store.tier().await.unwrap();
        world.store.delete_stream(&name("other")).await.unwrap();
        world.store.expire().await.unwrap();
        let garbage = world.store.usage().tier_garbage;
        assert!(garbage > 0);
        data.extend(fill(&world.store, "s", "later", 60).await);
        let objects = std::mem::take(&mut world.tier.contents.lock().unwrap().objects);
        world.reopen();
        let logs = world.logs();
        let error = read_all(&world.store, &shard("s", 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        assert!(error.to_string().contains("mounted"), "{error}");
        // Nothing is moved there, and nothing is taken for deleted.
        let error = world.store.tier().await.unwrap_err();
        assert!(
            matches!(&error, StoreError::TierUnavailable { object, .. } if is_mark(object)),
            "{error}"
        );
        assert_eq!((world.logs(), world.store.usage().tier_garbage), (logs, garbage));
        assert!(world.tier.contents.lock().unwrap().objects.is_empty());
        world.tier.contents.lock().unwrap().objects = objects;
        assert_eq!(world.texts("s", 0), data);
        world.store.tier().await.unwrap();
        assert!(world.logs() < logs);
        assert_eq!(world.store.usage().tier_garbage, 0);
        assert_eq!(world.texts("s", 0), data);
    });
}

#[test]
fn damaged_objects_are_noticed() {
    block_on(async {
        let mut world = World::new().await;
        history(&world.store, &world.clock).await;
        world.store.tier().await.unwrap();
        let before = read_all(&world.store, &shard("s", 0)).unwrap();
        let sound = world.tier.contents.lock().unwrap().objects.clone();
        for (name, bytes) in sound.iter().filter(|(name, _)| !is_mark(name)) {
            for at in (0..bytes.len()).step_by(211) {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 4;
                world
                    .tier
                    .contents
                    .lock()
                    .unwrap()
                    .objects
                    .insert(name.clone(), flipped.into());
                world.reopen();
                for record in before.iter().step_by(7) {
                    let from = world
                        .store
                        .resolve(&shard("s", 0), ReadFrom::At(record.sequence))
                        .unwrap();
                    match world.store.read(&shard("s", 0), from, ALL) {
                        Ok(batch) => assert!(before.windows(batch.records.len()).any(|part| part == batch.records)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
                    }
                }
            }
            world
                .tier
                .contents
                .lock()
                .unwrap()
                .objects
                .insert(name.clone(), bytes.clone());
        }
    });
}

#[test]
fn a_bounded_log_moves_its_oldest_segments_before_their_time() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let tier = MemoryTier::new(&disk);
        let mut options = tiered_options();
        // The metadata of the objects takes part of every segment.
        options.segment_bytes = 64 << 10;
        options.retention.local_retention_ms = DAY;
        options.retention.disk_bytes_max = Some(8 * options.segment_bytes);
        let environment = environment(&disk, &clock);
        let store = ShardStore::open_tiered(environment, options, Some(Arc::new(tier.clone()))).unwrap();
        create(&store, "s", 1).await;
        let mut data = Vec::new();
        for round in 0..40 {
            data.extend(fill(&store, "s", &format!("{round}"), 80).await);
            store.tier().await.unwrap();
            let usage = store.usage();
            assert!(usage.log_bytes <= usage.log_bytes_max, "{usage:?}");
        }
        assert!(store.usage().log_bytes > 4 * (64 << 10), "what need not go stays");
        assert!(store.usage().tiered_objects > 10);
        assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), data);
    });
}
