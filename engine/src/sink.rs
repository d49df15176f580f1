//! What a sink is: a writer per worker, and for exactly-once output a committer per job.
//!
//! ```text
//!  at least once:  write* ── tick_closed (visible) ──▶ pre_commit (all durable)
//!  exactly once:   write* ── tick_closed ── pre_commit (durable, invisible; gives a committable)
//!                       ── checkpoint/C is created ── SinkCommitter::publish with a permit (visible)
//! ```

use crate::error::Result;
use crate::metrics::OperatorMetrics;
use crate::operator::{Progress, TickClose};
use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
pub use tidemill_checkpoints::{Lineage, Nonce};

/// When a sink's output becomes visible, and what a restart may repeat: Flink's `sink.delivery-guarantee`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryGuarantee {
    /// Visible at the checkpoint, exactly once.
    ExactlyOnce,
    /// Visible when a tick closes; a restart may repeat what came after the last checkpoint.
    AtLeastOnce,
}

/// What a sink's writer is told when it is made.
#[derive(Clone)]
pub struct SinkContext {
    /// The sink's stable identity.
    pub uid: String,
    /// The job's stable identity.
    pub job: String,
    /// The generation of the job's coordinator when the process started: rises with every start. That of a
    /// [`PublishPermit`] may be greater, because a running coordinator moves on.
    pub generation: u64,
    /// The lineage of the checkpoints that the output will belong to: two runs under one name, with the checkpoints deleted in
    /// between, have two. It stays the same while the process runs.
    pub lineage: Lineage,
    /// This worker's index.
    pub worker: usize,
    /// The job's parallelism.
    pub workers: usize,
    /// Wakes the worker when a busy writer can take more; may be called from any thread.
    pub waker: Arc<dyn Fn() + Send + Sync>,
    /// The runtime for the writer's I/O.
    pub runtime: tokio::runtime::Handle,
    /// Counters shown in the job's status.
    pub metrics: Arc<OperatorMetrics>,
}

impl fmt::Debug for SinkContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkContext")
            .field("uid", &self.uid)
            .field("job", &self.job)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// Identifies the checkpoint that a pre-commit belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreCommitId {
    /// The checkpoint's number.
    pub checkpoint: u64,
    /// The attempt: an attempt that failed is repeated under another number.
    pub attempt: u64,
}

/// The background half of a pre-commit: resolves when everything written before is durable.
///
/// Its value is the committable, opaque bytes that [`SinkCommitter::publish`] of this or any later process
/// understands; `None` when there is nothing to publish. A committable of an attempt that failed is published with the
/// next checkpoint that succeeds, so it stays valid until then.
pub type PreCommit = BoxFuture<'static, Result<Option<Vec<u8>>>>;

/// Writes one worker's share of a sink's input.
pub trait SinkWriter {
    /// Takes a batch of the open tick.
    ///
    /// # Errors
    /// Any error fails the job.
    fn write(&mut self, batch: &RecordBatch, wall_time_ms: i64) -> Result<()>;

    /// Learns that a tick is closed; an at-least-once sink makes what was written visible. [`Progress::More`] means
    /// that the writer is busy and is called again after its waker: the tick stays in flight, which is how a slow sink
    /// holds back the sources.
    ///
    /// # Errors
    /// Any error fails the job.
    fn tick_closed(&mut self, close: &TickClose) -> Result<Progress>;

    /// Begins to make everything written so far durable; called between ticks. An exactly-once sink keeps it
    /// invisible.
    ///
    /// # Errors
    /// Any error fails the job.
    fn pre_commit(&mut self, id: PreCommitId) -> Result<PreCommit>;
}

/// The right to make a checkpoint's output visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishPermit {
    /// The checkpoint that exists.
    pub checkpoint: u64,
    /// The generation that publishes it; the same checkpoint from a newer one is a replay. It also rises while a process
    /// runs, so it does not tell one process from the next.
    pub generation: u64,
    /// The lineage of the checkpoint: only within one are numbers and generations comparable.
    pub lineage: Lineage,
    /// Who decided the checkpoint; a replay has the same. Another one under the same number and lineage has another content.
    pub decided_by: Nonce,
}

/// Publishes what writers pre-committed, for the whole job.
#[async_trait::async_trait]
pub trait SinkCommitter: Send + Sync {
    /// Makes the committables of a checkpoint visible, all of them exactly once, however often it is called with the
    /// same checkpoint. Called for every checkpoint in order, also with no committables.
    ///
    /// # Errors
    /// When it could not be done; it will be repeated. [`Error::Permanent`](crate::Error::Permanent) (another run has
    /// published since) and [`Error::Fenced`](crate::Error::Fenced) end the job.
    async fn publish(&self, permit: PublishPermit, committables: &[Vec<u8>]) -> Result<()>;
}

/// What a committer is told when it is made.
#[derive(Clone, Debug)]
pub struct CommitterContext {
    /// The sink's stable identity.
    pub uid: String,
    /// The job's stable identity.
    pub job: String,
    /// The runtime for the committer's I/O.
    pub runtime: tokio::runtime::Handle,
}

/// A table that can be written.
#[async_trait::async_trait]
pub trait Sink: Send + Sync {
    /// Looks whether what the table names is there, before a new job is accepted. Changes nothing, and is not asked again
    /// when the job starts.
    ///
    /// # Errors
    /// [`Error::Permanent`](crate::Error::Permanent) refuses the job; another error does not.
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Returns when output becomes visible.
    fn guarantee(&self) -> DeliveryGuarantee;

    /// Says whether batches may be a changelog: with [`crate::graph::WEIGHT`] as the last column.
    fn takes_changes(&self) -> bool {
        false
    }

    /// Makes a worker's writer. Runs on the worker's thread and must not block.
    ///
    /// # Errors
    /// When the sink cannot be opened.
    fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>>;

    /// Makes the job's committer; exactly-once sinks have one, others `None`.
    ///
    /// # Errors
    /// When the sink cannot be opened.
    fn committer(&self, context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>>;
}
