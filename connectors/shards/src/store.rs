//! [`ShardStore`]: the store as Rust code uses it.
//!
//! | file | |
//! |---|---|
//! | `options.rs` | [`StoreOptions`] |
//! | `put.rs` | checking, routing and queueing records |
//! | `control.rs` | creating, changing, deleting and describing streams |
//! | `sink.rs` | stage and publish |
//! | `restage.rs` | staged records of shards that were closed before their publish |
//! | `retention.rs` | looking for what has expired; use of the disk |
//! | `read.rs` | from a starting point to extents |
//! | `consumers.rs` | registered consumers |
//! | `throughput.rs` | limits per shard and second, and scaling by them |

mod consumers;
mod control;
mod options;
mod put;
mod read;
mod restage;
mod retention;
mod sink;
mod throughput;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use options::StoreOptions;

use crate::access::{
    DurablePosition, Located, Position, PublishOutcome, PublishRequest, PutEntry, PutResult, ReadBatch, ReadFrom,
    ReadLimits, ShardAccess, ShardRef, StageRequest, StagedRef,
};
use crate::capacity::Throughput;
use crate::env::{Entropy, Environment, RealDisk, SystemClock, SystemEntropy};
use crate::error::{Corruption, StoreError};
use crate::ids::{SegmentNumber, ShardId, ShardKey, StreamName};
use crate::limits;
use crate::log::housekeeping::Housekeeping;
use crate::log::recovery::recover;
use crate::log::writer::{Command, Queued, Writer, WriterOptions};
use crate::reader::SegmentReader;
use crate::stream::{CreateStream, StreamMeta};
use crate::tier::ObjectTier;
use crate::view::View;

/// Bytes of the queue that one permit of its semaphore stands for.
const PERMIT_BYTES: usize = 1 << 10;
/// Permits that a command takes at least, so that there are no more than [`limits::QUEUE_COMMANDS_MAX`].
const COMMAND_PERMITS_MIN: usize = limits::QUEUE_BYTES_MAX / limits::QUEUE_COMMANDS_MAX / PERMIT_BYTES;

/// A durable store of streams of shards. Clones share it; the last one to go waits for the writer to finish.
///
/// # Examples
/// ```
/// use tidemill_shards::{CreateStream, PutEntry, ReadFrom, ReadLimits, ShardId, ShardRef, ShardStore, StoreOptions, StreamName};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let directory = tempfile::tempdir()?;
/// let store = ShardStore::open(directory.path(), StoreOptions { segment_bytes: 1 << 20, ..StoreOptions::default() })?;
/// let stream = StreamName::new("clicks")?;
/// store.create_stream(CreateStream::provisioned(stream.clone(), 1)).await?;
///
/// let entry = PutEntry { partition_key: "user-7".into(), explicit_hash_key: None, data: "hello".into() };
/// let receipts = store.put_records(&stream, vec![entry]).await?;
/// println!("stored as {}", receipts[0].as_ref().unwrap().sequence);
///
/// let shard = ShardRef::new(stream, ShardId(0));
/// let from = store.resolve(&shard, ReadFrom::TrimHorizon)?;
/// let batch = store.read(&shard, from, ReadLimits { records_max: 100, bytes_max: 1 << 20 })?;
/// assert_eq!(&batch.records[0].data[..], b"hello");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct ShardStore(Arc<Inner>);

struct Inner {
    options: StoreOptions,
    environment: Environment,
    view: Arc<View>,
    reader: SegmentReader,
    tier: Option<Arc<dyn ObjectTier>>,
    /// Held while a round of tiering runs; segments that it leaves alone.
    tiering: Arc<Mutex<HashSet<SegmentNumber>>>,
    secret: [u8; 32],
    damage: Vec<Corruption>,
    /// Streams with the service's limits only.
    throughput: Mutex<Throughput>,
    /// Counts records that are spread over all shards.
    turns: AtomicU64,
    /// Bounds the bytes that wait for the writer.
    room: Arc<Semaphore>,
    /// `None` once the store is being dropped.
    queue: Option<mpsc::UnboundedSender<Queued>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Looks for what has expired, every now and then; ends first.
    keeper: Option<retention::Keeper>,
}

impl std::fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardStore")
            .field("environment", &self.0.environment)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.keeper.take());
        self.queue = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's writer thread panicked");
        }
    }
}

impl ShardStore {
    /// Opens the store in `directory`, creates it when there is none, and recovers what the log holds. Blocks for the
    /// disk.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it open; [`StoreError::Corrupt`] when metadata is damaged;
    /// [`StoreError::NewerFormat`]; [`StoreError::Io`].
    pub fn open(directory: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let disk = Arc::new(RealDisk::open_exclusive(directory)?);
        let environment = Environment {
            disk,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        };
        Self::open_tiered(environment, options, None)
    }

    /// Opens the store in `directory` as [`Self::open`] does; sealed segments move to `tier`.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::TierUnavailable`] when a local index of tiered records is lost and cannot be
    /// read from the objects now.
    pub fn open_with_tier(
        directory: &Path,
        options: StoreOptions,
        tier: Arc<dyn ObjectTier>,
    ) -> Result<Self, StoreError> {
        let environment = Environment {
            disk: Arc::new(RealDisk::open_exclusive(directory)?),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        };
        Self::open_tiered(environment, options, Some(tier))
    }

    /// Opens the store in surroundings of the caller's: a disk in memory, a clock that a test sets.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(environment: Environment, options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_tiered(environment, options, None)
    }

    /// Opens the store in surroundings of the caller's, with or without a tier. Records that were tiered before cannot
    /// be read without it.
    ///
    /// # Errors
    /// As [`Self::open_with_tier`].
    pub fn open_tiered(
        environment: Environment,
        options: StoreOptions,
        tier: Option<Arc<dyn ObjectTier>>,
    ) -> Result<Self, StoreError> {
        options.check()?;
        let mut recovered = recover(&environment, tier.as_deref())?;
        let damage = std::mem::take(&mut recovered.damage);
        let writer_options = WriterOptions {
            segment_bytes: options.segment_bytes,
            housekeeping: options.housekeeping,
            region: options.region.clone(),
            account: options.account.clone(),
            shards_max: options.shards_max,
            lifecycle_delay_ms: options.lifecycle_delay_ms,
            tiered: tier.is_some(),
            retention: options.retention.clone(),
        };
        let (writer, view) = Writer::open(environment.clone(), writer_options, recovered)?;
        let secret = writer.secret();
        let now_ms = environment.clock.now_ms();
        // Bounded by its room, in bytes and in commands.
        let (queue, commands) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(limits::QUEUE_BYTES_MAX / PERMIT_BYTES));
        let thread = writer.spawn(commands, Arc::clone(&room))?;
        let tiering = Arc::new(Mutex::default());
        let work = |tier: &Arc<dyn ObjectTier>| retention::TierWork {
            environment: environment.clone(),
            view: Arc::clone(&view),
            tier: Arc::clone(tier),
            local_retention_ms: options.retention.local_retention_ms,
            damaged: Arc::clone(&tiering),
        };
        let keeper = match options.housekeeping {
            Housekeeping::Inline => None,
            Housekeeping::Background => Some(retention::Keeper::start(
                queue.downgrade(),
                options.retention.check_interval_ms,
                Arc::clone(&view),
                tier.as_ref().map(work),
            )?),
        };
        let reader = SegmentReader::on(environment.disk.clone());
        let reader = match &tier {
            Some(tier) => reader.with_tier(Arc::clone(tier)),
            None => reader,
        };
        Ok(Self(Arc::new(Inner {
            reader,
            tier,
            tiering,
            options,
            environment,
            view,
            secret,
            damage,
            throughput: Mutex::new(Throughput::new(now_ms)),
            turns: AtomicU64::new(0),
            room,
            queue: Some(queue),
            thread: Mutex::new(Some(thread)),
            keeper,
        })))
    }

    /// The log's directory, for a [`SegmentReader`]; `None` when it is not on a real disk.
    pub fn directory(&self) -> Option<PathBuf> {
        self.0.environment.disk.path()
    }

    /// The options it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.0.options
    }

    /// Damage that recovery found. The shards named there can be read around it and take no more records.
    pub fn damage(&self) -> &[Corruption] {
        &self.0.damage
    }

    /// Why the store does not acknowledge any more; `None` while it is sound.
    pub fn failure(&self) -> Option<StoreError> {
        self.0.view.failure().cloned()
    }

    /// Follows the durable position.
    pub fn subscribe(&self) -> watch::Receiver<DurablePosition> {
        self.0.view.subscribe()
    }

    /// The store's clock, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.0.environment.clock.now_ms()
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0.secret
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &*self.0.environment.entropy
    }

    pub(crate) fn view(&self) -> &View {
        &self.0.view
    }

    /// The shard that a position belongs to.
    pub(crate) fn shard_of(&self, key: ShardKey) -> Option<ShardRef> {
        let stream = self.0.view.stream_of(key)?;
        let view = self.stream(&stream).ok()?;
        let shard: ShardId = view.shard_by_key(key)?.meta.id;
        Some(ShardRef { stream, shard })
    }

    /// Queues a command that takes up to `bytes` in the log, and waits for its answer.
    async fn ask<T>(
        &self,
        bytes: usize,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(bytes, command(reply)).await?;
        self.answer(answer).await
    }

    async fn send(&self, bytes: usize, command: Command) -> Result<(), StoreError> {
        let Some(queue) = &self.0.queue else {
            return Err(StoreError::Closed);
        };
        let permits =
            (bytes / PERMIT_BYTES + 1).clamp(COMMAND_PERMITS_MIN, limits::QUEUE_BYTES_MAX / PERMIT_BYTES) as u32;
        let room = match self.0.room.try_acquire_many(permits) {
            Ok(room) => room,
            // Apart, because hardly any request waits: it keeps the futures of all others small.
            Err(_) => Box::pin(self.0.room.acquire_many(permits))
                .await
                .map_err(|_| self.gone())?,
        };
        let queued = Queued {
            command,
            bytes,
            permits,
        };
        queue.send(queued).map_err(|_| self.gone())?;
        // The writer gives it back.
        room.forget();
        Ok(())
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why the writer does not answer.
    fn gone(&self) -> StoreError {
        self.failure().unwrap_or(StoreError::Closed)
    }
}

#[async_trait]
impl ShardAccess for ShardStore {
    async fn create_stream(&self, request: CreateStream) -> Result<StreamMeta, StoreError> {
        Self::create_stream(self, request).await
    }

    async fn describe_stream(&self, stream: &StreamName) -> Result<StreamMeta, StoreError> {
        Self::describe_stream(self, stream)
    }

    async fn resolve(&self, shard: &ShardRef, from: ReadFrom) -> Result<Position, StoreError> {
        let (store, shard) = (self.clone(), shard.clone());
        blocking(move || Self::resolve(&store, &shard, from)).await
    }

    async fn locate(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<Located, StoreError> {
        Self::locate(self, shard, from, limits)
    }

    async fn read(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<ReadBatch, StoreError> {
        let located = Self::locate(self, shard, from, limits)?;
        if located.extents.is_empty() {
            return self.0.reader.read(&located, limits);
        }
        let (store, shard) = (self.clone(), shard.clone());
        blocking(move || Self::read(&store, &shard, from, limits)).await
    }

    async fn put_records(&self, stream: &StreamName, entries: Vec<PutEntry>) -> Result<Vec<PutResult>, StoreError> {
        Self::put_records(self, stream, entries).await
    }

    async fn stage(&self, request: StageRequest) -> Result<StagedRef, StoreError> {
        Self::stage(self, request).await
    }

    async fn publish(&self, request: PublishRequest) -> Result<PublishOutcome, StoreError> {
        Self::publish(self, request).await
    }

    async fn forget_job(&self, job: &str) -> Result<(), StoreError> {
        Self::forget_job(self, job).await
    }

    fn subscribe(&self) -> watch::Receiver<DurablePosition> {
        Self::subscribe(self)
    }
}

/// Runs what may wait for the disk where it does not hold up other tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(StoreError::Closed))
}
