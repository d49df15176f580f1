//! What a running job tells about itself.

use crate::metrics::OperatorCounts;
use serde::{Deserialize, Serialize};

/// The state of a job within its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobPhase {
    /// Reads its checkpoint and repeats its publishing.
    #[default]
    Restoring,
    /// Processes ticks.
    Running,
    /// Takes its last checkpoint.
    Stopping,
    /// Ended: its tables have ended, or it was stopped.
    Ended,
    /// Ended with an error.
    Failed,
}

/// One operator's part of the status, summed over workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStatus {
    /// The operator's stable identity.
    pub uid: String,
    /// The operator's name.
    pub name: String,
    /// Its counters.
    #[serde(flatten)]
    pub counts: OperatorCounts,
    /// The watermark of what it produces, in milliseconds since the epoch; `None` before the first and after the end.
    pub watermark_ms: Option<i64>,
    /// How far that watermark is behind the wall clock, in milliseconds.
    pub watermark_lag_ms: Option<i64>,
}

/// One checkpoint's part of the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The checkpoint's number.
    pub id: u64,
    /// The tick it was taken at.
    pub tick: u64,
    /// Wall time at which it came to exist, in milliseconds since the epoch.
    pub completed_ms: i64,
    /// From the decision to take it until it existed, in milliseconds.
    pub duration_ms: u64,
    /// From the hold until all state was captured, in microseconds: what the stream stood still.
    pub pause_us: u64,
    /// Bytes of state written.
    pub state_bytes: u64,
    /// True once every sink has published it.
    pub published: bool,
    /// The savepoint's name if it is one.
    pub savepoint: Option<String>,
}

/// A snapshot of a running job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// What the job is doing.
    pub phase: JobPhase,
    /// The generation of its coordinator: rises with every start.
    pub generation: u64,
    /// The number of worker threads.
    pub parallelism: usize,
    /// Ticks closed since the start.
    pub ticks: u64,
    /// The newest tick closed.
    pub tick: u64,
    /// Its operators, in the order of the graph.
    pub operators: Vec<OperatorStatus>,
    /// Its newest checkpoints, the newest last; at most 10.
    pub checkpoints: Vec<CheckpointStatus>,
    /// Checkpoint attempts that failed since the start.
    pub checkpoints_failed: u64,
    /// Why the last attempt failed, while no newer one has succeeded.
    pub checkpoint_error: Option<String>,
    /// The checkpoint it was restored from.
    pub restored_from: Option<u64>,
    /// The error it failed with.
    pub error: Option<String>,
}
