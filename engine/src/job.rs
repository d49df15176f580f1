//! Running a job: its configuration, and the handle on it while it runs.

use crate::error::{Error, Result};
use crate::graph::JobGraph;
use crate::key::KEY_GROUPS_DEFAULT;
use crate::status::JobStatus;
use crate::time::{SystemTime, TimeSource};
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints::{Failpoints, RestoreFrom, SnapshotStore};

/// How ticks are opened and closed.
#[derive(Clone, Debug)]
pub struct TickOptions {
    /// Ticks in flight at most (K), at least 1.
    pub in_flight_max: usize,
    /// The least time between two ticks while there is a trickle of data; full ticks follow one another at once.
    pub interval_min: Duration,
    /// Rows that a worker takes in per tick, over all its sources.
    pub rows_max: usize,
    /// Bytes of input that a worker takes in per tick.
    pub bytes_max: usize,
    /// Rows that an operator emits per call.
    pub output_rows_max: usize,
}

impl Default for TickOptions {
    fn default() -> Self {
        Self {
            in_flight_max: 4,
            interval_min: Duration::from_millis(2),
            rows_max: 32 * 1024,
            bytes_max: 4 * 1024 * 1024,
            output_rows_max: 32 * 1024,
        }
    }
}

/// Where and how often checkpoints are taken.
#[derive(Clone)]
pub struct CheckpointOptions {
    /// Where they are kept.
    pub store: SnapshotStore,
    /// The time between two checkpoints; `None`: only savepoints and the final one.
    pub interval: Option<Duration>,
    /// An attempt that takes longer is given up.
    pub timeout: Duration,
    /// Checkpoints kept.
    pub retained: usize,
    /// Attempts that may fail in a row before the job fails.
    pub failures_max: u32,
    /// What to start from.
    pub restore: RestoreFrom,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    pub allow_non_restored_state: bool,
}

impl CheckpointOptions {
    /// Makes the default options: every 10 s, 10 minutes at most, 3 kept, 5 failures in a row allowed.
    #[must_use]
    pub fn new(store: SnapshotStore) -> Self {
        Self {
            store,
            interval: Some(Duration::from_secs(10)),
            timeout: Duration::from_secs(600),
            retained: 3,
            failures_max: 5,
            restore: RestoreFrom::Latest,
            allow_non_restored_state: false,
        }
    }
}

/// A job's configuration.
#[derive(Clone)]
pub struct JobConfig {
    /// The job's name, for people.
    pub name: String,
    /// The job's stable identity, `[A-Za-z0-9_.-]{1,128}`: its checkpoints and staged output belong to it.
    pub uid: String,
    /// The number of worker threads, at least 1.
    pub parallelism: usize,
    /// Checkpoints; without them an exactly-once sink is refused.
    pub checkpoints: Option<CheckpointOptions>,
    /// How ticks are opened and closed.
    pub ticks: TickOptions,
    /// The number of key groups of a new job; a restored one keeps its own.
    pub key_groups: u16,
    /// Where time comes from.
    pub time: Arc<dyn TimeSource>,
    /// A hash of the plan, stored in checkpoints.
    pub plan_hash: String,
    /// Named points at which tests let the job fail.
    pub failpoints: Failpoints,
}

impl JobConfig {
    /// Makes the default configuration: one worker, no checkpoints, the machine's clock.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            uid: name.clone(),
            name,
            parallelism: 1,
            checkpoints: None,
            ticks: TickOptions::default(),
            key_groups: KEY_GROUPS_DEFAULT,
            time: Arc::new(SystemTime::default()),
            plan_hash: String::new(),
            failpoints: Failpoints::default(),
        }
    }
}

/// How a job is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// After a last checkpoint, so that a restart continues there.
    Checkpoint,
    /// After a savepoint of this name.
    Savepoint(String),
    /// At once; a restart continues at the newest checkpoint.
    Now,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// All its tables have ended and everything is published.
    Finished,
    /// It was stopped.
    Stopped,
}

/// A running job.
pub struct JobHandle {
    _private: (),
}

/// Starts a job; its workers run on threads of their own, its I/O on `runtime`.
///
/// # Errors
/// When the graph or the configuration is not valid. Failures after that are told by [`JobHandle::wait`].
pub fn start(graph: JobGraph, config: JobConfig, runtime: &tokio::runtime::Handle) -> Result<JobHandle> {
    graph.validate()?;
    let _ = (config, runtime);
    Err(Error::Internal("not built yet".into()))
}

impl JobHandle {
    /// Returns what the job is doing; cheap enough to call every second.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        JobStatus::default()
    }

    /// Takes a checkpoint now and returns its number once it exists and is published.
    ///
    /// # Errors
    /// When the attempt fails or the job ends first.
    pub async fn checkpoint(&self) -> Result<u64> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Takes a savepoint and returns the number of its checkpoint.
    ///
    /// # Errors
    /// When the name is taken or not valid, or the attempt fails, or the job ends first.
    pub async fn savepoint(&self, _name: &str) -> Result<u64> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Asks the job to stop; [`JobHandle::wait`] tells when and how it ended.
    pub fn stop(&self, _mode: StopMode) {}

    /// Waits until the job has ended.
    ///
    /// # Errors
    /// When it failed.
    pub async fn wait(&self) -> Result<JobEnd> {
        Err(Error::Internal("not built yet".into()))
    }
}
