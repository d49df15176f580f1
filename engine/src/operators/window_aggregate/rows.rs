//! Which window each row of a batch belongs to.

use super::Window;
use super::panes::Panes;
use crate::error::{Error, Result};
use crate::graph::WindowAssigner;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Finds windows of rows.
pub(super) struct Windows {
    assigner: WindowAssigner,
    panes: Option<Panes>,
}

/// The windows of a batch's rows.
pub(super) enum WindowRows {
    /// All rows are in one window: the usual case, which needs no copy.
    One(Window),
    /// Row numbers by window.
    Many(BTreeMap<Window, Vec<u32>>),
}

impl Windows {
    pub(super) fn new(assigner: &WindowAssigner) -> Self {
        Self {
            assigner: assigner.clone(),
            panes: Panes::of(assigner),
        }
    }

    /// Returns the windows, or the panes, of a batch that has rows.
    pub(super) fn of(&self, batch: &RecordBatch) -> Result<WindowRows> {
        match &self.assigner {
            WindowAssigner::Tumble {
                time,
                size_ms,
                offset_ms,
            } => {
                let times = millis(batch.column(*time))?;
                Ok(rows_by_window(
                    times.len(),
                    |row| {
                        let start_ms = tumble_start(times[row], *size_ms, *offset_ms);
                        Window {
                            end_ms: start_ms.saturating_add(*size_ms),
                            start_ms,
                        }
                    },
                    |row, window| window.start_ms <= times[row] && times[row] < window.end_ms,
                ))
            }
            WindowAssigner::Hop { time, .. } | WindowAssigner::Cumulate { time, .. } => {
                let times = millis(batch.column(*time))?;
                let Some(panes) = self.panes else {
                    return Err(Error::Internal("overlapping windows without panes".into()));
                };
                Ok(rows_by_window(
                    times.len(),
                    |row| panes.pane_of(times[row]),
                    |row, pane| pane.start_ms <= times[row] && times[row] < pane.end_ms,
                ))
            }
            WindowAssigner::Session { .. } => Err(Error::Internal("a session is not found row by row".into())),
            WindowAssigner::Attached { start, end } => {
                let (starts, ends) = (millis(batch.column(*start))?, millis(batch.column(*end))?);
                Ok(rows_by_window(
                    starts.len(),
                    |row| Window {
                        end_ms: ends[row],
                        start_ms: starts[row],
                    },
                    |row, window| window.start_ms == starts[row] && window.end_ms == ends[row],
                ))
            }
        }
    }
}

/// Returns the start of the tumbling window of a time, as Flink's `TimeWindow.getWindowStartWithOffset` defines it.
pub(crate) fn tumble_start(time_ms: i64, size_ms: i64, offset_ms: i64) -> i64 {
    let shifted = time_ms.saturating_sub(offset_ms);
    (shifted - shifted.rem_euclid(size_ms).min(shifted.saturating_sub(i64::MIN))).saturating_add(offset_ms)
}

/// Sorts rows by window; neighbours mostly share one, so the last window is tried first.
fn rows_by_window(
    rows: usize,
    window_of: impl Fn(usize) -> Window,
    is_in: impl Fn(usize, Window) -> bool,
) -> WindowRows {
    let first = window_of(0);
    let Some(other) = (1..rows).find(|&row| !is_in(row, first)) else {
        return WindowRows::One(first);
    };
    let mut windows = BTreeMap::new();
    let mut window = first;
    let mut run: Vec<u32> = (0..other as u32).collect();
    for row in other..rows {
        if !is_in(row, window) {
            windows.entry(window).or_insert_with(Vec::new).append(&mut run);
            window = window_of(row);
        }
        run.push(row as u32);
    }
    windows.entry(window).or_insert_with(Vec::new).append(&mut run);
    WindowRows::Many(windows)
}

/// Returns the milliseconds since the epoch of a timestamp column (or of an integer column that holds them).
pub(crate) fn millis(column: &ArrayRef) -> Result<Cow<'_, [i64]>> {
    if column.null_count() > 0 {
        return Err(Error::operator(
            "the event time of a row is NULL; declare the column NOT NULL or filter such rows out before the window",
        ));
    }
    let divided = |by: i64| -> Result<Cow<'_, [i64]>> {
        let values = arrow::compute::cast(column, &DataType::Int64)?;
        Ok(Cow::Owned(
            values
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .map(|value| value.div_euclid(by))
                .collect(),
        ))
    };
    match column.data_type() {
        DataType::Int64 => Ok(Cow::Borrowed(column.as_primitive::<Int64Type>().values())),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(Cow::Borrowed(
            column
                .as_primitive::<arrow::datatypes::TimestampMillisecondType>()
                .values(),
        )),
        DataType::Timestamp(TimeUnit::Microsecond, _) => divided(1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => divided(1_000_000),
        DataType::Timestamp(TimeUnit::Second, _) => {
            let values = arrow::compute::cast(column, &DataType::Int64)?;
            let values = values
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .map(|value| value.saturating_mul(1_000));
            Ok(Cow::Owned(values.collect()))
        }
        other => Err(Error::operator(format!("an event time is a timestamp, not {other}"))),
    }
}

/// Returns a column of one timestamp, given in milliseconds.
pub(super) fn timestamps(ms: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    timestamps_of(vec![ms; rows], data_type)
}

/// Returns a column of timestamps, given in milliseconds.
pub(crate) fn timestamps_of(all_ms: Vec<i64>, data_type: &DataType) -> Result<ArrayRef> {
    let value = |ms: i64| match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => ms.checked_mul(1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => ms.checked_mul(1_000_000),
        DataType::Timestamp(TimeUnit::Second, _) => Some(ms.div_euclid(1_000)),
        _ => Some(ms),
    };
    let fits = |ms: i64| {
        value(ms).ok_or_else(|| Error::operator(format!("the window bound {ms} ms does not fit {data_type}")))
    };
    let values = all_ms.into_iter().map(fits).collect::<Result<Vec<i64>>>()?;
    Ok(arrow::compute::cast(&Int64Array::from(values), data_type)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_the_epoch_with_offset_also_before_it() {
        assert_eq!(tumble_start(12_345, 5_000, 0), 10_000);
        assert_eq!(tumble_start(-1, 5_000, 0), -5_000);
        assert_eq!(tumble_start(-5_000, 5_000, 0), -5_000);
        assert_eq!(tumble_start(12_345, 5_000, 3_000), 8_000);
        assert_eq!(tumble_start(12_345, 5_000, -1_000), 9_000);
        assert_eq!(tumble_start(i64::MIN, 5_000, 0), i64::MIN);
    }

    #[test]
    fn rows_of_windows_that_alternate_are_gathered() {
        let times = [1, 2, 12, 3, 13, 25];
        let window = |row: usize| {
            let start_ms = tumble_start(times[row], 10, 0);
            Window {
                end_ms: start_ms + 10,
                start_ms,
            }
        };
        let WindowRows::Many(windows) = rows_by_window(6, window, |row, w| window(row) == w) else {
            panic!()
        };
        let rows: Vec<_> = windows.into_values().collect();
        assert_eq!(rows, vec![vec![0, 1, 3], vec![2, 4], vec![5]]);
    }
}
