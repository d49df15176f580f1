//! Commands of the clock, and what workers report to it. They travel as data, so that several processes work the same
//! way as several threads.

use crate::source::{Split, SplitId};
use crate::time::Watermark;
use serde::{Deserialize, Serialize};
use tidemill_checkpoints::Attempt;

/// From the clock to the sources of every worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// The tick is open: take in rows up to the budget. With `hold`, take in nothing: state is captured first.
    Open {
        tick: u64,
        wall_time_ms: i64,
        hold: Option<Attempt>,
        ceilings: Vec<Option<i64>>,
        assignments: Vec<Assignment>,
    },
    /// The tick is closed: take in nothing more, and report.
    Close { tick: u64 },
}

/// A split given to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) worker: usize,
    pub(crate) table: usize,
    pub(crate) split: Split,
    /// The split's watermark in a restored checkpoint.
    pub(crate) watermark: Watermark,
}

/// From the clock to all operators of every worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TickClosed {
    pub(crate) tick: u64,
    pub(crate) wall_time_ms: i64,
    /// By table.
    pub(crate) watermarks: Vec<Watermark>,
    pub(crate) is_last: bool,
}

/// From a worker to the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A source has rows and no tick is open.
    Ready,
    /// The worker has enough rows of this tick: its budget is used up (`full`), or nothing is left. It says so once.
    Settled { tick: u64, full: bool },
    /// What was taken in during the tick; `more` says that there are rows to take in now. `busy` are splits of tables
    /// with an idle timeout that have something to read which this tick did not get to.
    Closed {
        tick: u64,
        worker: usize,
        splits: Vec<SplitReport>,
        more: bool,
        busy: Vec<(usize, SplitId)>,
    },
    /// The worker's state of the hold's tick is captured.
    Captured { tick: u64 },
    /// The earliest processing-time timer of the worker's operators, in wall milliseconds.
    Timer { worker: usize, at_ms: Option<i64> },
}

/// What a tick changed in a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SplitReport {
    pub(crate) table: usize,
    pub(crate) id: SplitId,
    pub(crate) rows: u64,
    pub(crate) position: String,
    pub(crate) watermark: Watermark,
    pub(crate) ended: bool,
}
