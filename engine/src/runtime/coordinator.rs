//! The coordinator of checkpoints: uploads, decides, publishes. Runs beside the workers, on the I/O runtime.
//!
//! ```text
//!  clock ── Begin ─▶ begin() ── AttemptBegun ─▶ clock holds ─▶ workers capture ── Worker, Cut ─▶ put_state, pre-commits
//!        ◀─ Decided ── checkpoint/C exists ── permit ── publish of every sink ── committed/C ── Published ─▶ clock
//! ```
//! Committables of an attempt that failed are kept and go with the next one: what they stand for is durable already.

use super::clock::{Cut, Event, Wish};
use super::shared::{JobShared, panic_message};
use crate::error::{Error, Result};
use crate::job::CheckpointOptions;
use crate::key::KeyGroupRange;
use crate::operator::CapturedSection;
use crate::sink::{PreCommit, PublishPermit, SinkCommitter};
use crate::status::{CheckpointStatus, JobPhase};
use futures::FutureExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints as checkpoints;
use tidemill_checkpoints::{
    Attempt, AttemptId, CheckpointId, Committable, ErrorKind, Generation, KeyGroup, OperatorUid, Snapshot,
    SnapshotKind, StateRef,
};
use tokio::sync::mpsc::UnboundedReceiver;

/// Publishing is repeated this often before the job fails (and publishes again when it is restored).
const PUBLISH_TRIES: u32 = 5;

/// The pause before a failed attempt is repeated, and the first one before publishing is.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Encoded sections of a worker's state that may wait for their upload.
const SECTIONS_WAITING: usize = 2;

/// How long the end of a job without checkpoints waits for its sinks.
const TIMEOUT_WITHOUT_STORE: Duration = Duration::from_secs(600);

/// What the coordinator is told.
pub(super) enum Message {
    /// Begin an attempt.
    Begin(Wish),
    /// A worker's part.
    Worker(WorkerCapture),
    /// The clock's part; all workers have captured.
    Cut {
        attempt: Attempt,
        cut: Cut,
        pause: Duration,
    },
}

/// One worker's state at a hold.
pub(super) struct WorkerCapture {
    pub(super) worker: usize,
    pub(super) attempt: Attempt,
    /// Not encoded yet: that is done while the stream flows again.
    pub(super) state: Vec<(OperatorUid, CapturedSection)>,
    pub(super) pre_commits: Vec<(OperatorUid, PreCommit)>,
}

/// The committers of the job's sinks, by uid.
pub(super) type Committers = BTreeMap<OperatorUid, Arc<dyn SinkCommitter>>;

/// What stays the same in all checkpoints of a run.
pub(super) struct JobFacts {
    pub(super) plan_hash: String,
    pub(super) operators: BTreeSet<OperatorUid>,
    pub(super) key_groups: u16,
    pub(super) workers: usize,
}

/// See the module's documentation.
pub(super) struct Coordinator {
    pub(super) protocol: Option<(checkpoints::Coordinator, CheckpointOptions)>,
    pub(super) committers: Committers,
    pub(super) facts: JobFacts,
    pub(super) shared: Arc<JobShared>,
    pub(super) messages: UnboundedReceiver<Message>,
    pub(super) carried: BTreeMap<OperatorUid, Vec<Committable>>,
    pub(super) failures: u32,
    /// Numbers attempts of a job without checkpoints.
    pub(super) unstored: u64,
}

/// A failure of an attempt.
enum Failure {
    /// This attempt failed; the job goes on. One that was refused (a savepoint's name is taken) says nothing about the
    /// store and is not repeated.
    Attempt { error: String, refused: bool },
    /// The job cannot go on.
    Job(Error),
    /// The job's workers have ended; there is nobody to tell.
    Ended,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Job(error)
    }
}

impl From<checkpoints::Error> for Failure {
    fn from(error: checkpoints::Error) -> Self {
        let refused = match (error.kind(), &error) {
            (ErrorKind::Fenced, _) => return Failure::Job(Error::of_checkpoints(&error)),
            (_, checkpoints::Error::SavepointExists { .. } | checkpoints::Error::InvalidName { .. }) => true,
            _ => false,
        };
        Failure::Attempt {
            error: error.to_string(),
            refused,
        }
    }
}

impl Coordinator {
    /// Serves until the job drops its end of the channel.
    pub(super) async fn serve(self) {
        let shared = Arc::clone(&self.shared);
        if let Err(panic) = AssertUnwindSafe(self.take_attempts()).catch_unwind().await {
            let message = panic_message(&*panic);
            shared.fail(Error::Checkpoint(format!(
                "a sink or the checkpoint coordinator panicked: {message}"
            )));
        }
    }

    async fn take_attempts(mut self) {
        while let Some(message) = self.messages.recv().await {
            let Message::Begin(wish) = message else { continue };
            match self.attempt(&wish.kind).await {
                Ok(checkpoint) => {
                    self.failures = 0;
                    self.shared.answer(wish.request, &Ok(checkpoint));
                    self.shared.send(Event::Published);
                }
                Err(Failure::Ended) => return,
                Err(Failure::Job(error)) => {
                    self.shared.answer(wish.request, &Err(error.clone()));
                    self.shared.fail(error);
                    return;
                }
                Err(Failure::Attempt { error, refused: true }) => {
                    self.shared.answer(wish.request, &Err(Error::Checkpoint(error)));
                    if wish.ends_job {
                        self.shared.update_status(|status| status.phase = JobPhase::Running);
                    }
                    self.shared.send(Event::AttemptFailed { refused: true });
                }
                Err(Failure::Attempt { error, refused: false }) => {
                    tracing::warn!(error, "a checkpoint attempt failed");
                    self.failures += 1;
                    self.shared.update_status(|status| {
                        status.checkpoints_failed += 1;
                        status.checkpoint_error = Some(error.clone());
                    });
                    if !wish.ends_job {
                        self.shared.answer(wish.request, &Err(Error::Checkpoint(error.clone())));
                    }
                    let most = self.protocol.as_ref().map_or(0, |(_, options)| options.failures_max);
                    if self.failures > most {
                        let failures = self.failures;
                        let message = format!("{failures} attempts in a row failed, the last: {error}");
                        self.shared.fail(Error::Checkpoint(message));
                        return;
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                    self.shared.send(Event::AttemptFailed { refused: false });
                }
            }
        }
    }

    async fn attempt(&mut self, kind: &SnapshotKind) -> Result<u64, Failure> {
        let began = self.shared.time.monotonic();
        let attempt = match &self.protocol {
            Some((protocol, _)) => {
                // A taken name is refused before the stream is held for it.
                if let SnapshotKind::Savepoint(name) = kind {
                    protocol.check_savepoint_name(name).await?;
                }
                protocol.begin().await?
            }
            None => {
                self.unstored += 1;
                let id = self.unstored;
                Attempt {
                    checkpoint: CheckpointId(id),
                    attempt: AttemptId(1),
                    generation: Generation(0),
                }
            }
        };
        self.shared.send(Event::AttemptBegun(attempt));
        let timeout = self.timeout();
        let (captures, cut, pause) = match tokio::time::timeout(timeout, self.gather(&attempt)).await {
            Ok(gathered) => gathered?,
            Err(_) => {
                return Err(Failure::Job(Error::Checkpoint(format!(
                    "the job did not come to a hold within {timeout:?}: an operator or a sink is stuck"
                ))));
            }
        };
        let (decided, state_bytes) = self.decide(kind, &attempt, captures, &cut).await?;
        self.shared.send(Event::Decided);
        let checkpoint = attempt.checkpoint.0;
        self.publish(&attempt, decided).await?;
        let duration = self.shared.time.monotonic().saturating_sub(began);
        self.shared.checkpoint_done(CheckpointStatus {
            id: checkpoint,
            tick: cut.tick,
            completed_ms: self.shared.time.wall_ms(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            pause_us: u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
            state_bytes,
            published: true,
            savepoint: match kind {
                SnapshotKind::Savepoint(name) => Some(name.to_string()),
                _ => None,
            },
        });
        if let Some((protocol, options)) = &self.protocol
            && let Err(error) = protocol.gc(options.retained).await
        {
            if error.kind() == ErrorKind::Fenced {
                return Err(Failure::Job(Error::of_checkpoints(&error)));
            }
            // What is left lying is found again by the next collection.
            tracing::warn!(%error, "old checkpoints could not be collected");
        }
        Ok(checkpoint)
    }

    fn timeout(&self) -> Duration {
        self.protocol
            .as_ref()
            .map_or(TIMEOUT_WITHOUT_STORE, |(_, options)| options.timeout)
    }

    /// Waits for the parts of all workers and the clock's: under back pressure, for the ticks in flight.
    async fn gather(&mut self, attempt: &Attempt) -> Result<(Vec<WorkerCapture>, Cut, Duration), Failure> {
        let mut captures: Vec<WorkerCapture> = Vec::new();
        let mut from_clock = None;
        loop {
            if captures.len() == self.facts.workers
                && let Some((cut, pause)) = from_clock.take()
            {
                captures.sort_by_key(|capture| capture.worker);
                return Ok((captures, cut, pause));
            }
            match self.messages.recv().await {
                Some(Message::Worker(capture)) if &capture.attempt == attempt => captures.push(capture),
                Some(Message::Cut {
                    attempt: of,
                    cut,
                    pause,
                }) if &of == attempt => from_clock = Some((cut, pause)),
                Some(_) => {}
                None => return Err(Failure::Ended),
            }
        }
    }

    /// Makes everything durable, then decides. Returns the sinks' committables, and how large the state is in bytes.
    async fn decide(
        &mut self,
        kind: &SnapshotKind,
        attempt: &Attempt,
        captures: Vec<WorkerCapture>,
        cut: &Cut,
    ) -> Result<(BTreeMap<OperatorUid, Vec<Committable>>, u64), Failure> {
        let timeout = self.timeout();
        let mut uploads = Vec::new();
        let mut pre_commits = Vec::new();
        for capture in captures {
            let worker = u32::try_from(capture.worker).unwrap_or(u32::MAX);
            if let Some((protocol, _)) = &self.protocol {
                uploads.push(upload(protocol, attempt, worker, capture.state));
            }
            pre_commits.extend(capture.pre_commits);
        }
        let pre_commits = futures::future::try_join_all(
            pre_commits
                .into_iter()
                .map(|(uid, pre_commit)| async move { pre_commit.await.map(|committable| (uid, committable)) }),
        );
        // A sink that does not become durable in time leaves nothing to continue from: the job restarts.
        let committables = match tokio::time::timeout(timeout, pre_commits).await {
            Ok(committables) => committables?,
            Err(_) => {
                return Err(Failure::Job(Error::Checkpoint(format!(
                    "the sinks were not durable within {timeout:?}"
                ))));
            }
        };
        for (uid, committable) in committables {
            if let Some(bytes) = committable {
                if !self.committers.contains_key(&uid) {
                    let message = format!("sink {uid} pre-commits output and has nothing to publish it with");
                    return Err(Failure::Job(Error::Internal(message)));
                }
                self.carried.entry(uid).or_default().push(Committable(bytes));
            }
        }
        let Some((protocol, _)) = &self.protocol else {
            return Ok((BTreeMap::new(), 0));
        };
        let state = match tokio::time::timeout(timeout, futures::future::try_join_all(uploads)).await {
            Ok(state) => state?,
            Err(_) => {
                let error = format!("the state was not uploaded within {timeout:?}");
                return Err(Failure::Attempt { error, refused: false });
            }
        };
        let state_bytes = state.iter().map(|state| state.length).sum();
        let snapshot = Snapshot {
            kind: kind.clone(),
            tick: cut.tick,
            created_ms: self.shared.time.wall_ms(),
            wall_time_ms: cut.wall_time_ms,
            state,
            sources: cut.sources.clone(),
            watermarks: cut.watermarks.clone(),
            committables: self.carried.clone(),
            plan_hash: self.facts.plan_hash.clone(),
            operators: self.facts.operators.clone(),
            key_group_count: self.facts.key_groups,
            parallelism: u32::try_from(self.facts.workers).unwrap_or(u32::MAX),
        };
        protocol.decide(attempt, snapshot).await?;
        Ok((std::mem::take(&mut self.carried), state_bytes))
    }

    async fn publish(
        &self,
        attempt: &Attempt,
        committables: BTreeMap<OperatorUid, Vec<Committable>>,
    ) -> Result<(), Failure> {
        let Some((protocol, _)) = &self.protocol else {
            return Ok(());
        };
        publish(protocol, &self.committers, attempt.checkpoint, &committables).await?;
        Ok(())
    }
}

/// Uploads a worker's state while a thread that may take long encodes it: a few sections are in memory at a time.
async fn upload(
    protocol: &checkpoints::Coordinator,
    attempt: &Attempt,
    worker: u32,
    state: Vec<(OperatorUid, CapturedSection)>,
) -> Result<StateRef, Failure> {
    let (sender, mut encoded) = tokio::sync::mpsc::channel(SECTIONS_WAITING);
    let encoding = tokio::task::spawn_blocking(move || {
        for (uid, section) in state {
            let section = section.encode()?;
            let key_groups = section.key_groups.map(to_stored).transpose()?;
            if sender.blocking_send((uid, section, key_groups)).is_err() {
                break;
            }
        }
        Ok::<_, Error>(())
    });
    let mut upload = protocol.begin_state(attempt, worker).await?;
    while let Some((uid, section, key_groups)) = encoded.recv().await {
        if let Err(error) = upload.append(&uid, &section.name, key_groups, section.bytes).await {
            upload.abort().await;
            return Err(error.into());
        }
    }
    let encoding = encoding
        .await
        .map_err(|error| Error::Internal(format!("encoding state: {error}")));
    if let Err(error) = encoding.and_then(|encoded| encoded) {
        upload.abort().await;
        return Err(Failure::Job(error));
    }
    Ok(upload.finish().await?)
}

/// A worker without key groups (more workers than groups) stores the empty run as the group behind its start.
pub(super) fn to_stored(range: KeyGroupRange) -> Result<tidemill_checkpoints::KeyGroupRange> {
    let last = range.end.max(range.start + 1) - 1;
    Ok(tidemill_checkpoints::KeyGroupRange::new(
        KeyGroup(range.start),
        KeyGroup(last),
    ))
}

/// Publishes a checkpoint to every sink, in the order of their uids, and marks it as published.
pub(super) async fn publish(
    protocol: &checkpoints::Coordinator,
    committers: &Committers,
    checkpoint: CheckpointId,
    committables: &BTreeMap<OperatorUid, Vec<Committable>>,
) -> Result<()> {
    let failed = |error: checkpoints::Error| Error::of_checkpoints(&error);
    let permit = protocol.permit(checkpoint).await.map_err(failed)?;
    let permit = PublishPermit {
        checkpoint: permit.checkpoint.0,
        generation: permit.generation.0,
        lineage: permit.lineage,
        decided_by: permit.decided_by,
    };
    for (uid, committer) in committers {
        let bytes: Vec<Vec<u8>> = committables
            .get(uid)
            .map(|all| all.iter().map(|c| c.0.clone()).collect())
            .unwrap_or_default();
        let mut tries = 1;
        loop {
            match committer.publish(permit, &bytes).await {
                Ok(()) => break,
                Err(error) if tries == PUBLISH_TRIES || !error.is_retryable() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, sink = %uid, checkpoint = permit.checkpoint, "publishing failed and is repeated");
                    tokio::time::sleep(RETRY_PAUSE * 2u32.pow(tries)).await;
                    tries += 1;
                }
            }
        }
    }
    protocol.mark_committed(checkpoint).await.map_err(failed)
}
