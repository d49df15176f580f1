//! Random histories of producers: requests, lost answers, repetitions, power cuts within a request, resharding, restarts, and
//! a model of what must be stored.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidemill_shards::env::{Crash, ManualClock, SimDisk};
use tidemill_shards::{
    HashKey, PutEntry, PutOnceOutcome, PutReceipt, ShardStore, StoreError, StoreOptions, StreamUpdate,
};

use crate::model::settle;
use crate::producers::*;
use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    /// The next request of a producer; its answer may be lost.
    Put {
        producer: u8,
        records: usize,
        length: usize,
        lost: bool,
    },
    /// The last request of a producer comes so many times more, some at once.
    Repeat {
        producer: u8,
        times: u8,
    },
    /// Power cut after this share of the disk operations of a producer's request.
    CutWithin {
        producer: u8,
        records: usize,
        length: usize,
        share: u8,
        seed: u64,
    },
    Restarted {
        producer: u8,
    },
    Plain {
        records: u8,
    },
    Split {
        pick: u8,
        at: u128,
    },
    Merge {
        pick: u8,
    },
    Count {
        target: u8,
    },
    Recreate,
    Stop,
    PowerCut {
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = || (prop_oneof![Just(1usize), 1usize..40], 0usize..400);
    let step = prop_oneof![
        8 => (0u8..3, size(), any::<bool>())
            .prop_map(|(producer, (records, length), lost)| Step::Put { producer, records, length, lost }),
        4 => (0u8..3, 1u8..4).prop_map(|(producer, times)| Step::Repeat { producer, times }),
        5 => (0u8..3, size(), any::<u8>(), any::<u64>())
            .prop_map(|(producer, (records, length), share, seed)| Step::CutWithin { producer, records, length, share, seed }),
        1 => (0u8..3).prop_map(|producer| Step::Restarted { producer }),
        3 => (1u8..9).prop_map(|records| Step::Plain { records }),
        2 => (any::<u8>(), any::<u128>()).prop_map(|(pick, at)| Step::Split { pick, at }),
        2 => any::<u8>().prop_map(|pick| Step::Merge { pick }),
        1 => (1u8..6).prop_map(|target| Step::Count { target }),
        1 => Just(Step::Recreate),
        2 => Just(Step::Stop),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a producer knows.
#[derive(Default)]
struct Sender {
    epoch: u64,
    /// The next sequence.
    next: u64,
    /// The last request, and its answer when that was not lost.
    last: Option<(Vec<PutEntry>, Option<Vec<PutReceipt>>)>,
}

struct World {
    store: ShardStore,
    senders: [Sender; 3],
    /// Where every record must be, by its data.
    expected: BTreeMap<String, PutReceipt>,
    plain: usize,
}

fn id(producer: u8) -> String {
    format!("producer-{producer}")
}

impl World {
    fn next_request(&mut self, of: u8, records: usize, length: usize) -> Vec<PutEntry> {
        let sender = &mut self.senders[usize::from(of)];
        request(&id(of), sender.epoch, sender.next, records, length)
    }

    /// Sends the last request of a producer until it is answered, and compares.
    async fn repeat(&mut self, of: u8, times: u8) {
        let sender = &mut self.senders[usize::from(of)];
        let Some((entries, answer)) = &mut sender.last else {
            return;
        };
        let at = producer(&id(of), sender.epoch, sender.next - 1);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..times {
            let (store, at, entries) = (self.store.clone(), at.clone(), entries.clone());
            tasks.spawn(async move { once(&store, "s", at, entries).await.unwrap() });
        }
        let was_known = answer.is_some();
        let mut first = 0;
        while let Some(done) = tasks.join_next().await {
            let (outcome, receipts) = done.unwrap();
            first += usize::from(outcome == PutOnceOutcome::Stored);
            assert_eq!(answer.get_or_insert_with(|| receipts.clone()), &receipts);
        }
        assert!(first <= usize::from(!was_known));
        let answer = answer.clone().unwrap();
        for (entry, receipt) in entries.iter().zip(answer) {
            let text = String::from_utf8(entry.data.to_vec()).unwrap();
            assert_eq!(*self.expected.entry(text).or_insert(receipt), receipt);
        }
    }

    /// Whoever does not know what became of its last request repeats that before the next one.
    async fn settle_last(&mut self, of: u8) {
        if matches!(self.senders[usize::from(of)].last, Some((_, None))) {
            self.repeat(of, 1).await;
        }
    }

    fn check(&self) {
        let all = stored(&self.store, "s");
        for (text, receipt) in &self.expected {
            assert_eq!(all.get(text), Some(receipt), "{text}");
        }
        // Beside them there may be the requests whose answer is not known: each as a whole.
        let mut unknown = 0;
        for sender in &self.senders {
            if let Some((entries, None)) = &sender.last {
                let there = entries
                    .iter()
                    .filter(|entry| all.contains_key(std::str::from_utf8(&entry.data).unwrap()))
                    .count();
                assert!(there == 0 || there == entries.len(), "{there} of {}", entries.len());
                unknown += there;
            }
        }
        assert_eq!(all.len(), self.expected.len() + unknown);
    }
}

async fn run(steps: Vec<Step>) {
    let mut disk = SimDisk::new();
    let clock = ManualClock::new(NOW_MS);
    let reopen = |disk: &SimDisk| {
        ShardStore::open_in(
            environment(disk, &clock),
            StoreOptions {
                segment_bytes: 32 << 10,
                ..options()
            },
        )
        .unwrap()
    };
    let store = reopen(&disk);
    create(&store, "s", 2).await;
    let mut world = World {
        store,
        senders: Default::default(),
        expected: BTreeMap::new(),
        plain: 0,
    };
    for step in steps {
        let open = world.store.describe_stream(&name("s")).unwrap();
        let open: Vec<_> = open.open_shards().cloned().collect();
        match step {
            Step::Put {
                producer: of,
                records,
                length,
                lost,
            } => {
                world.settle_last(of).await;
                let entries = world.next_request(of, records, length);
                let sender = &mut world.senders[usize::from(of)];
                let at = producer(&id(of), sender.epoch, sender.next);
                let (outcome, receipts) = once(&world.store, "s", at, entries.clone()).await.unwrap();
                assert_eq!(outcome, PutOnceOutcome::Stored);
                sender.next += 1;
                if lost {
                    sender.last = Some((entries, None));
                } else {
                    for (entry, receipt) in entries.iter().zip(&receipts) {
                        let text = String::from_utf8(entry.data.to_vec()).unwrap();
                        world.expected.insert(text, *receipt);
                    }
                    sender.last = Some((entries, Some(receipts)));
                }
            }
            Step::Repeat { producer, times } => world.repeat(producer, times).await,
            Step::CutWithin {
                producer: of,
                records,
                length,
                share,
                seed,
            } => {
                world.settle_last(of).await;
                let entries = world.next_request(of, records, length);
                let sender = &mut world.senders[usize::from(of)];
                let at = producer(&id(of), sender.epoch, sender.next);
                let before = disk.operations();
                once(&world.store, "s", at, entries.clone()).await.unwrap();
                let after = disk.operations();
                sender.next += 1;
                sender.last = Some((entries, None));
                let cut = before + (after - before) * usize::from(share) / 255;
                disk = disk.after_crash(cut, Crash::Torn(seed)).copy();
                world.store = reopen(&disk);
                disk = settle(disk, &mut world.store, &clock);
            }
            Step::Restarted { producer: of } => {
                world.settle_last(of).await;
                let sender = &mut world.senders[usize::from(of)];
                *sender = Sender {
                    epoch: sender.epoch + 1,
                    ..Sender::default()
                };
            }
            Step::Plain { records } => {
                for _ in 0..records {
                    world.plain += 1;
                    let text = format!("plain {}", world.plain);
                    let receipt = put(&world.store, "s", &text, text.clone()).await;
                    world.expected.insert(text, receipt);
                }
            }
            Step::Split { pick, at } => {
                let shard = &open[usize::from(pick) % open.len()];
                let range = shard.hash_range;
                let at = HashKey(range.start.0 + at % (range.end.0 - range.start.0).max(1));
                // Some places are refused.
                let _ = world.store.split_shard(&name("s"), shard.id, at).await;
            }
            Step::Merge { pick } => {
                let at = usize::from(pick) % open.len();
                if let Some(next) = open.get(at + 1) {
                    let _ = world.store.merge_shards(&name("s"), open[at].id, next.id).await;
                }
            }
            Step::Count { target } => {
                let update = StreamUpdate::ShardCount(target.into());
                let _ = world.store.update_stream(&name("s"), update).await;
            }
            Step::Recreate => {
                world.store.delete_stream(&name("s")).await.unwrap();
                create(&world.store, "s", 2).await;
                world.expected.clear();
                for (of, sender) in world.senders.iter_mut().enumerate() {
                    if sender.next > 1 {
                        let entries = request(&id(of as u8), sender.epoch, sender.next, 1, 0);
                        let at = producer(&id(of as u8), sender.epoch, sender.next);
                        let error = once(&world.store, "s", at, entries).await.unwrap_err();
                        assert!(matches!(error, StoreError::ProducerUnknown { .. }), "{error}");
                    }
                    *sender = Sender {
                        epoch: sender.epoch + 1,
                        ..Sender::default()
                    };
                }
            }
            Step::Stop => {
                drop(world.store);
                world.store = reopen(&disk);
            }
            Step::PowerCut { seed } => {
                let after = disk.after_crash(disk.operations(), Crash::Torn(seed));
                disk = after.copy();
                world.store = reopen(&disk);
                disk = settle(disk, &mut world.store, &clock);
            }
        }
        world.check();
    }
    for of in 0..3 {
        world.repeat(of, 2).await;
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_history_stores_every_request_once(steps in steps()) {
        block_on(run(steps));
    }
}
