//! Counters that workers write and the job's status reads.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one operator on one worker.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    /// Rows that arrived.
    pub rows_in: Counter,
    /// Rows that were emitted.
    pub rows_out: Counter,
    /// Bytes of input that a source read.
    pub bytes_in: Counter,
    /// Rows dropped because they were late.
    pub rows_late: Counter,
    /// Rows dropped by an error policy.
    pub rows_dropped: Counter,
    /// Bytes of state, as last captured.
    pub state_bytes: Counter,
    /// Requests made to something outside, by an operator that asks it.
    pub requests: Counter,
    /// Those of them that failed; an operator may have tried again.
    pub requests_failed: Counter,
}

/// A number that one worker writes and anybody may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the counter.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets the counter, for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads the counter.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A snapshot of an operator's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCounts {
    /// Rows that arrived.
    pub rows_in: u64,
    /// Rows that were emitted.
    pub rows_out: u64,
    /// Bytes of input that a source read.
    pub bytes_in: u64,
    /// Rows dropped because they were late.
    pub rows_late: u64,
    /// Rows dropped by an error policy.
    pub rows_dropped: u64,
    /// Bytes of state, as last captured.
    pub state_bytes: u64,
    /// Requests made to something outside, by an operator that asks it.
    #[serde(default)]
    pub requests: u64,
    /// Those of them that failed; an operator may have tried again.
    #[serde(default)]
    pub requests_failed: u64,
}

impl OperatorMetrics {
    /// Reads all counters.
    #[must_use]
    pub fn counts(&self) -> OperatorCounts {
        OperatorCounts {
            rows_in: self.rows_in.get(),
            rows_out: self.rows_out.get(),
            bytes_in: self.bytes_in.get(),
            rows_late: self.rows_late.get(),
            rows_dropped: self.rows_dropped.get(),
            state_bytes: self.state_bytes.get(),
            requests: self.requests.get(),
            requests_failed: self.requests_failed.get(),
        }
    }
}

impl std::ops::AddAssign<&OperatorCounts> for OperatorCounts {
    fn add_assign(&mut self, other: &OperatorCounts) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.bytes_in += other.bytes_in;
        self.rows_late += other.rows_late;
        self.rows_dropped += other.rows_dropped;
        self.state_bytes += other.state_bytes;
        self.requests += other.requests;
        self.requests_failed += other.requests_failed;
    }
}
