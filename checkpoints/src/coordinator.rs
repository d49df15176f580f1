//! Signatures first; bodies follow in the next commits.

use crate::{
    AttemptId, CheckpointId, Failpoints, Generation, JobUid, Manifest, Nonce, RequestId, Result, SavepointName, Snapshot,
    SnapshotStore, StateObject, StateRef,
};
use serde::{Deserialize, Serialize};

/// Names something that a job can be started from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreSource {
    /// A savepoint, of this job or another.
    Savepoint(JobUid, SavepointName),
    /// A checkpoint, of this job or another.
    Checkpoint(JobUid, CheckpointId),
    /// No state at all, though the job may have had checkpoints.
    Nothing,
}

impl RestoreSource {
    /// Reads what a user writes: `NAME` or `savepoint/NAME`, `checkpoint/7`, either with `JOB/` in front, or `nothing`.
    ///
    /// # Errors
    /// [`crate::Error::InvalidSetting`] says what can be written.
    pub fn parse(text: &str, job: &JobUid) -> Result<Self> {
        let _ = (text, job);
        todo!()
    }
}

/// Says what a starting coordinator restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreFrom {
    /// The newest checkpoint, or nothing when the job never had one.
    Latest,
    /// What the user chose, once: a later start with the same request restores the newest checkpoint since.
    Chosen {
        /// What to restore.
        source: RestoreSource,
        /// Tells this request from a later one for the same source.
        request: RequestId,
    },
}

/// What a coordinator needs to start.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The job.
    pub job: JobUid,
    /// This process's nonce.
    pub nonce: Nonce,
    /// What to restore.
    pub restore: RestoreFrom,
    /// The time, in milliseconds since 1970; for display only.
    pub started_ms: i64,
    /// Faults to inject; none outside tests.
    pub failpoints: Failpoints,
}

/// What a started coordinator found to continue from.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The checkpoint to load state and positions from.
    pub manifest: Manifest,
    /// The full name of the object it was read from.
    pub object: String,
    /// Checkpoints whose output may not be published yet, oldest first; the last one is `manifest` itself. Before one record is
    /// read, for each of them: [`Coordinator::permit`], publish, [`Coordinator::mark_committed`].
    pub replay: Vec<Manifest>,
}

/// One try at one checkpoint. Travels to all workers; names their state objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The attempt, unique within the generation.
    pub attempt: AttemptId,
    /// The generation it was begun in.
    pub generation: Generation,
}

/// Allows sinks to publish one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Permit {
    /// The job whose output it is.
    pub job: JobUid,
    /// The checkpoint. Sinks refuse one older than the last they published.
    pub checkpoint: CheckpointId,
    /// The generation that gave the permit. The same checkpoint from a newer generation is a replay and succeeds.
    pub generation: Generation,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects removed.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Owns the checkpoints of a running job. All calls take `&self`; put it in an `Arc`.
pub struct Coordinator {}

impl Coordinator {
    /// Claims the job and finds what to restore.
    pub async fn start(store: SnapshotStore, options: StartOptions) -> Result<(Self, Option<Restore>)> {
        let _ = (store, options);
        todo!()
    }
    /// Returns the generation claimed last. It rises while the coordinator runs.
    pub fn generation(&self) -> Generation {
        todo!()
    }
    /// Begins an attempt at the next checkpoint; one begun before and not decided is over.
    pub async fn begin(&self) -> Result<Attempt> {
        todo!()
    }
    /// Returns what uploads state without the coordinator: cloneable, also usable in the job's other processes.
    pub fn uploader(&self) -> Uploader {
        todo!()
    }
    /// Uploads one worker's state of an attempt.
    pub async fn put_state(&self, attempt: &Attempt, worker: u32, state: StateObject) -> Result<StateRef> {
        let _ = (attempt, worker, state);
        todo!()
    }
    /// Decides that the checkpoint exists.
    pub async fn decide(&self, attempt: &Attempt, snapshot: Snapshot) -> Result<Manifest> {
        let _ = (attempt, snapshot);
        todo!()
    }
    /// Gives the permit to publish; in order of the checkpoints.
    pub async fn permit(&self, checkpoint: CheckpointId) -> Result<Permit> {
        let _ = checkpoint;
        todo!()
    }
    /// Notes that every sink has published the checkpoint; completes its savepoint, if it is one.
    pub async fn mark_committed(&self, checkpoint: CheckpointId) -> Result<()> {
        let _ = checkpoint;
        todo!()
    }
    /// Removes what no live checkpoint and no savepoint needs.
    pub async fn gc(&self, keep: usize) -> Result<Collected> {
        let _ = keep;
        todo!()
    }
}

/// Uploads state objects of a job's attempts, from any of its processes.
#[derive(Clone, Debug)]
pub struct Uploader {}

impl Uploader {
    /// Makes an uploader for a process of the job that has no coordinator.
    pub fn new(store: SnapshotStore, job: JobUid, failpoints: Failpoints) -> Self {
        let _ = (store, job, failpoints);
        todo!()
    }
    /// Uploads one worker's state of an attempt.
    pub async fn put_state(&self, attempt: &Attempt, worker: u32, state: StateObject) -> Result<StateRef> {
        let _ = (attempt, worker, state);
        todo!()
    }
}
