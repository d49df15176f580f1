//! What an operator is. Three kinds exist: the pure [`Operator`], the [`AsyncOperator`] that asks services outside, and
//! the sink ([`crate::sink`]).
//!
//! An operator is a state machine over record batches that knows no threads, no clock and no dataflow library.
//!
//! The adapter (`runtime::adapter`) calls an operator strictly by tick: all batches of tick *t*, then the close of *t*,
//! then the batches of *t + 1*. Between two calls nothing else touches it, so it needs no locks. State is captured and
//! restored between ticks, in sections by key group.

use crate::error::Result;
use crate::key::KeyGroupRange;
use crate::metrics::OperatorMetrics;
use crate::time::{Tick, TimeSource, Watermark};
use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Whether an operator has finished a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// The call is complete.
    Done,
    /// There is more to emit: call again with the same arguments once what follows has run.
    More,
}

/// What an operator is told when it is built.
#[derive(Clone, Debug)]
pub struct OperatorContext {
    /// The operator's stable identity, under which its state is stored.
    pub uid: String,
    /// This worker's index, `0..workers`.
    pub worker: usize,
    /// The job's parallelism.
    pub workers: usize,
    /// The key groups whose state lives on this worker.
    pub key_groups: KeyGroupRange,
    /// Counters shown in the job's status.
    pub metrics: Arc<OperatorMetrics>,
}

/// The close of a tick, as one operator sees it.
#[derive(Clone, Debug)]
pub struct TickClose {
    /// The tick that is closed: no more input of it will come.
    pub tick: Tick,
    /// The tick's wall time in milliseconds since the epoch.
    pub wall_time_ms: i64,
    /// The watermark of each input at this close, by the input's watermark expression.
    pub watermarks: Vec<Watermark>,
    /// True for the last tick of a bounded job: no rows follow, only the tick of its final checkpoint.
    pub is_last: bool,
}

impl TickClose {
    /// Returns the least watermark of all inputs.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        self.watermarks.iter().copied().min().unwrap_or(Watermark::NONE)
    }
}

/// The open tick, as one operator sees it while batches arrive.
#[derive(Clone, Debug)]
pub struct OpenTick {
    /// The tick the batch belongs to.
    pub tick: Tick,
    /// The tick's wall time in milliseconds since the epoch.
    pub wall_time_ms: i64,
    /// The watermark of each input at the close of the tick before: a row at or before it is late.
    pub watermarks: Vec<Watermark>,
}

/// Collects what an operator emits, within a budget of rows per call.
#[derive(Debug)]
pub struct Output {
    batches: Vec<RecordBatch>,
    rows: usize,
    budget_rows: usize,
}

impl Output {
    /// Makes an output with a budget of rows per call.
    #[must_use]
    pub fn with_budget(budget_rows: usize) -> Self {
        Self {
            batches: Vec::new(),
            rows: 0,
            budget_rows,
        }
    }

    /// Emits a batch in the operator's tick; empty batches are dropped.
    pub fn emit(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.rows += batch.num_rows();
            self.batches.push(batch);
        }
    }

    /// Says how many more rows fit in the budget of this call.
    #[must_use]
    pub fn budget_left(&self) -> usize {
        self.budget_rows.saturating_sub(self.rows)
    }

    /// Says whether the budget is used up; an operator then answers [`Progress::More`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.budget_left() == 0
    }

    /// Takes what was emitted, and makes room for the next call.
    pub fn take(&mut self) -> Vec<RecordBatch> {
        self.rows = 0;
        std::mem::take(&mut self.batches)
    }
}

/// One section of an operator's state.
#[derive(Clone, Debug)]
pub struct StateSection {
    /// The section's name, unique within the operator for one key-group range.
    pub name: String,
    /// The key groups the section holds; `None` for state that is not keyed.
    pub key_groups: Option<KeyGroupRange>,
    /// The encoded state.
    pub bytes: Bytes,
}

/// A section of an operator's state as it is captured at a checkpoint.
///
/// What cannot change any more is captured as it is and encoded later, off the worker's thread, so that the stream does not
/// stand still for it.
pub struct CapturedSection {
    name: String,
    key_groups: Option<KeyGroupRange>,
    content: Content,
}

enum Content {
    Encoded(Bytes),
    Later(Box<dyn FnOnce() -> Result<Bytes> + Send>),
}

impl CapturedSection {
    /// Captures a section that `encode` encodes later.
    pub fn later(
        name: impl Into<String>,
        key_groups: Option<KeyGroupRange>,
        encode: impl FnOnce() -> Result<Bytes> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            key_groups,
            content: Content::Later(Box::new(encode)),
        }
    }

    /// Encodes the section.
    ///
    /// # Errors
    /// When the state cannot be encoded.
    pub fn encode(self) -> Result<StateSection> {
        Ok(StateSection {
            name: self.name,
            key_groups: self.key_groups,
            bytes: match self.content {
                Content::Encoded(bytes) => bytes,
                Content::Later(encode) => encode()?,
            },
        })
    }
}

impl From<StateSection> for CapturedSection {
    fn from(section: StateSection) -> Self {
        Self {
            name: section.name,
            key_groups: section.key_groups,
            content: Content::Encoded(section.bytes),
        }
    }
}

impl std::fmt::Debug for CapturedSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapturedSection")
            .field("name", &self.name)
            .field("key_groups", &self.key_groups)
            .finish_non_exhaustive()
    }
}

/// A pure operator: batches in, batches out, state between ticks.
pub trait Operator {
    /// Takes a batch of the open tick from an input.
    ///
    /// # Errors
    /// Any error fails the job.
    fn on_batch(&mut self, input: usize, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Progress>;

    /// Learns that a tick is closed.
    ///
    /// # Errors
    /// Any error fails the job.
    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress>;

    /// Captures the state after the last closed tick; called only between ticks.
    ///
    /// # Errors
    /// When the state cannot be encoded.
    fn capture(&mut self) -> Result<Vec<StateSection>> {
        Ok(Vec::new())
    }

    /// Captures the state as [`Operator::capture`] does, and may leave encoding for later. This is what a checkpoint asks.
    ///
    /// # Errors
    /// As [`Operator::capture`].
    fn capture_sections(&mut self) -> Result<Vec<CapturedSection>> {
        Ok(self.capture()?.into_iter().map(CapturedSection::from).collect())
    }

    /// Restores state before the first tick. `sections` are all sections of this operator whose key groups intersect
    /// this worker's; rows of other key groups must be left out. State that is not keyed arrives on every worker.
    ///
    /// # Errors
    /// When the state cannot be decoded or does not fit the operator.
    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        if sections.is_empty() {
            Ok(())
        } else {
            Err(crate::Error::Checkpoint(
                "the checkpoint holds state for an operator that keeps none".into(),
            ))
        }
    }

    /// Returns the wall time (milliseconds) at which the operator wants a tick to be closed even if nothing arrives.
    fn next_timer_ms(&self) -> Option<i64> {
        None
    }
}

/// Builds an operator for one worker.
pub type OperatorFactory = Arc<dyn Fn(&OperatorContext) -> Result<Box<dyn Operator>> + Send + Sync>;

/// What an [`AsyncOperator`] is told when a worker begins.
#[derive(Clone)]
pub struct AsyncContext {
    /// The job's I/O runtime, for what the operator does besides its requests.
    pub runtime: tokio::runtime::Handle,
    /// The job's clock.
    pub time: Arc<dyn TimeSource>,
    /// The run of the job: all workers of one run have the same, and every later run a greater one.
    pub generation: u64,
    /// Counters shown in the job's status.
    pub metrics: Arc<OperatorMetrics>,
}

/// An operator that asks something outside about each batch: a lookup, an enrichment.
///
/// Its requests run on the job's I/O runtime, not on a worker's thread. A tick is closed only when all its answers are
/// back; a restart repeats the requests of ticks since the last checkpoint.
pub trait AsyncOperator: Send + Sync {
    /// Learns that a worker begins; called by each of them, before its first batch.
    fn start(&self, _context: &AsyncContext) {}

    /// Answers a batch at once, on the worker's thread, when nothing outside must be asked; `None`: a request is needed.
    ///
    /// # Errors
    /// Any error fails the job.
    fn answer_now(&self, _batch: &RecordBatch, _tick: &OpenTick) -> Result<Option<RecordBatch>> {
        Ok(None)
    }

    /// Makes the request for a batch. The answer has the operator's schema and may have any number of rows; an error
    /// fails the job.
    fn request(&self, batch: RecordBatch, tick: OpenTick) -> BoxFuture<'static, Result<RecordBatch>>;
}

/// In which order the answers of one worker go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncOrder {
    /// In the order of the requests.
    Ordered,
    /// As they come back, within their tick.
    Unordered,
}

/// How an [`AsyncOperator`] is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncOptions {
    /// Requests in flight per worker at most, at least 1; further batches wait.
    pub capacity: usize,
    /// In which order answers go on.
    pub order: AsyncOrder,
    /// A request that takes longer fails the job.
    pub timeout: Duration,
}

impl Default for AsyncOptions {
    fn default() -> Self {
        Self {
            capacity: 16,
            order: AsyncOrder::Ordered,
            timeout: Duration::from_secs(60),
        }
    }
}
