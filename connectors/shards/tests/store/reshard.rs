//! Split, merge and scale: lineage, the order of each key, and what was on its way meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tidemill_shards::env::{Crash, ManualClock, SimDisk};
use tidemill_shards::{
    HashKey, Position, PublishOutcome, PublishRequest, PutEntry, ReadFrom, ReadLimits, ShardId, ShardMeta, ShardRef,
    ShardStore, StageRequest, StagedRef, StoreError, StreamMeta, StreamUpdate,
};

use crate::model::settle;
use crate::support::*;

const MIDDLE: u128 = 1 << 127;

/// The open shards in the order of their hash keys, which must tile the space.
fn open_shards(meta: &StreamMeta) -> Vec<ShardMeta> {
    let mut open: Vec<ShardMeta> = meta.open_shards().cloned().collect();
    open.sort_by_key(|shard| shard.hash_range.start);
    assert_eq!(open[0].hash_range.start.0, 0);
    assert_eq!(open.last().unwrap().hash_range.end.0, u128::MAX);
    for pair in open.windows(2) {
        assert_eq!(pair[0].hash_range.end.0 + 1, pair[1].hash_range.start.0);
    }
    open
}

fn numbered(key: &str, number: u64) -> PutEntry {
    entry(key, number.to_le_bytes().to_vec())
}

fn number_of(data: &[u8]) -> u64 {
    u64::from_le_bytes(data[..8].try_into().unwrap())
}

/// The numbers of each key, parents before children: ids rise from parents to children.
fn by_key(store: &ShardStore, stream: &str) -> BTreeMap<String, Vec<u64>> {
    let mut keys: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for shard in store.describe_stream(&name(stream)).unwrap().shards {
        for record in read_all(store, &ShardRef::new(name(stream), shard.id)).unwrap() {
            keys.entry(record.partition_key().to_owned())
                .or_default()
                .push(number_of(&record.data));
        }
    }
    keys
}

#[test]
fn children_go_on_where_the_parent_ended_also_after_a_restart() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1).await;
        for number in 0..20u64 {
            put(&store, "s", &format!("{}", number % 5), number.to_le_bytes()).await;
        }
        store
            .split_shard(&name("s"), ShardId(0), HashKey(MIDDLE))
            .await
            .unwrap();
        for number in 20..40u64 {
            put(&store, "s", &format!("{}", number % 5), number.to_le_bytes()).await;
        }
        store.merge_shards(&name("s"), ShardId(2), ShardId(1)).await.unwrap();
        for number in 40..60u64 {
            put(&store, "s", &format!("{}", number % 5), number.to_le_bytes()).await;
        }
        let mut stores = vec![store];
        for restarted in [false, true] {
            if restarted {
                stores.clear();
                stores.push(open(&disk).unwrap());
            }
            let store = &stores[0];
            let meta = store.describe_stream(&name("s")).unwrap();
            let lineage: Vec<_> = meta
                .shards
                .iter()
                .map(|shard| {
                    (
                        shard.is_open(),
                        shard.parent.map(|id| id.0),
                        shard.adjacent_parent.map(|id| id.0),
                    )
                })
                .collect();
            assert_eq!(
                lineage,
                [
                    (false, None, None),
                    (false, Some(0), None),
                    (false, Some(0), None),
                    (true, Some(2), Some(1))
                ]
            );
            open_shards(&meta);
            for (key, numbers) in by_key(store, "s") {
                assert!(numbers.is_sorted(), "{key}: {numbers:?}");
                assert_eq!(numbers.len(), 12, "{key}");
            }
            // Numbers rise from parents to children, and every closed shard tells its end.
            for shard in &meta.shards[..3] {
                let at = ShardRef::new(name("s"), shard.id);
                let end = store.resolve(&at, ReadFrom::Latest).unwrap();
                let batch = store.read(&at, end, ALL).unwrap();
                assert!(batch.at_end && batch.records.is_empty());
                let ending = shard.ending_sequence().unwrap();
                assert_eq!(ending.counter, 0x7fff_ffff_ffff_ffff);
                let after = store.resolve(&at, ReadFrom::At(ending)).unwrap();
                assert!(store.read(&at, after, ALL).unwrap().at_end);
                for child in meta.shards.iter().filter(|child| child.parent == Some(shard.id)) {
                    assert!(ending < child.starting_sequence());
                }
            }
            let open = shard("s", 3);
            let end = store.resolve(&open, ReadFrom::Latest).unwrap();
            assert!(!store.read(&open, end, ALL).unwrap().at_end);
        }
    });
}

#[test]
fn refused_changes_change_nothing() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let before = store.describe_stream(&name("s")).unwrap();
        let update = |update| {
            let store = store.clone();
            async move { store.update_stream(&name("s"), update).await.unwrap_err() }
        };
        let split = |shard, at| StreamUpdate::Split {
            shard: ShardId(shard),
            at: HashKey(at),
        };
        assert!(matches!(update(split(0, 1)).await, StoreError::SplitPoint { .. }));
        assert!(matches!(
            update(split(0, MIDDLE - 1)).await,
            StoreError::SplitPoint { .. }
        ));
        assert!(matches!(update(split(7, 9)).await, StoreError::ShardNotFound { .. }));
        let merge = StreamUpdate::Merge {
            shard: ShardId(1),
            adjacent: ShardId(1),
        };
        assert!(matches!(update(merge).await, StoreError::NotAdjacent { .. }));
        assert!(matches!(
            update(StreamUpdate::ShardCount(5)).await,
            StoreError::Invalid(_)
        ));
        let missing = store.split_shard(&name("t"), ShardId(0), HashKey(9)).await.unwrap_err();
        assert_eq!(missing, StoreError::StreamNotFound(name("t")));
        drop(store);
        assert_eq!(open(&disk).unwrap().describe_stream(&name("s")).unwrap(), before);
    });
}

#[test]
fn a_change_of_thousands_of_shards_is_one_frame() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1_500).await;
        let updated = store
            .update_stream(&name("s"), StreamUpdate::ShardCount(2_999))
            .await
            .unwrap();
        assert_eq!((updated.open_shards_before, updated.open_shards_after), (1_500, 2_999));
        let updated = store
            .update_stream(&name("s"), StreamUpdate::ShardCount(1_501))
            .await
            .unwrap();
        assert_eq!((updated.open_shards_before, updated.open_shards_after), (2_999, 1_501));
        put(&store, "s", "k", "x").await;
        drop(store);
        let store = open(&disk).unwrap();
        let meta = store.describe_stream(&name("s")).unwrap();
        assert_eq!(open_shards(&meta).len(), 1_501);
    });
}

fn stage_request(checkpoint: u64, worker: u32, entries: Vec<PutEntry>) -> StageRequest {
    StageRequest {
        job: "job".into(),
        sink: "sink".into(),
        stream: name("s"),
        lineage: LINEAGE,
        checkpoint,
        attempt: 1,
        worker,
        entries,
    }
}

fn publish_request(checkpoint: u64, staged: Vec<StagedRef>) -> PublishRequest {
    PublishRequest {
        job: "job".into(),
        sink: "sink".into(),
        lineage: LINEAGE,
        checkpoint,
        generation: 1,
        decided_by: DECIDER,
        staged,
    }
}

#[test]
fn staged_output_of_closed_shards_is_published_to_their_children_once() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let key = |number: u64| format!("{}", number % 7);
        let entries = |numbers: std::ops::Range<u64>| numbers.map(|number| numbered(&key(number), number)).collect();
        let mut staged = vec![store.stage(stage_request(1, 0, entries(0..100))).await.unwrap()];
        // What is staged and what becomes of the shards alternates; the log goes on in new segments.
        store
            .split_shard(&name("s"), ShardId(0), HashKey(MIDDLE / 2))
            .await
            .unwrap();
        staged.push(store.stage(stage_request(1, 0, entries(100..200))).await.unwrap());
        store
            .update_stream(&name("s"), StreamUpdate::ShardCount(2))
            .await
            .unwrap();
        drop(store);
        let store = open(&disk).unwrap();
        staged.push(store.stage(stage_request(1, 0, entries(200..300))).await.unwrap());
        store
            .update_stream(&name("s"), StreamUpdate::ShardCount(4))
            .await
            .unwrap();
        assert!(by_key(&store, "s").is_empty());

        let outcome = store.publish(publish_request(1, staged.clone())).await.unwrap();
        assert_eq!(outcome, PublishOutcome::Published { records: 300 });
        let mut stores = vec![store];
        for restarted in [false, true] {
            if restarted {
                stores.clear();
                stores.push(open(&disk).unwrap());
            }
            let store = &stores[0];
            let replay = store.publish(publish_request(1, staged.clone())).await.unwrap();
            assert_eq!(replay, PublishOutcome::Replayed);
            let keys = by_key(store, "s");
            for number in 0..7 {
                let expected: Vec<u64> = (0..300).filter(|n| n % 7 == number).collect();
                assert_eq!(keys[&key(number)], expected);
            }
            // Records lie in shards that were open at the publish, and that take their keys.
            for shard in store.describe_stream(&name("s")).unwrap().shards {
                for record in read_all(store, &ShardRef::new(name("s"), shard.id)).unwrap() {
                    assert!(shard.is_open());
                    assert!(shard.hash_range.contains(HashKey::of(record.partition_key())));
                }
            }
        }
        let store = &stores[0];
        put(store, "s", "0", 300u64.to_le_bytes()).await;
        assert_eq!(by_key(store, "s")["0"].last(), Some(&300));
    });
}

#[test]
fn a_crash_between_the_second_staging_and_the_publish_loses_and_doubles_nothing() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1).await;
        let entries = (0..60)
            .map(|number| numbered(&format!("{}", number % 3), number))
            .collect();
        let staged = vec![store.stage(stage_request(1, 0, entries)).await.unwrap()];
        store
            .split_shard(&name("s"), ShardId(0), HashKey(MIDDLE))
            .await
            .unwrap();
        let before = disk.operations();
        store.publish(publish_request(1, staged.clone())).await.unwrap();
        drop(store);
        let mut outcomes = BTreeSet::new();
        for operations in before..=disk.operations() {
            for crash in [Crash::Dropped, Crash::Kept, Crash::Torn(operations as u64)] {
                let store = open(&disk.after_crash(operations, crash)).unwrap();
                let published: usize = by_key(&store, "s").values().map(Vec::len).sum();
                assert!(published == 0 || published == 60, "{operations} {crash:?}: {published}");
                let outcome = store.publish(publish_request(1, staged.clone())).await.unwrap();
                assert_eq!(outcome == PublishOutcome::Replayed, published == 60);
                outcomes.insert(published);
                for (key, numbers) in by_key(&store, "s") {
                    assert!(numbers.is_sorted() && numbers.len() == 20, "{key}: {numbers:?}");
                }
            }
        }
        assert_eq!(outcomes.len(), 2);
    });
}

#[test]
fn every_prefix_of_the_disk_operations_has_all_of_a_reshard_or_nothing() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let created = disk.operations();
        let mut states = vec![store.describe_stream(&name("s")).unwrap().shards];
        let mut acknowledged = vec![(created, 0)];
        for (round, update) in [
            StreamUpdate::Split {
                shard: ShardId(1),
                at: HashKey(MIDDLE + MIDDLE / 2),
            },
            StreamUpdate::Merge {
                shard: ShardId(0),
                adjacent: ShardId(2),
            },
            StreamUpdate::ShardCount(3),
            StreamUpdate::ShardCount(5),
        ]
        .into_iter()
        .enumerate()
        {
            // Enough for a new segment in some rounds.
            for number in 0..8u8 {
                put(&store, "s", &format!("{number}"), vec![number; 300]).await;
            }
            store.update_stream(&name("s"), update).await.unwrap();
            states.push(store.describe_stream(&name("s")).unwrap().shards);
            acknowledged.push((disk.operations(), round + 1));
        }
        drop(store);
        for operations in created..=disk.operations() {
            for crash in [Crash::Dropped, Crash::Kept, Crash::Torn(operations as u64)] {
                let store = open(&disk.after_crash(operations, crash)).unwrap();
                let meta = store.describe_stream(&name("s")).unwrap();
                open_shards(&meta);
                let state = states.iter().position(|shards| *shards == meta.shards).unwrap();
                let least = acknowledged
                    .iter()
                    .filter(|(done, _)| *done <= operations)
                    .map(|(_, state)| *state);
                assert!(state >= least.max().unwrap(), "{operations} {crash:?}");
                assert!(store.damage().is_empty());
            }
        }
    });
}

#[test]
fn producers_and_a_reader_notice_nothing_of_resharding() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1).await;
        let stop = Arc::new(AtomicBool::new(false));
        let producers: Vec<_> = (0..3u64)
            .map(|producer| {
                let (store, stop) = (store.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut number = 0;
                    while !stop.load(Ordering::SeqCst) || number < 50 {
                        let entries: Vec<PutEntry> = (0..10)
                            .map(|index| numbered(&format!("{producer}-{}", index % 4), number + index))
                            .collect();
                        for receipt in store.put_records(&name("s"), entries).await.unwrap() {
                            receipt.unwrap();
                        }
                        number += 10;
                    }
                    number
                })
            })
            .collect();
        for round in 0..40u32 {
            let meta = store.describe_stream(&name("s")).unwrap();
            let open = open_shards(&meta);
            let update = match round % 3 {
                0 => {
                    let widest = open
                        .iter()
                        .max_by_key(|shard| shard.hash_range.end.0 - shard.hash_range.start.0)
                        .unwrap();
                    let range = widest.hash_range;
                    let at = HashKey(range.start.0 + (range.end.0 - range.start.0) / 2);
                    StreamUpdate::Split { shard: widest.id, at }
                }
                1 => StreamUpdate::ShardCount(open.len() as u32 + 1),
                _ => StreamUpdate::ShardCount((open.len() as u32).div_ceil(2)),
            };
            store.update_stream(&name("s"), update).await.unwrap();
            tokio::task::yield_now().await;
        }
        stop.store(true, Ordering::SeqCst);
        for (producer, task) in producers.into_iter().enumerate() {
            let count = task.await.unwrap();
            let keys = by_key(&store, "s");
            let mut all = BTreeSet::new();
            for (key, numbers) in keys.iter().filter(|(key, _)| key.starts_with(&format!("{producer}-"))) {
                assert!(numbers.is_sorted(), "{key}");
                all.extend(numbers.iter().copied());
            }
            assert_eq!(all.len() as u64, count);
            assert_eq!(all, (0..count).collect());
        }
    });
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>),
    Stage(Vec<u8>),
    Publish,
    Split { pick: u8, at: u128 },
    Merge { pick: u8 },
    Count { target: u8 },
    Read { records: u8 },
    Clock { ms: i32 },
    Stop,
    PowerCut { seed: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || prop::collection::vec(0u8..12, 0..14);
    let step = prop_oneof![
        6 => keys().prop_map(Step::Put),
        3 => keys().prop_map(Step::Stage),
        2 => Just(Step::Publish),
        3 => (any::<u8>(), any::<u128>()).prop_map(|(pick, at)| Step::Split { pick, at }),
        3 => any::<u8>().prop_map(|pick| Step::Merge { pick }),
        2 => (1u8..9).prop_map(|target| Step::Count { target }),
        4 => (1u8..30).prop_map(|records| Step::Read { records }),
        1 => (-5_000i32..5_000).prop_map(|ms| Step::Clock { ms }),
        1 => Just(Step::Stop),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ];
    prop::collection::vec(step, 1..50)
}

/// Reads as consumers do: children only when all their parents that exist have been read to their end.
#[derive(Default)]
struct Consumer {
    positions: BTreeMap<ShardId, Option<Position>>,
    seen: BTreeMap<String, Vec<u64>>,
}

impl Consumer {
    fn read(&mut self, store: &ShardStore, records_max: usize) -> usize {
        let meta = store.describe_stream(&name("s")).unwrap();
        let mut read = 0;
        for shard in &meta.shards {
            let parents: Vec<ShardId> = shard.parent.into_iter().chain(shard.adjacent_parent).collect();
            if !parents.iter().all(|parent| self.positions.get(parent) == Some(&None)) {
                continue;
            }
            let at = ShardRef::new(name("s"), shard.id);
            let start = || Some(store.resolve(&at, ReadFrom::TrimHorizon).unwrap());
            let Some(position) = *self.positions.entry(shard.id).or_insert_with(start) else {
                continue;
            };
            let limits = ReadLimits {
                records_max,
                bytes_max: 1 << 20,
            };
            let batch = store.read(&at, position, limits).unwrap();
            read += batch.records.len();
            for record in &batch.records {
                let key = record.partition_key().to_owned();
                self.seen.entry(key).or_default().push(number_of(&record.data));
            }
            if batch.at_end {
                // Whoever is told of the end finds the children.
                let children = meta
                    .shards
                    .iter()
                    .filter(|child| child.parent == Some(shard.id) || child.adjacent_parent == Some(shard.id));
                assert!(children.count() > 0);
                read += 1;
            }
            self.positions.insert(shard.id, (!batch.at_end).then_some(batch.next));
        }
        read
    }
}

async fn run(steps: Vec<Step>) {
    let mut disk = SimDisk::new();
    let clock = ManualClock::new(NOW_MS);
    let reopen = |disk: &SimDisk| ShardStore::open_in(environment(disk, &clock), options()).unwrap();
    let mut store = reopen(&disk);
    create(&store, "s", 2).await;
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut consumer = Consumer::default();
    let (mut number, mut checkpoint) = (0, 1);
    let (mut staged, mut staged_entries) = (Vec::<StagedRef>::new(), Vec::<PutEntry>::new());
    let mut entries = |keys: &[u8]| -> Vec<PutEntry> {
        let entry = |key: &u8| {
            number += 1;
            numbered(&format!("key {key}"), number)
        };
        keys.iter().map(entry).collect()
    };
    let mut stored = |entries: &[PutEntry]| {
        for entry in entries {
            let numbers = expected.entry(entry.partition_key.clone()).or_default();
            numbers.push(number_of(&entry.data));
        }
    };
    for step in steps {
        let open = open_shards(&store.describe_stream(&name("s")).unwrap());
        match step {
            Step::Put(keys) => {
                let entries = entries(&keys);
                for receipt in store.put_records(&name("s"), entries.clone()).await.unwrap() {
                    let receipt = receipt.unwrap();
                    assert!(open.iter().any(|shard| shard.id == receipt.shard));
                }
                stored(&entries);
            }
            Step::Stage(keys) => {
                let entries = entries(&keys);
                staged.push(
                    store
                        .stage(stage_request(checkpoint, 0, entries.clone()))
                        .await
                        .unwrap(),
                );
                staged_entries.extend(entries);
            }
            Step::Publish => {
                let request = publish_request(checkpoint, staged.clone());
                let outcome = store.publish(request.clone()).await.unwrap();
                let records = staged_entries.len() as u64;
                assert_eq!(outcome, PublishOutcome::Published { records });
                stored(&staged_entries);
                assert_eq!(store.publish(request).await.unwrap(), PublishOutcome::Replayed);
                checkpoint += 1;
                staged.clear();
                staged_entries.clear();
            }
            Step::Split { pick, at } => {
                let shard = &open[pick as usize % open.len()];
                let range = shard.hash_range;
                let width = range.end.0 - range.start.0;
                let at = HashKey(range.start.0 + if width == 0 { 0 } else { at % width });
                let done = store.split_shard(&name("s"), shard.id, at).await;
                let allowed = at.0 > range.start.0 + 1 && at < range.end;
                assert_eq!(done.is_ok(), allowed);
            }
            Step::Merge { pick } => {
                let at = pick as usize % open.len();
                let done = match open.get(at + 1) {
                    Some(next) => store.merge_shards(&name("s"), open[at].id, next.id).await,
                    None => store.merge_shards(&name("s"), open[at].id, open[0].id).await,
                };
                // Of two, each is the other's neighbour.
                assert_eq!(done.is_ok(), at + 1 < open.len() || open.len() == 2);
            }
            Step::Count { target } => {
                let target = u32::from(target);
                let current = open.len() as u32;
                let done = store.update_stream(&name("s"), StreamUpdate::ShardCount(target)).await;
                assert_eq!(done.is_ok(), target <= 2 * current && 2 * target >= current);
                if let Ok(updated) = done {
                    assert_eq!(updated.open_shards_after, target);
                }
            }
            Step::Read { records } => {
                consumer.read(&store, records.into());
            }
            Step::Clock { ms } => clock.set((NOW_MS as i64 + i64::from(ms)) as u64),
            Step::Stop => {
                drop(store);
                store = reopen(&disk);
            }
            Step::PowerCut { seed } => {
                let after = disk.after_crash(disk.operations(), Crash::Torn(seed));
                drop(store);
                disk = after.copy();
                store = reopen(&disk);
                disk = settle(disk, &mut store, &clock);
            }
        }
        open_shards(&store.describe_stream(&name("s")).unwrap());
    }
    assert_eq!(by_key(&store, "s"), expected, "parents before children");
    while consumer.read(&store, 7) > 0 {}
    assert_eq!(consumer.seen, expected, "as a consumer reads");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_history_with_resharding_keeps_every_record_once_and_the_order_of_each_key(steps in steps()) {
        block_on(run(steps));
    }
}
