//! What every connector must keep, as tests that each of them runs.
//!
//! [`source`] checks readers: the same rows whatever the sizes of the reads, and from every position exactly the rest.
//! [`sink`] checks writers and committers: nothing visible before its checkpoint, everything once after it, whatever is
//! repeated and wherever a process dies.

pub(crate) mod sink;
pub(crate) mod source;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemill_engine::metrics::OperatorMetrics;

/// A runtime for a connector's I/O.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A waker that counts, and lets a test wait for the next call.
#[derive(Clone, Default)]
pub(crate) struct Wakes {
    count: Arc<AtomicUsize>,
    condition: Arc<(std::sync::Mutex<()>, std::sync::Condvar)>,
}

impl Wakes {
    /// Returns the function that a connector calls.
    pub(crate) fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wakes = self.clone();
        Arc::new(move || {
            let _guard = wakes.condition.0.lock().unwrap();
            wakes.count.fetch_add(1, Ordering::SeqCst);
            wakes.condition.1.notify_all();
        })
    }

    /// Returns the calls so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until there were more than `seen` calls. A connector that forgets to wake hangs its test: it fails then.
    pub(crate) fn wait_beyond(&self, seen: usize) {
        let guard = self.condition.0.lock().unwrap();
        let limit = std::time::Duration::from_secs(60);
        let waited = self
            .condition
            .1
            .wait_timeout_while(guard, limit, |()| self.count() <= seen)
            .unwrap();
        assert!(!waited.1.timed_out(), "the connector never woke its worker");
    }
}

/// New counters.
pub(crate) fn metrics() -> Arc<OperatorMetrics> {
    Arc::new(OperatorMetrics::default())
}

/// The rows of batches as text, one line each.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let Some(first) = batches.first() else {
        return Vec::new();
    };
    let batch = concat_batches(&first.schema(), batches).unwrap();
    let formatter = |array| arrow::util::display::ArrayFormatter::try_new(array, &Default::default()).unwrap();
    let columns: Vec<_> = batch.columns().iter().map(|array| formatter(array.as_ref())).collect();
    let line = |row| {
        columns
            .iter()
            .map(|column| column.value(row).to_string())
            .collect::<Vec<_>>()
            .join("|")
    };
    (0..batch.num_rows()).map(line).collect()
}
