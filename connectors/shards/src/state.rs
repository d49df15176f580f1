//! The metadata of a store: a state machine over the control frames of the log.
//!
//! Metadata lies in the log, not in a database beside it. So a stream, a publish and the records before and behind it
//! have one order and one `fdatasync`, one disk interface to inject faults into, and one recovery. Every segment starts
//! with a snapshot of this state; a damaged snapshot is no loss, because the segment before has one too and the frames
//! since. The frames are JSON: they are rare, and later releases add fields (`serde(default)`).
//!
//! [`State::apply`] is used by the writer and by recovery alike.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::account::AccountSettings;
use crate::consumers::ConsumerMeta;
use crate::ids::{SegmentNumber, ShardKey, StreamName, Uuid};
use crate::producers::memory::{Produced, Producers};
use crate::publications::{self, Publication};
use crate::retention::SegmentSet;
use crate::stream::{ShardMeta, StreamMeta};
use crate::tier::{self, ObjectKey, TieredObject};
use crate::update::StreamChange;

/// Counters of a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardState {
    /// The last counter given to a record; 0 when there is none.
    pub(crate) last: u64,
    /// The next counter to give.
    pub(crate) next: u64,
    /// Arrival of the last record, so that it never goes back.
    pub(crate) arrival_ms: u64,
    /// Records are damaged, so nothing is appended any more.
    #[serde(default)]
    pub(crate) quarantined: bool,
    /// It was split or merged, so nothing is appended any more.
    #[serde(default)]
    pub(crate) closed: bool,
    /// Records up to this counter are gone, and segments that told of them may be.
    #[serde(default)]
    pub(crate) floor: u64,
}

impl ShardState {
    /// The counters of a new shard.
    fn new(shard: &ShardMeta) -> Self {
        Self {
            next: 1,
            arrival_ms: shard.created_ms,
            closed: !shard.is_open(),
            ..Self::default()
        }
    }

    /// Takes note of records up to `last`.
    pub(crate) fn advance(&mut self, last: u64, arrival_ms: u64) {
        self.last = self.last.max(last);
        self.next = self.next.max(last + 1);
        self.arrival_ms = self.arrival_ms.max(arrival_ms);
    }
}

/// Records that a publish makes visible: one staged frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedFrame {
    pub(crate) shard: ShardKey,
    pub(crate) segment: SegmentNumber,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) records: u32,
    /// Counter of the first record.
    pub(crate) first: u64,
    /// Last counter of the shard before.
    pub(crate) before: u64,
    pub(crate) arrival_ms: u64,
}

/// A change of the metadata: the payload of a control frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// The store was opened.
    Opened { epoch: u64, at_ms: u64, counter_skip: u64 },
    /// A stream was created.
    StreamCreated(StreamMeta),
    /// A stream was deleted.
    StreamDeleted { name: StreamName, id: Uuid },
    /// A stream changed: shards were split or merged, or attributes have new values. All of it or nothing.
    StreamChanged {
        name: StreamName,
        id: Uuid,
        change: StreamChange,
    },
    /// The account has new settings.
    AccountChanged(AccountSettings),
    /// Staged records became visible.
    Published {
        job: String,
        sink: String,
        publication: Publication,
        frames: Vec<PublishedFrame>,
    },
    /// A job is gone for good.
    JobForgotten { job: String },
    /// A consumer of a stream was registered or changed.
    Consumer { stream: Uuid, consumer: ConsumerMeta },
    /// A consumer of a stream is gone.
    ConsumerGone { stream: Uuid, name: String },
    /// Records expired: these segments are removed, and shards begin behind these counters.
    Expired {
        trusted_ms: u64,
        segments: Vec<SegmentNumber>,
        floors: Vec<(ShardKey, u64)>,
    },
    /// Objects of these names may be uploaded from now on.
    TierPlanned { objects: Vec<ObjectKey> },
    /// These objects hold the records of their segment.
    Tiered { objects: Vec<TieredObject> },
    /// The records of these objects are gone.
    TierDropped { objects: Vec<ObjectKey> },
    /// These objects are deleted.
    TierDeleted { objects: Vec<ObjectKey> },
}

/// Where the segment before a snapshot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedAt {
    pub(crate) segment: SegmentNumber,
    pub(crate) uuid: Uuid,
    pub(crate) end: u64,
}

/// The metadata as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Times the store was opened.
    pub(crate) epoch: u64,
    /// The store.
    pub(crate) store: Uuid,
    /// Authenticates iterators and tokens.
    pub(crate) secret: [u8; 32],
    /// The next shard's key.
    pub(crate) next_shard: u64,
    pub(crate) streams: BTreeMap<StreamName, StreamMeta>,
    /// Sorted in the file: hash order reaches no file.
    #[serde(with = "sorted")]
    pub(crate) shards: HashMap<ShardKey, ShardState>,
    pub(crate) publications: BTreeMap<String, BTreeMap<String, Publication>>,
    /// Consumers by stream and name.
    #[serde(default)]
    pub(crate) consumers: BTreeMap<Uuid, BTreeMap<String, ConsumerMeta>>,
    /// Job -> lineages of its checkpoints that are over.
    #[serde(default)]
    pub(crate) retired: BTreeMap<String, Vec<Uuid>>,
    #[serde(default)]
    pub(crate) account: AccountSettings,
    #[serde(default, skip_serializing_if = "Producers::is_empty")]
    pub(crate) producers: Producers,
    /// Set in snapshots.
    pub(crate) before: Option<SealedAt>,
    /// Segments that are removed; their files may be left over after a crash.
    #[serde(default)]
    pub(crate) removed: SegmentSet,
    /// The time that expiry trusted when it was last written down; 0 before that.
    #[serde(default)]
    pub(crate) trusted_ms: u64,
    /// Objects that hold records, in the order of their keys.
    #[serde(default, with = "tier::listing")]
    pub(crate) tiered: Vec<TieredObject>,
    /// Objects that may exist and that nothing needs, or that are being uploaded.
    #[serde(default)]
    pub(crate) tier_garbage: BTreeSet<ObjectKey>,
    /// The last attempt at an upload.
    #[serde(default)]
    pub(crate) tier_attempt: u64,
}

impl State {
    /// An empty store.
    pub(crate) fn new(store: Uuid, secret: [u8; 32]) -> Self {
        Self {
            epoch: 0,
            store,
            secret,
            next_shard: 1,
            streams: BTreeMap::new(),
            shards: HashMap::new(),
            publications: BTreeMap::new(),
            consumers: BTreeMap::new(),
            retired: BTreeMap::new(),
            account: AccountSettings::default(),
            producers: Producers::default(),
            before: None,
            removed: SegmentSet::default(),
            trusted_ms: 0,
            tiered: Vec::new(),
            tier_garbage: BTreeSet::new(),
            tier_attempt: 0,
        }
    }

    /// Applies a change. Applying it twice is the same as once.
    pub(crate) fn apply(&mut self, control: &Control) {
        match control {
            Control::Opened {
                epoch, counter_skip, ..
            } => {
                if *epoch > self.epoch {
                    self.epoch = *epoch;
                    for shard in self.shards.values_mut() {
                        shard.next += counter_skip;
                    }
                }
            }
            Control::StreamCreated(meta) => {
                for shard in &meta.shards {
                    self.next_shard = self.next_shard.max(shard.key.0 + 1);
                    self.shards.entry(shard.key).or_insert_with(|| ShardState::new(shard));
                }
                self.streams.insert(meta.name.clone(), meta.clone());
            }
            Control::StreamChanged { name, id, change } => {
                if let Some(meta) = self.streams.get_mut(name).filter(|meta| meta.id == *id) {
                    change.apply(meta);
                    for key in &change.closed {
                        if let Some(shard) = self.shards.get_mut(key) {
                            shard.closed = true;
                        }
                    }
                    for shard in &change.created {
                        self.next_shard = self.next_shard.max(shard.key.0 + 1);
                        self.shards.entry(shard.key).or_insert_with(|| ShardState::new(shard));
                    }
                    for key in &change.forgotten {
                        self.shards.remove(key);
                    }
                }
            }
            Control::AccountChanged(settings) => self.account = *settings,
            Control::StreamDeleted { name, id } => {
                if self.streams.get(name).is_some_and(|meta| meta.id == *id)
                    && let Some(meta) = self.streams.remove(name)
                {
                    for shard in &meta.shards {
                        self.shards.remove(&shard.key);
                    }
                    self.producers.forget_stream(*id);
                    self.consumers.remove(id);
                }
            }
            Control::Published {
                job,
                sink,
                publication,
                frames,
            } => {
                let sinks = self.publications.entry(job.clone()).or_default();
                let before = sinks.values().find(|before| before.lineage != publication.lineage);
                if before.is_some() || self.retired.contains_key(job) {
                    let retired = self.retired.entry(job.clone()).or_default();
                    for before in sinks.values() {
                        publications::retire(retired, before.lineage, publication.lineage);
                    }
                }
                sinks.insert(sink.clone(), *publication);
                for frame in frames {
                    if let Some(shard) = self.shards.get_mut(&frame.shard) {
                        shard.advance(frame.first + u64::from(frame.records) - 1, frame.arrival_ms);
                    }
                }
            }
            Control::JobForgotten { job } => {
                self.publications.remove(job);
                self.retired.remove(job);
            }
            Control::Consumer { stream, consumer } => {
                // Also when the stream was deleted later in the log and a snapshot knows it already.
                if self.streams.values().any(|meta| meta.id == *stream) {
                    let consumers = self.consumers.entry(*stream).or_default();
                    consumers.insert(consumer.name.clone(), consumer.clone());
                }
            }
            Control::ConsumerGone { stream, name } => {
                if let Some(consumers) = self.consumers.get_mut(stream) {
                    consumers.remove(name);
                    if consumers.is_empty() {
                        self.consumers.remove(stream);
                    }
                }
            }
            Control::Expired {
                trusted_ms,
                segments,
                floors,
            } => {
                self.trusted_ms = *trusted_ms;
                segments.iter().for_each(|segment| self.removed.insert(*segment));
                for (shard, floor) in floors {
                    if let Some(shard) = self.shards.get_mut(shard) {
                        shard.floor = shard.floor.max(*floor);
                    }
                }
            }
            Control::TierPlanned { objects } => {
                for key in objects {
                    self.tier_attempt = self.tier_attempt.max(key.attempt);
                    self.tier_garbage.insert(*key);
                }
            }
            Control::Tiered { objects } => {
                for object in objects {
                    self.tier_garbage.remove(&object.key);
                    if let Err(at) = self.tiered.binary_search_by_key(&object.key, |known| known.key) {
                        self.tiered.insert(at, *object);
                    }
                }
            }
            Control::TierDropped { objects } => {
                self.tiered.retain(|object| !objects.contains(&object.key));
                self.tier_garbage.extend(objects);
            }
            Control::TierDeleted { objects } => {
                objects.iter().for_each(|key| {
                    self.tier_garbage.remove(key);
                });
            }
        }
    }

    /// Remembers requests of producers, which are stored. Doing it twice is the same as once.
    pub(crate) fn remember(&mut self, produced: Vec<Produced>) {
        for produced in produced {
            let stream = self.streams.get(&produced.stream);
            if stream.is_some_and(|meta| meta.id == produced.stream_id) {
                self.producers.remember(produced);
            }
        }
    }

    /// The objects of a tiered segment.
    pub(crate) fn tiered_of(&self, segment: SegmentNumber) -> &[TieredObject] {
        let start = self.tiered.partition_point(|object| object.key.segment < segment);
        let end = self.tiered.partition_point(|object| object.key.segment <= segment);
        &self.tiered[start..end]
    }

    /// The last publish of a job and sink.
    pub(crate) fn publication(&self, job: &str, sink: &str) -> Option<Publication> {
        self.publications.get(job)?.get(sink).copied()
    }

    /// The lineages of a job that are over.
    pub(crate) fn retired(&self, job: &str) -> &[Uuid] {
        self.retired.get(job).map_or(&[], Vec::as_slice)
    }

    /// Open shards of all streams.
    pub(crate) fn open_shards(&self) -> u32 {
        self.shards.values().filter(|shard| !shard.closed).count() as u32
    }

    /// The stream that a shard belongs to.
    pub(crate) fn stream_of(&self, key: ShardKey) -> Option<&StreamMeta> {
        // Keys rise with ids.
        self.streams
            .values()
            .find(|meta| meta.shards.binary_search_by_key(&key, |shard| shard.key).is_ok())
    }

    /// `stream/shardId-…` for error messages.
    pub(crate) fn shard_name(&self, key: ShardKey) -> String {
        self.stream_of(key)
            .and_then(|meta| {
                let shard = meta.shards.iter().find(|shard| shard.key == key)?;
                Some((meta, shard))
            })
            .map_or_else(
                || key.to_string(),
                |(meta, shard)| format!("{}/{}", meta.name, shard.id),
            )
    }
}

mod sorted {
    use std::collections::BTreeMap;

    use hashbrown::HashMap;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{ShardKey, ShardState};

    pub(super) fn serialize<S: Serializer>(
        shards: &HashMap<ShardKey, ShardState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<(&ShardKey, &ShardState)> = shards.iter().collect();
        sorted.sort_by_key(|(key, _)| **key);
        sorted.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<HashMap<ShardKey, ShardState>, D::Error> {
        let pairs = Vec::<(ShardKey, ShardState)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashkey::HashKey;
    use crate::ids::ShardId;
    use crate::reshard::Reshard;

    fn stream(name: &str, key: u64) -> StreamMeta {
        let mut meta = crate::stream::tests::stream(1);
        meta.name = StreamName::new(name).unwrap();
        meta.id = Uuid([key as u8; 16]);
        meta.shards[0].key = ShardKey(key);
        meta.shards[0].created_ms = 5;
        meta
    }

    fn split(meta: &StreamMeta, next_key: u64) -> Control {
        let mut reshard = Reshard::new(meta, 20, ShardKey(next_key));
        reshard.split(ShardId(0), HashKey(1 << 127)).unwrap();
        let change = reshard.finish();
        Control::StreamChanged {
            name: meta.name.clone(),
            id: meta.id,
            change: StreamChange {
                closed: change.closed,
                at_ms: 20,
                created: change.created,
                ..StreamChange::default()
            },
        }
    }

    fn consumer(name: &str) -> ConsumerMeta {
        ConsumerMeta {
            name: name.to_owned(),
            arn: String::new(),
            created_ms: 7,
            deleted_ms: None,
            tags: vec![("k".to_owned(), "v".to_owned())],
            policy: None,
        }
    }

    #[test]
    fn changes_applied_twice_are_applied_once() {
        let mut state = State::new(Uuid([0; 16]), [0; 32]);
        let frames = vec![PublishedFrame {
            shard: ShardKey(1),
            segment: SegmentNumber(1),
            offset: 64,
            len: 96,
            records: 3,
            first: 1,
            before: 0,
            arrival_ms: 9,
        }];
        let publication = Publication {
            lineage: Uuid([1; 16]),
            checkpoint: 1,
            generation: 1,
            decided_by: Uuid([1; 16]),
        };
        for control in [
            Control::StreamCreated(stream("a", 1)),
            Control::Published {
                job: "j".into(),
                sink: "s".into(),
                publication,
                frames,
            },
            Control::Opened {
                epoch: 1,
                at_ms: 0,
                counter_skip: 10,
            },
            Control::Expired {
                trusted_ms: 77,
                segments: vec![SegmentNumber(1), SegmentNumber(2)],
                floors: vec![(ShardKey(1), 2), (ShardKey(99), 5)],
            },
            Control::StreamCreated(stream("b", 2)),
            Control::Consumer {
                stream: Uuid([1; 16]),
                consumer: consumer("c"),
            },
            Control::Consumer {
                stream: Uuid([1; 16]),
                consumer: consumer("d"),
            },
            Control::ConsumerGone {
                stream: Uuid([1; 16]),
                name: "d".to_owned(),
            },
            Control::Consumer {
                stream: Uuid([2; 16]),
                consumer: consumer("c"),
            },
            split(&stream("a", 1), 3),
            Control::StreamChanged {
                name: StreamName::new("b").unwrap(),
                id: Uuid([9; 16]),
                change: StreamChange {
                    forgotten: vec![ShardKey(2)],
                    ..StreamChange::default()
                },
            },
            Control::AccountChanged(AccountSettings::default().enable(7)),
            Control::StreamDeleted {
                name: StreamName::new("b").unwrap(),
                id: Uuid([2; 16]),
            },
        ] {
            state.apply(&control);
            let once = state.clone();
            state.apply(&control);
            assert_eq!(state, once, "{control:?}");
        }
        assert_eq!(
            state.shards[&ShardKey(1)],
            ShardState {
                last: 3,
                next: 14,
                arrival_ms: 9,
                quarantined: false,
                closed: true,
                floor: 2,
            }
        );
        // Those of the deleted stream went with it.
        let consumers: Vec<_> = state
            .consumers
            .iter()
            .map(|(stream, all)| (stream.0[0], all.len()))
            .collect();
        assert_eq!(consumers, [(1, 1)]);
        let child = ShardState {
            next: 1,
            arrival_ms: 20,
            ..ShardState::default()
        };
        assert_eq!(state.shards[&ShardKey(3)], child);
        assert_eq!(state.shards[&ShardKey(4)], child);
        assert_eq!(state.next_shard, 5);
        assert_eq!(state.open_shards(), 2);
        assert_eq!(state.account.started_ms, Some(7));
        assert_eq!(state.publication("j", "s"), Some(publication));
        let json = serde_json::to_vec(&state).unwrap();
        assert_eq!(serde_json::from_slice::<State>(&json).unwrap(), state);
    }
}
