//! Time columns in milliseconds.

use crate::error::Result;
use crate::graph::ShiftedTime;
use crate::operators::window_aggregate::millis;
use arrow::array::{Array, ArrayRef, RecordBatch, make_array};

/// Returns the milliseconds of a timestamp column, with `default` in place of nulls.
pub(super) fn millis_or(column: &ArrayRef, default: i64) -> Result<Vec<i64>> {
    let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(millis(column)?.into_owned());
    };
    let filled = make_array(column.to_data().into_builder().nulls(None).build()?);
    let mut times = millis(&filled)?.into_owned();
    for (row, time) in times.iter_mut().enumerate() {
        if nulls.is_null(row) {
            *time = default;
        }
    }
    Ok(times)
}

/// Returns the least of several times of each row; none of them is null.
pub(super) fn due_of(batch: &RecordBatch, times: &[ShiftedTime]) -> Result<Vec<i64>> {
    let mut due = vec![i64::MAX; batch.num_rows()];
    for time in times {
        for (due, time_ms) in due.iter_mut().zip(millis(batch.column(time.column))?.iter()) {
            *due = (*due).min(time_ms.saturating_add(time.offset_ms));
        }
    }
    Ok(due)
}
