//! The server's side of the store protocol: performs a job's calls on the store that the server owns.

use super::protocol::frame;
use super::protocol::message::{RequestId, TO_WORKER, ToWorker};
use super::protocol::store::{StoreCall, StoreEvent, StoreReply};
use futures::FutureExt as _;
use std::sync::Arc;
use std::time::Duration;
use tidemill_shards::{SharedAccess, StoreError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Calls of one job in flight; the socket is not read beyond.
const CALLS_IN_FLIGHT_MAX: usize = 512;
/// The least time between two news of the durable position: a busy log commits thousands of times a second, and a reader
/// needs to know only that there is more.
const DURABLE_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Makes a session for each job process.
#[derive(Clone)]
pub(crate) struct StoreService {
    store: SharedAccess,
    directory: String,
}

impl StoreService {
    /// Serves a store whose segments lie in `directory`.
    pub(crate) fn new(store: SharedAccess, directory: String) -> Self {
        Self { store, directory }
    }

    /// Returns the directory of the segments.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// Returns the store.
    pub(crate) fn store(&self) -> &SharedAccess {
        &self.store
    }

    /// Begins to serve a process of the job `job`; its replies go to `frames`.
    pub(crate) fn session(&self, job: String, frames: mpsc::Sender<Vec<u8>>) -> StoreSession {
        let mut durable = self.store.subscribe();
        let news = frames.clone();
        let follower = tokio::spawn(async move {
            loop {
                let position = *durable.borrow_and_update();
                if !send(&news, &ToWorker::StoreEvent(StoreEvent::Durable(position))).await
                    || durable.changed().await.is_err()
                {
                    break;
                }
                tokio::time::sleep(DURABLE_INTERVAL_MIN).await;
            }
        });
        let in_flight = Arc::new(Semaphore::new(CALLS_IN_FLIGHT_MAX));
        StoreSession {
            store: Arc::clone(&self.store),
            job,
            frames,
            in_flight,
            follower,
        }
    }
}

/// Serves one job process. Ends when it is dropped; calls in flight are performed to their end.
pub(crate) struct StoreSession {
    store: SharedAccess,
    job: String,
    frames: mpsc::Sender<Vec<u8>>,
    in_flight: Arc<Semaphore>,
    follower: JoinHandle<()>,
}

impl StoreSession {
    /// Performs a call; returns when it has begun.
    pub(crate) async fn handle(&self, id: RequestId, call: StoreCall) {
        let Ok(permit) = Arc::clone(&self.in_flight).acquire_owned().await else {
            return;
        };
        let frames = self.frames.clone();
        let mut work = Box::pin(perform(Arc::clone(&self.store), self.job.clone(), call));
        // The first poll hands the call to the log, here and now: this keeps the order of a job's calls.
        let first = work.as_mut().now_or_never();
        tokio::spawn(async move {
            let reply = match first {
                Some(reply) => reply,
                None => work.await,
            };
            send(&frames, &ToWorker::StoreReply(id, reply)).await;
            drop(permit);
        });
    }
}

impl Drop for StoreSession {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

async fn send(frames: &mpsc::Sender<Vec<u8>>, message: &ToWorker) -> bool {
    let bytes = match (frame::encode(TO_WORKER, message), message) {
        (Ok(bytes), _) => Some(bytes),
        // A reply that is too large must not leave its caller waiting for ever.
        (Err(error), ToWorker::StoreReply(id, _)) => {
            let error = StoreError::Limit(format!("the answer does not fit: {error}"));
            frame::encode(TO_WORKER, &ToWorker::StoreReply(*id, StoreReply::Error(error))).ok()
        }
        (Err(_), _) => None,
    };
    match bytes {
        Some(bytes) => frames.send(bytes).await.is_ok(),
        None => false,
    }
}

async fn perform(store: SharedAccess, job: String, call: StoreCall) -> StoreReply {
    try_perform(&store, &job, call).await.unwrap_or_else(StoreReply::Error)
}

async fn try_perform(store: &SharedAccess, job: &str, call: StoreCall) -> Result<StoreReply, StoreError> {
    // A job may only stage and publish as itself: that is what fences it.
    let own = |named: &str| {
        if named == job {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "job {job} cannot stage, publish or forget output of job {named}"
        )))
    };
    Ok(match call {
        StoreCall::CreateStream(request) => StoreReply::Stream(store.create_stream(request).await?),
        StoreCall::Describe(stream) => StoreReply::Stream(store.describe_stream(&stream).await?),
        StoreCall::Resolve(shard, from) => StoreReply::Position(store.resolve(&shard, from).await?),
        StoreCall::Locate(shard, from, limits) => StoreReply::Located(store.locate(&shard, from, limits).await?),
        StoreCall::Read(shard, from, limits) => StoreReply::Batch(store.read(&shard, from, limits).await?),
        StoreCall::Put(stream, entries) => StoreReply::Receipts(store.put_records(&stream, entries).await?),
        StoreCall::Stage(request) => {
            own(&request.job)?;
            StoreReply::Staged(store.stage(request).await?)
        }
        StoreCall::Publish(request) => {
            own(&request.job)?;
            StoreReply::Published(store.publish(request).await?)
        }
        StoreCall::ForgetJob(named) => {
            own(&named)?;
            store.forget_job(&named).await?;
            StoreReply::Done
        }
    })
}
