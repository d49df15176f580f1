//! What a source is: a table made of splits, each read by one worker at a time.
//!
//! ```text
//!  coordinator (worker 0)                      each worker
//!  SplitEnumerator ── new splits ── clock ──▶  source operator ── open_split ──▶ SplitReader (one per split)
//! ```
//! A [`SplitReader`] never blocks: what needs I/O runs on the job's I/O runtime, fills a bounded queue, and wakes the
//! worker through [`SplitContext::waker`].

use crate::error::Result;
use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Names a split within its table: a shard id, a file path, a generator's index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SplitId(pub String);

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A split and where to begin reading it.
///
/// Positions are text that only the connector understands (a sequence number, a byte offset); they are stored in
/// checkpoints, so their form is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The split's name.
    pub id: SplitId,
    /// The position to read from.
    pub position: String,
}

/// What a checkpoint knows of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// The position after the last row that was read.
    pub position: String,
    /// True when the split has ended and was read to its end.
    pub ended: bool,
}

/// What an enumerator found.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Splits that were not known before, with their start positions.
    pub new: Vec<Split>,
    /// True when no further split will ever appear: once all known ones have ended, the table has ended.
    pub complete: bool,
    /// Known splits that have ended and need not be in checkpoints any more, for the enumerator will not take them for new
    /// ones. Others of them stay.
    pub forget: Vec<SplitId>,
}

/// Finds the splits of a table. Runs on the job's I/O runtime, once at start and then at its interval.
#[async_trait::async_trait]
pub trait SplitEnumerator: Send {
    /// Looks for splits; `known` are all splits found so far, those of a restored checkpoint included.
    ///
    /// # Errors
    /// When the table cannot be looked at; the job fails and is restarted, unless the error is
    /// [permanent](crate::Error::permanent).
    async fn discover(&mut self, known: &BTreeMap<SplitId, SplitState>) -> Result<Discovery>;

    /// Returns how often to look again; `None` for once.
    fn interval(&self) -> Option<Duration> {
        None
    }
}

/// What a split's reader is told when it is opened.
#[derive(Clone)]
pub struct SplitContext {
    /// The table's name, for messages.
    pub table: String,
    /// This worker's index.
    pub worker: usize,
    /// Wakes the worker when the reader has something; may be called from any thread, any number of times.
    pub waker: Arc<dyn Fn() + Send + Sync>,
    /// The runtime for the reader's I/O.
    pub runtime: tokio::runtime::Handle,
    /// Counters of the source, for rows dropped by its error policy.
    pub metrics: Arc<crate::metrics::OperatorMetrics>,
}

impl fmt::Debug for SplitContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitContext")
            .field("table", &self.table)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// What a reader answers when asked for rows.
#[derive(Debug)]
pub enum ReadOutcome {
    /// Rows in the source's schema; [`SplitReader::position`] is now behind them.
    Rows(RecordBatch),
    /// Nothing at the moment; the waker will be called when that changes.
    Pending,
    /// The split has ended and will never have rows again.
    Ended,
}

/// Reads one split, without blocking.
pub trait SplitReader {
    /// Returns the next rows, at most about `rows_max` of them and `bytes_max` bytes of input.
    ///
    /// # Errors
    /// When the split cannot be read or a row cannot be decoded and the table's policy is to fail.
    fn read(&mut self, rows_max: usize, bytes_max: usize) -> Result<ReadOutcome>;

    /// Returns the position after the last row returned; restoring there reads exactly the rows that follow.
    fn position(&self) -> String;

    /// Says whether `read` would return rows or the end now. Called often, within ticks and between them: must be cheap.
    fn is_ready(&mut self) -> bool;

    /// Returns how long to wait before asking again when the reader itself limits its rate.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// A table that can be read.
#[async_trait::async_trait]
pub trait Source: Send + Sync {
    /// Looks whether what the table names is there, before a new job is accepted. Changes nothing, and is not asked again
    /// when the job starts: [`SplitEnumerator::discover`] finds out then.
    ///
    /// # Errors
    /// [`Error::Permanent`](crate::Error::Permanent) refuses the job; another error does not.
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Makes the enumerator of the table's splits.
    ///
    /// # Errors
    /// When the table's options do not allow it.
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>>;

    /// Opens a split on a worker. Runs on the worker's thread and must not block.
    ///
    /// # Errors
    /// When the position cannot be understood.
    fn open_split(&self, split: &Split, context: SplitContext) -> Result<Box<dyn SplitReader>>;
}
