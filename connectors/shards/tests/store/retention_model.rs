//! Random histories of put, stage, publish, split, merge, time, jumps of the clock, expiry, tiering, restart and power
//! cut, against a model: no live record is lost, none that has expired is returned, closed shards are there as long as
//! their records, and space is given back.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tidemill_shards::env::{Crash, Disk, ManualClock, SimDisk};
use tidemill_shards::{
    CreateStream, HashKey, ObjectTier, PublishRequest, ShardId, ShardMeta, ShardStore, StageRequest, StoreError,
};

use crate::support::*;
use crate::tiering::{MemoryTier, tiered_options};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const SHARDS: u32 = 2;

#[derive(Debug, Clone)]
enum Step {
    Put {
        stream: u8,
        records: Vec<(u8, u16)>,
    },
    Recreate {
        stream: u8,
    },
    Stage {
        stream: u8,
        records: Vec<(u8, u16)>,
        publish: bool,
        /// A shard is split before the publish.
        split: bool,
    },
    Split {
        stream: u8,
        pick: u8,
    },
    Merge {
        stream: u8,
        pick: u8,
    },
    Pass {
        minutes: u32,
    },
    Jump {
        hours: u32,
        minutes: u32,
    },
    Expire,
    Tier {
        fail_after: Option<u8>,
    },
    Stop,
    PowerCut {
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = || prop::collection::vec((any::<u8>(), 0u16..900), 0..16);
    let step = prop_oneof![
        8 => (0u8..2, records()).prop_map(|(stream, records)| Step::Put { stream, records }),
        1 => (0u8..2).prop_map(|stream| Step::Recreate { stream }),
        4 => (0u8..2, records(), any::<bool>(), any::<bool>())
            .prop_map(|(stream, records, publish, split)| Step::Stage { stream, records, publish, split }),
        2 => (0u8..2, any::<u8>()).prop_map(|(stream, pick)| Step::Split { stream, pick }),
        2 => (0u8..2, any::<u8>()).prop_map(|(stream, pick)| Step::Merge { stream, pick }),
        6 => (0u32..1_500).prop_map(|minutes| Step::Pass { minutes }),
        1 => (0u32..10_000, 0u32..59).prop_map(|(hours, minutes)| Step::Jump { hours, minutes }),
        4 => Just(Step::Expire),
        3 => prop::option::of(0u8..12).prop_map(|fail_after| Step::Tier { fail_after }),
        1 => Just(Step::Stop),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ];
    prop::collection::vec(step, 1..60)
}

/// A shard as it should be.
#[derive(Default)]
struct Shard {
    /// Arrival and data of each record.
    records: Vec<(u64, Vec<u8>)>,
    closed_ms: Option<u64>,
}

/// How long a closed shard is remembered when it has expired, at least.
const REMEMBERED: u64 = DAY;

struct World {
    disk: SimDisk,
    clock: ManualClock,
    /// `None` for a store without a tier.
    tier: Option<MemoryTier>,
    store: Option<ShardStore>,
    streams: BTreeMap<u8, BTreeMap<u32, Shard>>,
    number: u64,
    checkpoint: u64,
    now: u64,
}

fn stream_name(stream: u8) -> String {
    format!("stream-{stream}")
}

fn retention(stream: u8) -> u64 {
    DAY * (1 + u64::from(stream))
}

impl World {
    fn store(&self) -> &ShardStore {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(self.open());
        assert!(self.store().damage().is_empty(), "{:?}", self.store().damage());
    }

    fn open(&self) -> ShardStore {
        let tier = self.tier.clone().map(|tier| Arc::new(tier) as Arc<dyn ObjectTier>);
        ShardStore::open_tiered(environment(&self.disk, &self.clock), tiered_options(), tier).unwrap()
    }

    async fn create(&mut self, stream: u8) {
        let request = CreateStream {
            retention_hours: (retention(stream) / HOUR) as u32,
            ..CreateStream::provisioned(name(&stream_name(stream)), SHARDS)
        };
        self.store().create_stream(request).await.unwrap();
        let shards = (0..SHARDS).map(|id| (id, Shard::default()));
        self.streams.insert(stream, shards.collect());
    }

    /// The open shards of a stream, in the order of their hash keys.
    fn open_shards(&self, stream: u8) -> Vec<ShardMeta> {
        let meta = self.store().describe_stream(&name(&stream_name(stream))).unwrap();
        let mut open: Vec<ShardMeta> = meta.open_shards().cloned().collect();
        open.sort_by_key(|shard| shard.hash_range.start);
        open
    }

    /// Takes note that shards were closed, and which are there now.
    fn resharded(&mut self, stream: u8, closed: &[ShardId]) {
        let open = self.open_shards(stream);
        let shards = self.streams.get_mut(&stream).unwrap();
        for id in closed {
            shards.get_mut(&id.0).unwrap().closed_ms = Some(self.now);
        }
        for shard in open {
            shards.entry(shard.id.0).or_default();
        }
    }

    async fn split(&mut self, stream: u8, pick: u8) {
        let open = self.open_shards(stream);
        let shard = &open[pick as usize % open.len()];
        let (start, end) = (shard.hash_range.start.0, shard.hash_range.end.0);
        if open.len() < 8 && end - start > 2 {
            let middle = HashKey(start + (end - start) / 2 + 1);
            let stream_ref = name(&stream_name(stream));
            self.store().split_shard(&stream_ref, shard.id, middle).await.unwrap();
            self.resharded(stream, &[shard.id]);
        }
    }

    async fn merge(&mut self, stream: u8, pick: u8) {
        let open = self.open_shards(stream);
        let at = pick as usize % open.len();
        if let Some(next) = open.get(at + 1) {
            let both = [open[at].id, next.id];
            let stream_ref = name(&stream_name(stream));
            self.store().merge_shards(&stream_ref, both[0], both[1]).await.unwrap();
            self.resharded(stream, &both);
        }
    }

    fn entries(&mut self, records: &[(u8, u16)]) -> Vec<tidemill_shards::PutEntry> {
        let number = &mut self.number;
        let entries = records.iter().map(|(key, length)| {
            *number += 1;
            let mut data = number.to_le_bytes().to_vec();
            data.resize(8 + *length as usize, *key);
            entry(&format!("key {key}"), data)
        });
        entries.collect()
    }

    /// Takes note of records that are visible now.
    fn visible(&mut self, stream: u8, entries: &[tidemill_shards::PutEntry]) {
        let meta = self.store().describe_stream(&name(&stream_name(stream))).unwrap();
        for entry in entries {
            let shard = meta.route(HashKey::of(&entry.partition_key)).unwrap().id.0;
            let shard = self.streams.get_mut(&stream).unwrap().get_mut(&shard).unwrap();
            let records = &mut shard.records;
            let arrival = records.last().map_or(0, |last| last.0).max(self.now);
            records.push((arrival, entry.data.to_vec()));
        }
    }

    fn check(&self) {
        let doubt = self.store().usage().clock_in_doubt;
        for (stream, shards) in &self.streams {
            let meta = self.store().describe_stream(&name(&stream_name(*stream))).unwrap();
            for (
                id,
                Shard {
                    records: all,
                    closed_ms,
                },
            ) in shards
            {
                let over = closed_ms.map_or(u64::MAX, |closed| closed + retention(*stream));
                let listed = meta.shards.iter().any(|shard| shard.id.0 == *id);
                assert!(listed || over < self.now, "a shard is gone before its records");
                assert!(
                    !listed || doubt || over >= self.now,
                    "a shard is told beyond its records"
                );
                let found = match read_all(self.store(), &shard(&stream_name(*stream), *id)) {
                    Err(StoreError::ShardNotFound { .. }) => {
                        assert!(
                            over.saturating_add(REMEMBERED) < self.now,
                            "a shard is forgotten too early"
                        );
                        continue;
                    }
                    found => found.unwrap(),
                };
                // What is there is the end of what was put, and holds everything that is live.
                assert!(found.len() <= all.len());
                let (expired, rest) = all.split_at(all.len() - found.len());
                for (record, (arrival, data)) in found.iter().zip(rest) {
                    assert_eq!((record.arrival_ms, &record.data[..]), (*arrival, &data[..]));
                }
                let live = |arrival: u64| arrival + retention(*stream) >= self.now;
                assert!(
                    expired.iter().all(|(arrival, _)| !live(*arrival)),
                    "a live record is lost"
                );
                assert!(
                    doubt || rest.iter().all(|(arrival, _)| live(*arrival)),
                    "an expired record is returned"
                );
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Put { stream, records } => {
                let entries = self.entries(&records);
                let stream_ref = name(&stream_name(stream));
                for result in self.store().put_records(&stream_ref, entries.clone()).await.unwrap() {
                    result.unwrap();
                }
                self.visible(stream, &entries);
            }
            Step::Recreate { stream } => {
                self.store().delete_stream(&name(&stream_name(stream))).await.unwrap();
                self.create(stream).await;
            }
            Step::Stage {
                stream,
                records,
                publish,
                split,
            } => {
                self.checkpoint += 1;
                let entries = self.entries(&records);
                let request = StageRequest {
                    job: "job".into(),
                    sink: "sink".into(),
                    stream: name(&stream_name(stream)),
                    lineage: LINEAGE,
                    checkpoint: self.checkpoint,
                    attempt: 0,
                    worker: 0,
                    entries: entries.clone(),
                };
                let staged = self.store().stage(request).await.unwrap();
                if publish {
                    // Some time goes by, and checks do.
                    self.store().expire().await.unwrap();
                    if split {
                        self.split(stream, 0).await;
                    }
                    let request = PublishRequest {
                        job: "job".into(),
                        sink: "sink".into(),
                        lineage: LINEAGE,
                        checkpoint: self.checkpoint,
                        generation: 1,
                        decided_by: DECIDER,
                        staged: vec![staged],
                    };
                    self.store().publish(request).await.unwrap();
                    self.visible(stream, &entries);
                }
            }
            Step::Split { stream, pick } => self.split(stream, pick).await,
            Step::Merge { stream, pick } => self.merge(stream, pick).await,
            Step::Pass { minutes } => {
                self.clock.advance(u64::from(minutes) * 60_000);
                self.now += u64::from(minutes) * 60_000;
            }
            Step::Jump { hours, minutes } => {
                self.clock.set(self.now + u64::from(hours) * HOUR);
                self.store().expire().await.unwrap();
                self.clock.advance(u64::from(minutes) * 60_000);
                self.store().expire().await.unwrap();
                self.now += u64::from(minutes) * 60_000;
                self.clock.set(self.now);
            }
            Step::Expire => self.store().expire().await.unwrap(),
            Step::Tier { fail_after } => {
                if let Some(tier) = &self.tier {
                    tier.fail_after(fail_after.map(usize::from));
                    let outcome = self.store().tier().await;
                    assert!(outcome.is_ok() || fail_after.is_some(), "{outcome:?}");
                    tier.fail_after(None);
                }
            }
            Step::Stop => self.reopen(),
            Step::PowerCut { seed } => {
                let after = self.disk.after_crash(self.disk.operations(), Crash::Torn(seed));
                self.store = None;
                // What the cut left is durable from now on.
                self.disk = settled(&after);
                self.reopen();
            }
        }
        self.check();
    }
}

/// The files of a disk on one whose journal starts with them, written and synced.
fn settled(disk: &SimDisk) -> SimDisk {
    let settled = SimDisk::new();
    for file in disk.list().unwrap() {
        let handle = settled.create(&file).unwrap();
        handle.write_at(&disk.contents(&file).unwrap(), 0).unwrap();
        handle.sync_data().unwrap();
    }
    settled.sync_dir().unwrap();
    settled
}

async fn run(steps: Vec<Step>, tiered: bool) {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
    let mut world = World {
        tier: tiered.then(|| MemoryTier::new(&disk)),
        disk,
        clock,
        store: None,
        streams: BTreeMap::new(),
        number: 0,
        checkpoint: 0,
        now: NOW_MS,
    };
    world.reopen();
    for stream in 0..2 {
        world.create(stream).await;
    }
    for step in steps {
        world.step(step).await;
    }
    // In the end everything expires, and the files go but for those that the next start needs.
    for _ in 0..3 {
        world.step(Step::Pass { minutes: 8 * 24 * 60 }).await;
        world.step(Step::Expire).await;
    }
    let records = vec![(0, 800); 16];
    world
        .step(Step::Put {
            stream: 0,
            records: records.clone(),
        })
        .await;
    world.step(Step::Put { stream: 0, records }).await;
    world.step(Step::Pass { minutes: 8 * 24 * 60 }).await;
    world.step(Step::Expire).await;
    for stream in 0..2 {
        let meta = world.store().describe_stream(&name(&stream_name(stream))).unwrap();
        assert!(
            meta.shards.iter().all(ShardMeta::is_open),
            "closed shards are told no more"
        );
    }
    let names = world.disk.list().unwrap();
    let left = names.iter().filter(|name| name.ends_with(".log")).count();
    assert!(left <= 4, "{names:?}");
    world.step(Step::Tier { fail_after: None }).await;
    if let Some(tier) = &world.tier {
        assert_eq!(tier.names().len() as u64, world.store().usage().tiered_objects);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_what_is_live_and_lets_go_of_what_is_not(steps in steps(), tiered in any::<bool>()) {
        block_on(run(steps, tiered));
    }
}
