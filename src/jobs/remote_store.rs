//! The job's side of the store protocol: a [`ShardAccess`] whose calls travel to the server.
//!
//! Records do not travel: [`ShardAccess::read`] asks the server where they lie and reads the segment files itself. When
//! that fails (the file went in between, say) it asks the server to read, whose answer is what counts.

use super::protocol::message::{RequestId, ToServer};
use super::protocol::store::{StoreCall, StoreReply};
use async_trait::async_trait;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidemill_shards::{
    CreateStream, DurablePosition, Located, Position, PublishOutcome, PublishRequest, PutEntry, PutResult, ReadBatch,
    ReadFrom, ReadLimits, SegmentReader, ShardAccess, ShardRef, StageRequest, StagedRef, StoreError, StreamMeta,
    StreamName,
};
use tokio::sync::{oneshot, watch};

/// Sends messages to the server, in order; false when the connection is gone.
pub(crate) type Outbox = Arc<dyn Fn(&ToServer) -> Result<(), StoreError> + Send + Sync>;

/// The store of the server, from a job's process.
pub(crate) struct RemoteStore {
    outbox: Outbox,
    calls: Mutex<Calls>,
    durable: watch::Sender<DurablePosition>,
    segments: Arc<SegmentReader>,
}

#[derive(Default)]
struct Calls {
    next: u64,
    waiting: HashMap<RequestId, oneshot::Sender<StoreReply>>,
}

impl RemoteStore {
    /// Connects to the store whose segments lie in `directory`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn new(outbox: Outbox, directory: &Path) -> Result<Self, StoreError> {
        let segments = Arc::new(SegmentReader::open(directory)?);
        Ok(Self {
            outbox,
            calls: Mutex::default(),
            durable: watch::Sender::new(DurablePosition(0)),
            segments,
        })
    }

    /// Takes the server's answer to a call.
    pub(crate) fn reply(&self, id: RequestId, reply: StoreReply) {
        // A caller that gave up has dropped its end; its answer is of no use to anybody.
        if let Some(waiting) = self.lock().waiting.remove(&id) {
            let _ = waiting.send(reply);
        }
    }

    /// Takes news of the durable position.
    pub(crate) fn durable(&self, position: DurablePosition) {
        self.durable.send_replace(position);
    }

    /// Sends a call; the message is queued before this returns its future, which keeps the order of calls.
    fn call(&self, call: StoreCall) -> impl Future<Output = Result<StoreReply, StoreError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let mut calls = self.lock();
        let id = RequestId(calls.next);
        calls.next += 1;
        calls.waiting.insert(id, reply);
        // Under the lock, so that ids rise in the order of sending.
        let sent = (self.outbox)(&ToServer::Store(id, call));
        if sent.is_err() {
            calls.waiting.remove(&id);
        }
        async move {
            sent?;
            match answer.await {
                Ok(StoreReply::Error(error)) => Err(error),
                Ok(reply) => Ok(reply),
                Err(_) => Err(StoreError::Closed),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unexpected<T>(reply: &StoreReply) -> Result<T, StoreError> {
    let text = format!("{reply:?}");
    let variant: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
    Err(StoreError::Invalid(format!(
        "the server answered another call than was made, with {variant}; please report it"
    )))
}

/// Waits for a reply and takes it out of its variant.
macro_rules! expect {
    ($call:expr, $variant:ident) => {
        match $call.await? {
            StoreReply::$variant(value) => Ok(value),
            other => unexpected(&other),
        }
    };
}

#[async_trait]
impl ShardAccess for RemoteStore {
    async fn create_stream(&self, request: CreateStream) -> Result<StreamMeta, StoreError> {
        expect!(self.call(StoreCall::CreateStream(request)), Stream)
    }

    async fn describe_stream(&self, stream: &StreamName) -> Result<StreamMeta, StoreError> {
        expect!(self.call(StoreCall::Describe(stream.clone())), Stream)
    }

    async fn resolve(&self, shard: &ShardRef, from: ReadFrom) -> Result<Position, StoreError> {
        expect!(self.call(StoreCall::Resolve(shard.clone(), from)), Position)
    }

    async fn locate(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<Located, StoreError> {
        expect!(self.call(StoreCall::Locate(shard.clone(), from, limits)), Located)
    }

    async fn read(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<ReadBatch, StoreError> {
        let located = self.locate(shard, from, limits).await?;
        let segments = Arc::clone(&self.segments);
        let read = tokio::task::spawn_blocking(move || segments.read(&located, limits)).await;
        match read {
            Ok(Ok(batch)) => Ok(batch),
            Ok(Err(_)) | Err(_) => expect!(self.call(StoreCall::Read(shard.clone(), from, limits)), Batch),
        }
    }

    async fn put_records(&self, stream: &StreamName, entries: Vec<PutEntry>) -> Result<Vec<PutResult>, StoreError> {
        expect!(self.call(StoreCall::Put(stream.clone(), entries)), Receipts)
    }

    async fn stage(&self, request: StageRequest) -> Result<StagedRef, StoreError> {
        expect!(self.call(StoreCall::Stage(request)), Staged)
    }

    async fn publish(&self, request: PublishRequest) -> Result<PublishOutcome, StoreError> {
        expect!(self.call(StoreCall::Publish(request)), Published)
    }

    async fn forget_job(&self, job: &str) -> Result<(), StoreError> {
        match self.call(StoreCall::ForgetJob(job.to_owned())).await? {
            StoreReply::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    fn subscribe(&self) -> watch::Receiver<DurablePosition> {
        self.durable.subscribe()
    }
}
