//! Random histories of put, create, delete, stage, publish, stop and power cut, against a model in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidemill_shards::env::{Crash, ManualClock, SimDisk};
use tidemill_shards::{PublishRequest, PutEntry, SequenceNumber, ShardStore, StageRequest};

use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    Put { stream: u8, records: Vec<(u8, u16)> },
    Recreate { stream: u8 },
    Checkpoint { stream: u8, records: Vec<(u8, u16)> },
    Clock { ms: i32 },
    Stop,
    PowerCut { seed: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = || prop::collection::vec((any::<u8>(), 0u16..600), 0..12);
    let step = prop_oneof![
        8 => (0u8..3, records()).prop_map(|(stream, records)| Step::Put { stream, records }),
        1 => (0u8..3).prop_map(|stream| Step::Recreate { stream }),
        3 => (0u8..3, records()).prop_map(|(stream, records)| Step::Checkpoint { stream, records }),
        2 => (-5_000i32..5_000).prop_map(|ms| Step::Clock { ms }),
        1 => Just(Step::Stop),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ];
    prop::collection::vec(step, 1..40)
}

type Shards = Vec<Vec<(Option<SequenceNumber>, Vec<u8>)>>;

/// What must be readable: acknowledged records by shard; published ones get their number when they are first seen.
struct Model {
    streams: BTreeMap<u8, Shards>,
    checkpoint: u64,
}

fn entries(records: &[(u8, u16)], number: &mut u64) -> Vec<PutEntry> {
    records
        .iter()
        .map(|(key, length)| {
            *number += 1;
            let mut data = number.to_le_bytes().to_vec();
            data.resize(8 + *length as usize, *key);
            entry(&format!("key {key}"), data)
        })
        .collect()
}

fn stream_name(stream: u8) -> String {
    format!("stream-{stream}")
}

fn check(store: &ShardStore, model: &mut Model) {
    for (stream, shards) in &mut model.streams {
        for (id, expected) in shards.iter_mut().enumerate() {
            let records = read_all(store, &shard(&stream_name(*stream), id as u32)).unwrap();
            assert_eq!(records.len(), expected.len(), "stream {stream} shard {id}");
            for (record, (sequence, data)) in records.iter().zip(expected) {
                assert_eq!(&record.data[..], &data[..]);
                assert_eq!(*sequence.get_or_insert(record.sequence), record.sequence);
            }
            assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
            assert!(records.windows(2).all(|pair| pair[0].arrival_ms <= pair[1].arrival_ms));
        }
    }
}

async fn run(steps: Vec<Step>) {
    let mut disk = SimDisk::new();
    let clock = ManualClock::new(NOW_MS);
    let reopen = |disk: &SimDisk| ShardStore::open_in(environment(disk, &clock), options()).unwrap();
    let mut store = reopen(&disk);
    let mut model = Model {
        streams: BTreeMap::new(),
        checkpoint: 0,
    };
    let mut number = 0;
    for stream in 0..3 {
        create(&store, &stream_name(stream), u32::from(stream) + 1).await;
        model.streams.insert(stream, vec![Vec::new(); usize::from(stream) + 1]);
    }
    for step in steps {
        match step {
            Step::Put { stream, records } => {
                let entries = entries(&records, &mut number);
                let receipts = store
                    .put_records(&name(&stream_name(stream)), entries.clone())
                    .await
                    .unwrap();
                let shards = model.streams.get_mut(&stream).unwrap();
                for (entry, receipt) in entries.iter().zip(receipts) {
                    let receipt = receipt.unwrap();
                    shards[receipt.shard.0 as usize].push((Some(receipt.sequence), entry.data.to_vec()));
                }
            }
            Step::Recreate { stream } => {
                store.delete_stream(&name(&stream_name(stream))).await.unwrap();
                create(&store, &stream_name(stream), u32::from(stream) + 1).await;
                model.streams.insert(stream, vec![Vec::new(); usize::from(stream) + 1]);
            }
            Step::Checkpoint { stream, records } => {
                model.checkpoint += 1;
                let (checkpoint, text) = (model.checkpoint, stream_name(stream));
                let entries = entries(&records, &mut number);
                let request = StageRequest {
                    job: "job".into(),
                    sink: "sink".into(),
                    stream: name(&text),
                    lineage: LINEAGE,
                    checkpoint,
                    attempt: 0,
                    worker: 0,
                    entries: entries.clone(),
                };
                let staged = vec![store.stage(request).await.unwrap()];
                let publish = || PublishRequest {
                    job: "job".into(),
                    sink: "sink".into(),
                    lineage: LINEAGE,
                    checkpoint,
                    generation: 1,
                    decided_by: DECIDER,
                    staged: staged.clone(),
                };
                store.publish(publish()).await.unwrap();
                store.publish(publish()).await.unwrap();
                let meta = store.describe_stream(&name(&text)).unwrap();
                let shards = model.streams.get_mut(&stream).unwrap();
                for entry in entries {
                    let hash = tidemill_shards::HashKey::of(&entry.partition_key);
                    let shard = meta.route(hash).unwrap().id.0 as usize;
                    shards[shard].push((None, entry.data.to_vec()));
                }
            }
            Step::Clock { ms } => {
                clock.set((NOW_MS as i64 + i64::from(ms)) as u64);
            }
            Step::Stop => {
                drop(store);
                store = reopen(&disk);
            }
            Step::PowerCut { seed } => {
                let after = disk.after_crash(disk.operations(), Crash::Torn(seed));
                drop(store);
                // A journal of its own: what is on the disk after the cut is durable.
                disk = after.copy();
                store = reopen(&disk);
                // What the copy holds was written before its journal began, so a later cut must keep it.
                disk = settle(disk, &mut store, &clock);
            }
        }
        check(&store, &mut model);
    }
}

/// Replays nothing: moves the files into a disk whose journal starts with them, written and synced.
pub(crate) fn settle(disk: SimDisk, store: &mut ShardStore, clock: &ManualClock) -> SimDisk {
    use tidemill_shards::env::Disk;
    let settled = SimDisk::new();
    for file in disk.list().unwrap() {
        let handle = settled.create(&file).unwrap();
        handle.write_at(&disk.contents(&file).unwrap(), 0).unwrap();
        handle.sync_data().unwrap();
    }
    settled.sync_dir().unwrap();
    *store = ShardStore::open_in(environment(&settled, clock), options()).unwrap();
    settled
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_every_acknowledged_record_in_order(steps in steps()) {
        block_on(run(steps));
    }
}
