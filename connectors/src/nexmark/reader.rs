//! Reads a split of events, at most as fast as was asked for.

use super::columns::Rows;
use super::events::spans;
use super::model::Model;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::Result;
use tidemill_engine::source::{ReadOutcome, SplitReader};
use tidemill_engine::time::TimeSource;

/// Rows of a batch: the columns of a few stay in the cache.
const BATCH_ROWS_MAX: usize = 2_048;
/// About how large a row is in memory, all of its kinds together.
const ROW_BYTES: usize = 400;
/// A split that was held back catches up with no more than this.
const BACKLOG_MAX: Duration = Duration::from_secs(1);
/// Events that are due are waited for at least this long, so that slow ones come in small batches.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// What all splits of a table share.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) model: Model,
    /// The last event of the stream.
    pub(super) last: u64,
    /// How many events may come in a second, over all splits; `None`: as many as can be made.
    pub(super) events_per_second: Option<u64>,
    pub(super) splits: u64,
}

/// A split.
pub(super) struct EventReader {
    recipe: Arc<Recipe>,
    schema: SchemaRef,
    time: Arc<dyn TimeSource>,
    /// The number of the next event.
    next: u64,
    pace: Option<Pace>,
}

/// Event `first + j` of the whole stream is due at `start`, plus the time of `j` events.
struct Pace {
    first: u64,
    start: Duration,
    events_per_second: u64,
}

impl Pace {
    /// Returns the last event that is due.
    fn due(&self, now: Duration) -> u64 {
        let elapsed = now.saturating_sub(self.start).as_nanos();
        let events = elapsed * u128::from(self.events_per_second) / 1_000_000_000;
        self.first.saturating_add(u64::try_from(events).unwrap_or(u64::MAX))
    }
}

impl EventReader {
    pub(super) fn new(recipe: Arc<Recipe>, schema: SchemaRef, time: Arc<dyn TimeSource>, next: u64) -> Self {
        let start = time.monotonic();
        // A new stream begins at its beginning in all splits; a continued one wherever each split is.
        let first = if next / super::events::EPOCH < recipe.splits {
            0
        } else {
            next
        };
        let pace = recipe.events_per_second.map(|events_per_second| Pace {
            first,
            start,
            events_per_second,
        });
        Self {
            recipe,
            schema,
            time,
            next,
            pace,
        }
    }

    /// Returns the last event that may be read now.
    fn due(&mut self) -> u64 {
        let last = self.recipe.last;
        let Some(pace) = &mut self.pace else { return last };
        let now = self.time.monotonic();
        let due = pace.due(now);
        let backlog = pace.events_per_second.saturating_mul(BACKLOG_MAX.as_secs());
        let lap = self.recipe.splits * super::events::EPOCH;
        if due.saturating_sub(self.next) > backlog.saturating_add(lap) {
            pace.first = self.next;
            pace.start = now.saturating_sub(BACKLOG_MAX);
            return pace.due(now).min(last);
        }
        due.min(last)
    }
}

impl SplitReader for EventReader {
    fn read(&mut self, rows_max: usize, bytes_max: usize) -> Result<ReadOutcome> {
        if self.next > self.recipe.last {
            return Ok(ReadOutcome::Ended);
        }
        let count = rows_max.min(bytes_max / ROW_BYTES).clamp(1, BATCH_ROWS_MAX);
        let due = self.due();
        let (spans, next) = spans(self.next, due, self.recipe.splits, count);
        let count = spans.iter().map(|span| span.len()).sum();
        if count == 0 {
            return Ok(ReadOutcome::Pending);
        }
        let rows = Rows {
            model: &self.recipe.model,
            spans: &spans,
            count,
        };
        let columns = self.schema.fields().iter().map(|field| rows.column(field));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.next = next;
        Ok(ReadOutcome::Rows(batch))
    }

    fn position(&self) -> String {
        self.next.to_string()
    }

    fn is_ready(&mut self) -> bool {
        self.next > self.recipe.last || self.next <= self.due()
    }

    fn retry_after(&self) -> Option<Duration> {
        let pace = self.pace.as_ref()?;
        if self.next > self.recipe.last {
            return None;
        }
        let events = u128::from(self.next.saturating_sub(pace.first));
        let nanos = (events * 1_000_000_000).div_ceil(u128::from(pace.events_per_second));
        let at = pace.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(at.saturating_sub(self.time.monotonic()).max(WAIT_MIN))
    }
}
