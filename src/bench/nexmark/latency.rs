//! How long after the watermark has passed a window's end its result is at the sink.
//!
//! Events come at a rate of the wall clock, and their event time at a rate of its own. So it is known when the event is due
//! whose time moves the watermark past a window's end: event n is due n / rate seconds after the source was opened, whether
//! or not it was read in time. A result is there when its tick is closed at the sink, for a sink that shows its output per tick.
//! What lies between counts: waiting for the tick to open, reading, aggregating, firing, and the way to the sink. The
//! event of another split that the watermark waits for, too, comes up to 50 events a split later.

use super::super::latency::{Latencies, Percentiles};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use serde::Serialize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tidemill_connectors::{ConnectorEnvironment, ConnectorError, NEXMARK_BASE_MS, TableDefinition};
use tidemill_engine::operator::{Progress, TickClose};
use tidemill_engine::sink::{
    CommitterContext, DeliveryGuarantee, PreCommit, PreCommitId, Sink, SinkCommitter, SinkContext, SinkWriter,
};
use tidemill_engine::source::{Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_engine::{Error, Result};
use tidemill_sql::Connectors;

/// The column of a result that says which window it is of.
const WINDOW_END: &str = "window_end";

/// How far the watermark is behind the greatest time: as `tables.sql` says.
const WATERMARK_DELAY_MS: i64 = 4_000;

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ResultLatency {
    /// Results, each a row of a window.
    pub(crate) results: usize,
    #[serde(flatten)]
    pub(crate) percentiles: Percentiles,
}

/// Watches the source being opened and the results coming.
pub(super) struct Watch {
    events: u64,
    /// Of the wall clock.
    events_per_second: u64,
    /// Per second of event time.
    event_rate: u64,
    opened: OnceLock<Instant>,
    latencies: Mutex<Latencies>,
}

impl Watch {
    pub(super) fn new(events: u64, events_per_second: u64, event_rate: u64) -> Arc<Self> {
        Arc::new(Self {
            events,
            events_per_second,
            event_rate,
            opened: OnceLock::new(),
            latencies: Mutex::default(),
        })
    }

    /// Returns what was measured; `None` when no window ended before the last event.
    pub(super) fn measured(&self) -> Option<ResultLatency> {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let latencies = std::mem::take(&mut *latencies);
        (latencies.len() > 0).then(|| ResultLatency {
            results: latencies.len(),
            percentiles: latencies.percentiles(),
        })
    }

    /// Returns when the watermark passes the end of a window; `None` when only the end of the input ends it.
    fn passes(&self, end_ms: i64) -> Option<Instant> {
        let event = event_that_passes(end_ms, self.event_rate)?;
        if event > self.events {
            return None;
        }
        let nanos = u128::from(event) * 1_000_000_000 / u128::from(self.events_per_second);
        Some(*self.opened.get()? + Duration::from_nanos(u64::try_from(nanos).ok()?))
    }
}

/// Returns the first event whose time moves the watermark past a window's end.
fn event_that_passes(end_ms: i64, event_rate: u64) -> Option<u64> {
    let time_ms = u128::try_from(end_ms - 1 + WATERMARK_DELAY_MS - NEXMARK_BASE_MS).ok()?;
    u64::try_from((time_ms * u128::from(event_rate)).div_ceil(1_000)).ok()
}

/// The connectors of the program, watched.
pub(super) struct Watched {
    pub(super) environment: ConnectorEnvironment,
    pub(super) watch: Arc<Watch>,
}

impl Connectors for Watched {
    fn check_source(&self, table: &TableDefinition) -> std::result::Result<(), ConnectorError> {
        self.environment.check_source(table)
    }

    fn check_sink(&self, table: &TableDefinition) -> std::result::Result<(), ConnectorError> {
        self.environment.check_sink(table)?;
        let column = table.schema.column_with_name(WINDOW_END);
        match column.map(|(_, field)| field.data_type()) {
            Some(DataType::Timestamp(TimeUnit::Millisecond, None)) => Ok(()),
            _ => Err(ConnectorError::new(
                "the query writes no window_end, so there is nothing to measure the latency of",
            )
            .with_hint("leave --events-per-second out, or take q5-part, q7-part or q11")),
        }
    }

    fn create_source(
        &self,
        table: &TableDefinition,
        projection: &[usize],
    ) -> std::result::Result<Arc<dyn Source>, ConnectorError> {
        let source = self.environment.create_source(table, projection)?;
        let watch = Arc::clone(&self.watch);
        Ok(Arc::new(WatchedSource { source, watch }))
    }

    fn create_sink(&self, table: &TableDefinition) -> std::result::Result<Arc<dyn Sink>, ConnectorError> {
        let column = table.schema.column_with_name(WINDOW_END).map(|(column, _)| column);
        Ok(Arc::new(TimingSink {
            column: column.ok_or_else(|| ConnectorError::new("the table has no window_end"))?,
            watch: Arc::clone(&self.watch),
        }))
    }
}

struct WatchedSource {
    source: Arc<dyn Source>,
    watch: Arc<Watch>,
}

impl Source for WatchedSource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        self.source.enumerator()
    }

    fn open_split(&self, split: &Split, context: SplitContext) -> Result<Box<dyn SplitReader>> {
        self.watch.opened.get_or_init(Instant::now);
        self.source.open_split(split, context)
    }
}

/// A sink that notes when results come, and drops them.
struct TimingSink {
    column: usize,
    watch: Arc<Watch>,
}

struct TimingWriter {
    column: usize,
    watch: Arc<Watch>,
    /// The windows' ends of the open tick's rows.
    ends: Vec<i64>,
}

impl Sink for TimingSink {
    fn guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::AtLeastOnce
    }

    fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(TimingWriter {
            column: self.column,
            watch: Arc::clone(&self.watch),
            ends: Vec::new(),
        }))
    }

    fn committer(&self, _context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        Ok(None)
    }
}

impl SinkWriter for TimingWriter {
    fn write(&mut self, batch: &RecordBatch, _wall_time_ms: i64) -> Result<()> {
        let ends = batch.column(self.column).as_primitive_opt::<TimestampMillisecondType>();
        let ends = ends.ok_or_else(|| Error::Internal("window_end is no timestamp".into()))?;
        self.ends.extend(ends.values());
        Ok(())
    }

    fn tick_closed(&mut self, _close: &TickClose) -> Result<Progress> {
        if self.ends.is_empty() {
            return Ok(Progress::Done);
        }
        let now = Instant::now();
        let mut latencies = self.watch.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for end in self.ends.drain(..) {
            if let Some(passed) = self.watch.passes(end) {
                latencies.add(now.saturating_duration_since(passed));
            }
        }
        Ok(Progress::Done)
    }

    fn pre_commit(&mut self, _id: PreCommitId) -> Result<PreCommit> {
        Ok(Box::pin(async { Ok(None) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_passes_with_the_event_four_seconds_after_the_end() {
        // The last millisecond of the window is 9,999: event time 13,999 ms, at 1,000 events a second event 13,999.
        assert_eq!(event_that_passes(NEXMARK_BASE_MS + 10_000, 1_000), Some(13_999));
        // Three events a second: the first at or behind 13,999 ms is due at 14,000.
        assert_eq!(event_that_passes(NEXMARK_BASE_MS + 10_000, 3), Some(42));
        assert_eq!(event_that_passes(NEXMARK_BASE_MS - 10_000, 3), None);
    }

    #[test]
    fn windows_that_only_the_end_ends_are_not_measured() {
        let watch = Watch::new(14_000, 1_000, 1_000);
        assert_eq!(watch.passes(NEXMARK_BASE_MS + 10_000), None, "nothing was opened");
        let opened = *watch.opened.get_or_init(Instant::now);
        let passed = watch.passes(NEXMARK_BASE_MS + 10_000);
        assert_eq!(passed, Some(opened + Duration::from_millis(13_999)));
        assert_eq!(watch.passes(NEXMARK_BASE_MS + 20_000), None);
        assert!(watch.measured().is_none());
    }

    #[test]
    fn event_time_may_run_faster_than_the_wall_clock() {
        let watch = Watch::new(14_000, 10_000, 1_000);
        let opened = *watch.opened.get_or_init(Instant::now);
        // The same event as at a tenth of the pace, due ten times as soon.
        let passed = watch.passes(NEXMARK_BASE_MS + 10_000);
        assert_eq!(passed, Some(opened + Duration::from_micros(1_399_900)));
    }
}
