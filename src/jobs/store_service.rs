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
            send(&frames, &ToWorker::StoreReply(id, Box::new(reply))).await;
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
            frame::encode(
                TO_WORKER,
                &ToWorker::StoreReply(*id, Box::new(StoreReply::Error(error))),
            )
            .ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::protocol::message::{TO_SERVER, ToServer};
    use crate::jobs::remote_store::RemoteStore;
    use tidemill_shards::{
        CreateStream, PublishOutcome, PublishRequest, PutEntry, ReadFrom, ReadLimits, ShardAccess, ShardId, ShardRef,
        ShardStore, StageRequest, StoreOptions, StreamName, Uuid,
    };

    const LINEAGE: Uuid = Uuid([1; 16]);
    const DECIDER: Uuid = Uuid([2; 16]);
    const ALL: ReadLimits = ReadLimits {
        records_max: 1_000,
        bytes_max: 1 << 20,
    };

    /// A store, and a client of it whose every message crosses the codec.
    fn connected(directory: &std::path::Path, job: &str) -> (ShardStore, Arc<RemoteStore>) {
        let options = StoreOptions {
            segment_bytes: 1 << 20,
            ..StoreOptions::default()
        };
        let store = ShardStore::open(directory, options).unwrap();
        let remote = serve(&store, directory, job);
        (store, remote)
    }

    /// A client of a store.
    fn serve(store: &ShardStore, directory: &std::path::Path, job: &str) -> Arc<RemoteStore> {
        let service = StoreService::new(Arc::new(store.clone()), directory.display().to_string());
        let (frames, mut to_worker) = mpsc::channel(8);
        let (outbox, mut to_server) = mpsc::unbounded_channel::<Vec<u8>>();
        let session = service.session(job.to_owned(), frames);
        let send = move |message: &ToServer| {
            let _ = outbox.send(frame::encode(TO_SERVER, message).unwrap());
            Ok(())
        };
        let remote = Arc::new(RemoteStore::new(Arc::new(send), directory).unwrap());
        tokio::spawn(async move {
            while let Some(bytes) = to_server.recv().await {
                match frame::read::<ToServer>(&mut bytes.as_slice(), TO_SERVER).await.unwrap() {
                    ToServer::Store(id, call) => session.handle(id, call).await,
                    other => panic!("not a store call: {other:?}"),
                }
            }
        });
        let receiver = Arc::clone(&remote);
        tokio::spawn(async move {
            while let Some(bytes) = to_worker.recv().await {
                match frame::read::<ToWorker>(&mut bytes.as_slice(), TO_WORKER).await.unwrap() {
                    ToWorker::StoreReply(id, reply) => receiver.reply(id, *reply),
                    ToWorker::StoreEvent(StoreEvent::Durable(position)) => receiver.durable(position),
                    other => panic!("not about the store: {other:?}"),
                }
            }
        });
        remote
    }

    fn entry(text: &str) -> PutEntry {
        PutEntry {
            partition_key: "k".into(),
            explicit_hash_key: None,
            data: text.to_owned().into(),
        }
    }

    async fn texts(store: &dyn ShardAccess, stream: &StreamName) -> Vec<String> {
        let shard = ShardRef::new(stream.clone(), ShardId(0));
        let from = store.resolve(&shard, ReadFrom::TrimHorizon).await.unwrap();
        let batch = store.read(&shard, from, ALL).await.unwrap();
        batch
            .records
            .iter()
            .map(|record| String::from_utf8(record.data.to_vec()).unwrap())
            .collect()
    }

    fn stage(job: &str, stream: &StreamName) -> StageRequest {
        let (job, sink, entries) = (job.to_owned(), "s".to_owned(), vec![entry("staged")]);
        StageRequest {
            job,
            sink,
            stream: stream.clone(),
            lineage: LINEAGE,
            checkpoint: 1,
            attempt: 1,
            worker: 0,
            entries,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_reads_what_has_moved_to_objects_through_the_server() {
        let (directory, objects) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let url = url::Url::from_file_path(objects.path()).unwrap();
        let tier = || crate::object_tier::open(url.as_str()).unwrap();
        let options = StoreOptions {
            segment_bytes: 64 << 10,
            retention: tidemill_shards::RetentionOptions {
                local_retention_ms: 0,
                ..tidemill_shards::RetentionOptions::default()
            },
            ..StoreOptions::default()
        };
        let store = ShardStore::open_with_tier(directory.path(), options.clone(), tier()).unwrap();
        let stream = StreamName::new("s").unwrap();
        store
            .create_stream(CreateStream::provisioned(stream.clone(), 1))
            .await
            .unwrap();
        let mut expected = Vec::new();
        for number in 0..300 {
            expected.push(format!("{number} {:01000}", 0));
            store
                .put_records(&stream, vec![entry(&expected[number])])
                .await
                .unwrap();
        }
        // The index of a sealed segment is written behind the writer's back; it is there at the latest after a restart.
        drop(store);
        let store = ShardStore::open_with_tier(directory.path(), options, tier()).unwrap();
        store.tier().await.unwrap();
        let usage = store.usage();
        assert!(usage.tiered_objects >= 3, "{usage:?}");
        let remote = serve(&store, directory.path(), "job");
        for client in [&store as &dyn ShardAccess, &*remote] {
            let shard = ShardRef::new(stream.clone(), ShardId(0));
            let mut from = client.resolve(&shard, ReadFrom::TrimHorizon).await.unwrap();
            let mut found = Vec::new();
            loop {
                let batch = client.read(&shard, from, ALL).await.unwrap();
                if batch.records.is_empty() {
                    break;
                }
                from = batch.next;
                found.extend(
                    batch
                        .records
                        .iter()
                        .map(|r| String::from_utf8(r.data.to_vec()).unwrap()),
                );
            }
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn every_call_does_over_the_socket_what_it_does_without() {
        let directory = tempfile::tempdir().unwrap();
        let (store, remote) = connected(directory.path(), "j");
        let stream = StreamName::new("a").unwrap();
        let created = remote
            .create_stream(CreateStream::provisioned(stream.clone(), 1))
            .await
            .unwrap();
        assert_eq!(remote.describe_stream(&stream).await.unwrap(), created);
        assert_eq!(remote.list_shards(&stream).await.unwrap(), created.shards);
        let mut durable = remote.subscribe();
        durable.borrow_and_update();
        let receipts = remote
            .put_records(&stream, vec![entry("one"), entry("two")])
            .await
            .unwrap();
        assert!(receipts.iter().all(Result::is_ok));
        durable.changed().await.unwrap();
        assert_eq!(texts(remote.as_ref(), &stream).await, ["one", "two"]);

        let staged = remote.stage(stage("j", &stream)).await.unwrap();
        assert_eq!(texts(remote.as_ref(), &stream).await.len(), 2);
        let publish = PublishRequest {
            job: "j".into(),
            sink: "s".into(),
            lineage: LINEAGE,
            checkpoint: 1,
            generation: 1,
            decided_by: DECIDER,
            staged: vec![staged],
        };
        assert_eq!(
            remote.publish(publish.clone()).await.unwrap(),
            PublishOutcome::Published { records: 1 }
        );
        assert_eq!(remote.publish(publish).await.unwrap(), PublishOutcome::Replayed);
        assert_eq!(texts(remote.as_ref(), &stream).await, ["one", "two", "staged"]);
        assert_eq!(texts(&store, &stream).await, ["one", "two", "staged"]);
        remote.forget_job("j").await.unwrap();
    }

    #[tokio::test]
    async fn errors_of_the_store_come_back_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let (_store, remote) = connected(directory.path(), "j");
        let missing = StreamName::new("missing").unwrap();
        assert_eq!(
            remote.describe_stream(&missing).await,
            Err(StoreError::StreamNotFound(missing))
        );
    }

    #[tokio::test]
    async fn a_job_cannot_write_as_another() {
        let directory = tempfile::tempdir().unwrap();
        let (_store, remote) = connected(directory.path(), "j");
        let stream = StreamName::new("a").unwrap();
        remote
            .create_stream(CreateStream::provisioned(stream.clone(), 1))
            .await
            .unwrap();
        let publish = PublishRequest {
            job: "k".into(),
            sink: "s".into(),
            lineage: LINEAGE,
            checkpoint: 1,
            generation: 9,
            decided_by: DECIDER,
            staged: vec![],
        };
        assert!(matches!(
            remote.stage(stage("k", &stream)).await,
            Err(StoreError::Invalid(_))
        ));
        assert!(matches!(remote.publish(publish).await, Err(StoreError::Invalid(_))));
        assert!(matches!(remote.forget_job("k").await, Err(StoreError::Invalid(_))));
    }

    #[tokio::test]
    async fn puts_keep_the_order_in_which_they_were_sent() {
        let directory = tempfile::tempdir().unwrap();
        let (_store, remote) = connected(directory.path(), "j");
        let stream = StreamName::new("a").unwrap();
        remote
            .create_stream(CreateStream::provisioned(stream.clone(), 1))
            .await
            .unwrap();
        let expected: Vec<String> = (0..300).map(|i| i.to_string()).collect();
        // All in flight at once; each future sends its call when it is first polled, in this order.
        let puts = expected
            .iter()
            .map(|text| remote.put_records(&stream, vec![entry(text)]));
        futures::future::join_all(puts).await;
        assert_eq!(texts(remote.as_ref(), &stream).await, expected);
    }
}
