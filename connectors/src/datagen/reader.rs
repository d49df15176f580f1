//! Reads a split of made-up rows, at most as fast as was asked for.

use super::Recipe;
use super::generator::Rows;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::Result;
use tidemill_engine::source::{ReadOutcome, SplitReader};
use tidemill_engine::time::TimeSource;

/// Rows of a batch: the columns of a few stay in the cache.
const BATCH_ROWS_MAX: u64 = 8_192;
/// A split that was held back catches up with no more than this.
const BACKLOG_MAX: Duration = Duration::from_secs(1);
/// A row that is due is waited for at least this long, so that slow rows come in small batches.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// A split: rows `number`, `number + splits`, `number + 2 * splits`, ...
pub(super) struct GeneratedSplit {
    recipe: Arc<Recipe>,
    schema: SchemaRef,
    time: Arc<dyn TimeSource>,
    number: u64,
    /// The next row, counted within the split.
    next: u64,
    /// Rows of the split in all.
    rows: u64,
    pace: Option<Pace>,
    row_bytes: usize,
}

/// When rows are due: row `first + j` of the split at `start`, plus the time that `j * splits` rows take in all splits.
struct Pace {
    first: u64,
    start: Duration,
    rows_per_second: u64,
}

impl GeneratedSplit {
    pub(super) fn new(
        recipe: Arc<Recipe>,
        schema: SchemaRef,
        time: Arc<dyn TimeSource>,
        number: u64,
        next: u64,
    ) -> Self {
        let rows = recipe
            .rows
            .map_or(u64::MAX, |all| all.saturating_sub(number).div_ceil(recipe.splits));
        let start = time.monotonic();
        let pace = recipe.rows_per_second.map(|rows_per_second| Pace {
            first: next,
            start,
            rows_per_second,
        });
        let row_bytes = recipe
            .generators
            .iter()
            .map(super::Generator::width)
            .sum::<usize>()
            .max(1);
        Self {
            recipe,
            schema,
            time,
            number,
            next,
            rows,
            pace,
            row_bytes,
        }
    }

    /// Returns how many rows may be read now.
    fn due(&mut self) -> u64 {
        let left = self.rows.saturating_sub(self.next);
        let Some(pace) = &mut self.pace else { return left };
        let now = self.time.monotonic();
        let (splits, number) = (self.recipe.splits, self.number);
        let due_by = |pace: &Pace| {
            let elapsed = now.saturating_sub(pace.start).as_nanos();
            let all = elapsed * u128::from(pace.rows_per_second) / 1_000_000_000;
            let all = u64::try_from(all).unwrap_or(u64::MAX);
            // Split `number` is behind split 0 by as many rows.
            if all < number { 0 } else { (all - number) / splits + 1 }
        };
        let done = self.next - pace.first;
        let due = due_by(pace).saturating_sub(done);
        let backlog_max = (pace.rows_per_second.saturating_mul(BACKLOG_MAX.as_secs()) / splits).max(1) + 1;
        if due > backlog_max {
            pace.first = self.next;
            pace.start = now.saturating_sub(BACKLOG_MAX);
            return due_by(pace).min(left);
        }
        due.min(left)
    }
}

impl SplitReader for GeneratedSplit {
    fn read(&mut self, rows_max: usize, bytes_max: usize) -> Result<ReadOutcome> {
        if self.next >= self.rows {
            return Ok(ReadOutcome::Ended);
        }
        let budget = rows_max.min((bytes_max / self.row_bytes).max(1)).max(1);
        let count = self.due().min(budget as u64).min(BATCH_ROWS_MAX);
        if count == 0 {
            return Ok(ReadOutcome::Pending);
        }
        let stride = self.recipe.splits;
        let first = self.number.wrapping_add(self.next.wrapping_mul(stride));
        let rows = Rows {
            first,
            stride,
            count: count as usize,
            now_ms: self.time.wall_ms(),
        };
        let columns = self.recipe.generators.iter().map(|generator| generator.column(rows));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.next += count;
        Ok(ReadOutcome::Rows(batch))
    }

    fn position(&self) -> String {
        self.next.to_string()
    }

    fn is_ready(&mut self) -> bool {
        self.next >= self.rows || self.due() > 0
    }

    fn retry_after(&self) -> Option<Duration> {
        let pace = self.pace.as_ref()?;
        if self.next >= self.rows {
            return None;
        }
        let all = u128::from(self.number) + u128::from(self.next - pace.first) * u128::from(self.recipe.splits);
        let at = (all * 1_000_000_000).div_ceil(u128::from(pace.rows_per_second));
        let at = pace.start + Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX));
        Some(at.saturating_sub(self.time.monotonic()).max(WAIT_MIN))
    }
}
