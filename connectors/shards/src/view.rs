//! What readers and callers see of the store: everything that is durable, nothing else.
//!
//! The writer changes it after each sync; everybody else only reads.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crossbeam_channel::{Receiver, Sender, bounded};
use hashbrown::HashMap;
use tokio::sync::{Notify, watch};

use crate::access::{DurablePosition, ObjectPlace};
use crate::account::AccountSettings;
use crate::capacity::Capacity;
use crate::consumers::{ConsumerMeta, ConsumerView};
use crate::env::Clock;
use crate::error::StoreError;
use crate::hashkey::HashKey;
use crate::ids::{SegmentNumber, ShardId, ShardKey, StreamName, Uuid};
use crate::index::{IndexEntry, ShardIndex};
use crate::retention::{TrustedClock, Usage};
use crate::state::State;
use crate::stream::{ShardMeta, StreamMeta};
use crate::tier::{ObjectKey, TieredObject};

/// A shard and where its records lie.
#[derive(Debug)]
pub(crate) struct ShardView {
    pub(crate) meta: ShardMeta,
    /// Stays when the description changes.
    pub(crate) index: Arc<RwLock<ShardIndex>>,
    /// Wakes who waits for this shard alone: it has new records, was closed or is gone. Stays like the index.
    pub(crate) changed: Arc<Notify>,
}

impl ShardView {
    /// The counter of the first record that can be readable when those before `horizon_ms` are not: the first of the
    /// extent that holds it. Behind all records when none can be.
    pub(crate) fn first_live(&self, horizon_ms: u64) -> u64 {
        let index = read(&self.index);
        index
            .live(0, horizon_ms)
            .next()
            .map_or(index.end(), |entry| entry.first)
    }
}

/// A stream and its shards.
#[derive(Debug)]
pub(crate) struct StreamView {
    pub(crate) meta: StreamMeta,
    /// In the order of their ids.
    pub(crate) shards: Vec<Arc<ShardView>>,
    pub(crate) routes: Routes,
    /// What the stream's tags say of it.
    pub(crate) capacity: Option<Capacity>,
}

/// The open shards of a stream by the start of their range.
#[derive(Debug)]
pub(crate) struct Routes(Vec<(HashKey, ShardKey)>);

impl Routes {
    pub(crate) fn new(meta: &StreamMeta) -> Self {
        let mut routes: Vec<_> = meta
            .open_shards()
            .map(|shard| (shard.hash_range.start, shard.key))
            .collect();
        routes.sort_unstable();
        Self(routes)
    }

    /// The open shard that takes `key`.
    pub(crate) fn shard(&self, key: HashKey) -> ShardKey {
        let at = self.0.partition_point(|(start, _)| *start <= key);
        // The open shards tile the space, so the first starts at zero.
        self.0[at.saturating_sub(1)].1
    }

    /// One open shard after the other.
    pub(crate) fn turn(&self, number: u64) -> ShardKey {
        self.0[(number % self.0.len() as u64) as usize].1
    }
}

impl StreamView {
    fn new(meta: StreamMeta, mut parts: impl FnMut(ShardKey) -> (Arc<RwLock<ShardIndex>>, Arc<Notify>)) -> Self {
        let shards = meta
            .shards
            .iter()
            .map(|shard| {
                let (index, changed) = parts(shard.key);
                Arc::new(ShardView {
                    meta: shard.clone(),
                    index,
                    changed,
                })
            })
            .collect();
        let routes = Routes::new(&meta);
        // Tags are checked when they are set.
        let capacity = Capacity::of_tags(&meta.tags).unwrap_or_default();
        Self {
            meta,
            shards,
            routes,
            capacity,
        }
    }

    /// Wakes who waits for any of its shards.
    fn wake(&self) {
        for shard in &self.shards {
            shard.changed.notify_waiters();
        }
    }

    pub(crate) fn shard(&self, id: ShardId) -> Result<&Arc<ShardView>, StoreError> {
        self.shards
            .binary_search_by_key(&id, |shard| shard.meta.id)
            .map(|at| &self.shards[at])
            .map_err(|_| StoreError::ShardNotFound {
                stream: self.meta.name.clone(),
                shard: id,
            })
    }

    pub(crate) fn shard_by_key(&self, key: ShardKey) -> Option<&Arc<ShardView>> {
        // Keys rise with ids.
        self.shards
            .binary_search_by_key(&key, |shard| shard.meta.key)
            .ok()
            .map(|at| &self.shards[at])
    }
}

/// A change that a group commit made.
#[derive(Debug)]
pub(crate) enum Effect {
    Records(ShardKey, IndexEntry),
    StreamCreated(StreamMeta),
    /// The stream as it is now.
    StreamChanged(Box<StreamMeta>),
    StreamDeleted(StreamName),
    AccountChanged(AccountSettings),
    SegmentStarted(SegmentNumber, Uuid),
    Consumers(Uuid, Vec<ConsumerMeta>),
}

/// Streams, index and durable position.
#[derive(Debug)]
pub(crate) struct View {
    streams: RwLock<BTreeMap<StreamName, Arc<StreamView>>>,
    shards: RwLock<HashMap<ShardKey, (Arc<ShardView>, StreamName)>>,
    segments: RwLock<HashMap<SegmentNumber, Uuid>>,
    consumers: ConsumerView,
    account: RwLock<AccountSettings>,
    durable: watch::Sender<DurablePosition>,
    failure: OnceLock<StoreError>,
    expiry: Mutex<TrustedClock>,
    /// By segment and stream.
    objects: RwLock<BTreeMap<(SegmentNumber, Uuid), TieredObject>>,
    store: Uuid,
    /// Asks the retention thread to look at once.
    wake: (Sender<()>, Receiver<()>),
    pub(crate) usage: Usage,
}

impl View {
    pub(crate) fn new(
        state: &State,
        mut index: HashMap<ShardKey, ShardIndex>,
        segments: impl IntoIterator<Item = (SegmentNumber, Uuid)>,
        expiry: TrustedClock,
    ) -> Self {
        let view = Self {
            streams: RwLock::default(),
            shards: RwLock::default(),
            segments: RwLock::new(segments.into_iter().collect()),
            consumers: ConsumerView::default(),
            account: RwLock::new(state.account),
            durable: watch::Sender::new(DurablePosition(0)),
            failure: OnceLock::new(),
            expiry: Mutex::new(expiry),
            objects: RwLock::default(),
            store: state.store,
            wake: bounded(1),
            usage: Usage::default(),
        };
        for (stream, consumers) in &state.consumers {
            view.consumers.set(*stream, consumers.values().cloned().collect());
        }
        view.tier(&state.tiered);
        for meta in state.streams.values() {
            view.add_stream(StreamView::new(meta.clone(), |key| {
                let index = index.remove(&key).unwrap_or_default();
                (Arc::new(RwLock::new(index)), Arc::default())
            }));
        }
        view
    }

    fn add_stream(&self, stream: StreamView) {
        let mut shards = write(&self.shards);
        for shard in &stream.shards {
            shards.insert(shard.meta.key, (shard.clone(), stream.meta.name.clone()));
        }
        write(&self.streams).insert(stream.meta.name.clone(), Arc::new(stream));
    }

    /// Makes the changes of a synced batch visible, then wakes whoever waits for them.
    pub(crate) fn publish(&self, effects: impl IntoIterator<Item = Effect>, durable: DurablePosition) {
        let mut records: Vec<(ShardKey, IndexEntry)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Records(shard, entry) => records.push((shard, entry)),
                other => {
                    self.push_records(&mut records);
                    match other {
                        Effect::StreamCreated(meta) => {
                            self.add_stream(StreamView::new(meta, |_| Default::default()));
                        }
                        Effect::StreamChanged(meta) => self.change_stream(*meta),
                        Effect::AccountChanged(settings) => *write(&self.account) = settings,
                        Effect::StreamDeleted(name) => {
                            if let Some(stream) = write(&self.streams).remove(&name) {
                                let mut shards = write(&self.shards);
                                for shard in &stream.shards {
                                    shards.remove(&shard.meta.key);
                                }
                                drop(shards);
                                self.consumers.set(stream.meta.id, Vec::new());
                                stream.wake();
                            }
                        }
                        Effect::SegmentStarted(number, uuid) => {
                            write(&self.segments).insert(number, uuid);
                        }
                        Effect::Consumers(id, consumers) => {
                            self.consumers.set(id, consumers);
                            if let Some(stream) = self.streams().iter().find(|stream| stream.meta.id == id) {
                                stream.wake();
                            }
                        }
                        Effect::Records(..) => {}
                    }
                }
            }
        }
        self.push_records(&mut records);
        self.durable.send_replace(durable);
    }

    /// Replaces the description of a stream. The records of its shards stay where they are; whoever still holds the old
    /// description sees them too.
    fn change_stream(&self, meta: StreamMeta) {
        let Ok(old) = self.stream(&meta.name) else { return };
        let stream = StreamView::new(meta, |key| {
            old.shard_by_key(key)
                .map(|shard| (shard.index.clone(), shard.changed.clone()))
                .unwrap_or_default()
        });
        let mut shards = write(&self.shards);
        for forgotten in old
            .shards
            .iter()
            .filter(|shard| stream.shard_by_key(shard.meta.key).is_none())
        {
            shards.remove(&forgotten.meta.key);
        }
        drop(shards);
        self.add_stream(stream);
        old.wake();
    }

    fn push_records(&self, records: &mut Vec<(ShardKey, IndexEntry)>) {
        if records.is_empty() {
            return;
        }
        let shards = read(&self.shards);
        for (shard, entry) in records.drain(..) {
            if let Some((shard, _)) = shards.get(&shard) {
                write(&shard.index).push(entry);
                shard.changed.notify_waiters();
            }
        }
    }

    pub(crate) fn stream(&self, name: &StreamName) -> Result<Arc<StreamView>, StoreError> {
        read(&self.streams)
            .get(name)
            .cloned()
            .ok_or_else(|| StoreError::StreamNotFound(name.clone()))
    }

    pub(crate) fn streams(&self) -> Vec<Arc<StreamView>> {
        read(&self.streams).values().cloned().collect()
    }

    /// The stream that a shard belongs to.
    pub(crate) fn stream_of(&self, shard: ShardKey) -> Option<StreamName> {
        read(&self.shards).get(&shard).map(|(_, stream)| stream.clone())
    }

    /// The consumers of all streams.
    pub(crate) fn consumers(&self) -> &ConsumerView {
        &self.consumers
    }

    /// A shard, whatever stream it belongs to.
    pub(crate) fn shard(&self, key: ShardKey) -> Option<Arc<ShardView>> {
        read(&self.shards).get(&key).map(|(shard, _)| shard.clone())
    }

    pub(crate) fn account(&self) -> AccountSettings {
        *read(&self.account)
    }

    pub(crate) fn segment(&self, number: SegmentNumber) -> Option<Uuid> {
        read(&self.segments).get(&number).copied()
    }

    /// Forgets a segment whose file is about to go.
    pub(crate) fn forget_segment(&self, number: SegmentNumber) {
        write(&self.segments).remove(&number);
    }

    /// Takes note of objects that hold records.
    pub(crate) fn tier(&self, tiered: &[TieredObject]) {
        let mut objects = write(&self.objects);
        for object in tiered {
            objects.insert((object.key.segment, object.key.stream), *object);
        }
    }

    /// Forgets objects.
    pub(crate) fn untier(&self, keys: &[ObjectKey]) {
        let mut objects = write(&self.objects);
        for key in keys {
            objects.remove(&(key.segment, key.stream));
        }
    }

    /// The object that holds a stream's records of a segment.
    pub(crate) fn object(&self, segment: SegmentNumber, stream: Uuid) -> Option<ObjectPlace> {
        let objects = read(&self.objects);
        objects.get(&(segment, stream)).map(|object| ObjectPlace {
            name: object.key.name(self.store),
            bytes: object.bytes,
            directory_bytes: object.directory_bytes,
            directory_crc: object.directory_crc,
        })
    }

    /// Whether an object of this name holds records of a segment.
    pub(crate) fn has_object(&self, segment: SegmentNumber, name: &str) -> bool {
        let objects = read(&self.objects);
        let (first, last) = ((segment, Uuid([0; 16])), (segment, Uuid([u8::MAX; 16])));
        objects
            .range(first..=last)
            .any(|(_, object)| object.key.name(self.store) == name)
    }

    /// Asks the retention thread to look at once.
    pub(crate) fn wake_keeper(&self) {
        // It has been asked already.
        let _ = self.wake.0.try_send(());
    }

    /// Where the retention thread hears that it is needed.
    pub(crate) fn woken(&self) -> &Receiver<()> {
        &self.wake.1
    }

    /// The time that expiry trusts.
    pub(crate) fn trusted_ms(&self, clock: &dyn Clock) -> u64 {
        let mut expiry = self.expiry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let was_in_doubt = expiry.in_doubt();
        let trusted = expiry.now(clock.now_ms(), clock.monotonic_ms());
        if expiry.in_doubt() != was_in_doubt {
            self.usage.clock_in_doubt.store(expiry.in_doubt(), Ordering::Relaxed);
            if expiry.in_doubt() {
                tracing::warn!(
                    wall_ms = clock.now_ms(),
                    trusted_ms = trusted,
                    "the wall clock is more than an hour ahead of what was expected: records do not expire by it until it \
                     has stayed there for a while; if it is wrong, set it right before that"
                );
            } else {
                tracing::info!(trusted_ms = trusted, "records expire by the wall clock again");
            }
        }
        trusted
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<DurablePosition> {
        self.durable.subscribe()
    }

    /// Remembers why nothing more is acknowledged.
    pub(crate) fn fail(&self, error: StoreError) {
        let _ = self.failure.set(error);
    }

    pub(crate) fn failure(&self) -> Option<&StoreError> {
        self.failure.get()
    }
}

// The lock is never held over code that can panic half-way through a change, so a poisoned lock is still sound.
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
