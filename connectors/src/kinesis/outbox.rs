//! The task that sends a writer's records to the store, in order and one request at a time.
//!
//! The worker thread puts requests in and never waits; when too many bytes are on the way it holds back its ticks
//! until the outbox wakes it.

use super::error::{StreamError, created_again_meanwhile};
use super::options::KinesisOptions;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_shards::{
    ErrorKind, PutEntry, ShardAccess, StageRequest, StagedRef, StoreError, StreamMeta, StreamName, Uuid,
};
use tokio::sync::{mpsc, oneshot};

/// Bytes on the way above which ticks are held back.
const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// Times that a record is put again when the store asks for it.
const RETRIES_MAX: u32 = 10;
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// What the task is asked for.
enum Command {
    Put(StreamName, Vec<PutEntry>),
    Stage(StageRequest),
    /// Answers when everything before is durable, with what was staged since the last flush.
    Flush(oneshot::Sender<Result<Vec<StagedRef>, StreamError>>),
}

/// The writer's end.
pub(super) struct Outbox {
    commands: mpsc::UnboundedSender<(Command, usize)>,
    state: Arc<State>,
}

struct State {
    in_flight_bytes: AtomicUsize,
    failure: Mutex<Option<StreamError>>,
}

impl State {
    fn failure(&self) -> Option<StreamError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, error: StreamError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }
}

impl Outbox {
    /// Starts the task, which opens the stream first. It ends when the writer goes.
    pub(super) fn start(
        shards: Arc<dyn ShardAccess>,
        options: KinesisOptions,
        runtime: &tokio::runtime::Handle,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let state = Arc::new(State {
            in_flight_bytes: AtomicUsize::new(0),
            failure: Mutex::new(None),
        });
        let (commands, receiver) = mpsc::unbounded_channel();
        runtime.spawn(run(shards, options, receiver, Arc::clone(&state), wake));
        Self { commands, state }
    }

    /// Stores records, visible at once.
    pub(super) fn put(&self, stream: &StreamName, entries: Vec<PutEntry>) {
        let bytes = entry_bytes(&entries);
        self.send(Command::Put(stream.clone(), entries), bytes);
    }

    /// Stores records, invisible.
    pub(super) fn stage(&self, request: StageRequest) {
        let bytes = entry_bytes(&request.entries);
        self.send(Command::Stage(request), bytes);
    }

    /// Waits for everything before and gives what was staged since the last flush.
    pub(super) fn flush(&self) -> oneshot::Receiver<Result<Vec<StagedRef>, StreamError>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Flush(reply), 0);
        answer
    }

    fn send(&self, command: Command, bytes: usize) {
        self.state.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
        // A task that is gone drops the command; its failure, or the lost reply, tells.
        let _ = self.commands.send((command, bytes));
    }

    /// Returns the failure of a request, if one failed.
    pub(super) fn failure(&self) -> Option<StreamError> {
        self.state
            .failure()
            .or_else(|| self.commands.is_closed().then_some(StoreError::Closed.into()))
    }

    /// Says whether ticks should be held back; the worker is woken when that changes.
    pub(super) fn is_full(&self) -> bool {
        self.state.in_flight_bytes.load(Ordering::Acquire) > IN_FLIGHT_BYTES_MAX
    }
}

/// Returns the bytes of records as they count against the limits.
pub(super) fn entry_bytes(entries: &[PutEntry]) -> usize {
    entries
        .iter()
        .map(|entry| entry.data.len() + entry.partition_key.len())
        .sum()
}

/// Looks for the stream that the options mean.
pub(super) async fn find_stream(shards: &dyn ShardAccess, options: &KinesisOptions) -> Result<StreamMeta, StreamError> {
    let stream = shards.describe_stream(&options.stream).await?;
    options.check_arn(&stream.arn).map_err(StreamError::Unfit)?;
    Ok(stream)
}

async fn run(
    shards: Arc<dyn ShardAccess>,
    options: KinesisOptions,
    mut commands: mpsc::UnboundedReceiver<(Command, usize)>,
    state: Arc<State>,
    wake: Arc<dyn Fn() + Send + Sync>,
) {
    let mut staged = Vec::new();
    let opened = match find_stream(shards.as_ref(), &options).await {
        Ok(stream) => stream.id,
        Err(error) => {
            state.fail(error);
            wake();
            Uuid([0; 16]) // nothing is sent after a failure
        }
    };
    while let Some((command, bytes)) = commands.recv().await {
        let failed = state.failure();
        let outcome = match (command, failed) {
            (Command::Flush(reply), failed) => {
                let answer = failed.map_or_else(|| Ok(std::mem::take(&mut staged)), Err);
                let _ = reply.send(answer);
                Ok(())
            }
            // After a failure nothing more is sent: the job is about to end.
            (_, Some(_)) => Ok(()),
            (Command::Put(stream, entries), None) => put(shards.as_ref(), &stream, opened, entries).await,
            (Command::Stage(request), None) => stage(shards.as_ref(), opened, request)
                .await
                .map(|done| staged.push(done)),
        };
        if let Err(error) = outcome {
            state.fail(error);
        }
        state.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
        wake();
    }
}

/// Puts records until all are stored: those that the store asks to repeat are put again.
async fn put(
    shards: &dyn ShardAccess,
    stream: &StreamName,
    opened: Uuid,
    mut entries: Vec<PutEntry>,
) -> Result<(), StreamError> {
    let mut wait = BACKOFF_MIN;
    for attempt in 0.. {
        // What is put is visible at once, so it is asked before.
        check_same(stream, opened, shards.describe_stream(stream).await?.id)?;
        let error = match shards.put_records(stream, entries.clone()).await {
            Ok(results) => {
                let mut again = Vec::new();
                let mut last = None;
                for (entry, result) in entries.into_iter().zip(results) {
                    match result {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::Retry => {
                            again.push(entry);
                            last = Some(error);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                entries = again;
                match last {
                    Some(error) => error,
                    None => return Ok(()),
                }
            }
            Err(error) if error.kind() == ErrorKind::Retry => error,
            Err(error) => return Err(error.into()),
        };
        if attempt >= RETRIES_MAX {
            return Err(error.into());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
    Ok(())
}

async fn stage(shards: &dyn ShardAccess, opened: Uuid, request: StageRequest) -> Result<StagedRef, StreamError> {
    let mut wait = BACKOFF_MIN;
    for attempt in 0.. {
        match shards.stage(request.clone()).await {
            Err(error) if error.kind() == ErrorKind::Retry && attempt < RETRIES_MAX => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
            // What an attempt that failed may have left is never published, and only takes space.
            outcome => {
                let staged = outcome?;
                check_same(&request.stream, opened, staged.stream_id)?;
                return Ok(staged);
            }
        }
    }
    Err(StoreError::Closed.into())
}

/// Refuses to write to a stream that took the name of the one that was opened.
fn check_same(stream: &StreamName, opened: Uuid, found: Uuid) -> Result<(), StreamError> {
    if opened == found {
        return Ok(());
    }
    Err(created_again_meanwhile(stream.as_str()))
}
