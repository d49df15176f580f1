//! What the rows of a batch do to the result that they belong to, for sinks.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::Int64Type;
use tidemill_engine::graph::weight_of;
use tidemill_engine::{Error, Result};

/// What a row is: Flink's four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It is added.
    Insert,
    /// It was there before an update.
    UpdateBefore,
    /// It is there after an update.
    UpdateAfter,
    /// It is taken out.
    Delete,
}

/// What the rows of a batch do.
pub(crate) struct Changes<'a> {
    columns: usize,
    weights: Option<&'a [i64]>,
    /// Says of each row but the first whether it has the primary key of the one before.
    same_key: Option<BooleanBuffer>,
}

impl<'a> Changes<'a> {
    /// Looks at a batch; `key` has the columns of the primary key, none where there is no key.
    ///
    /// # Errors
    /// When a weight is neither 1 nor -1: a bug.
    pub(crate) fn of(batch: &'a RecordBatch, key: &[usize]) -> Result<Self> {
        let Some(weight) = weight_of(batch.schema_ref()) else {
            return Ok(Self {
                columns: batch.num_columns(),
                weights: None,
                same_key: None,
            });
        };
        let weights = batch.column(weight).as_primitive_opt::<Int64Type>();
        let weights = weights.ok_or_else(|| Error::Internal("a weight is no number".into()))?;
        if let Some(weight) = weights.values().iter().find(|weight| weight.abs() != 1) {
            return Err(Error::Internal(format!("a row has the weight {weight}")));
        }
        let mut same_key: Option<BooleanBuffer> = None;
        for &column in key.iter().filter(|_| batch.num_rows() > 1) {
            let (column, rows) = (batch.column(column), batch.num_rows() - 1);
            let same = not_distinct(&column.slice(0, rows), &column.slice(1, rows))?;
            let same = same.values();
            same_key = Some(same_key.map_or_else(|| same.clone(), |known| &known & same));
        }
        Ok(Self {
            columns: weight,
            weights: Some(weights.values()),
            same_key,
        })
    }

    /// Returns the number of columns that are values.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Says what a row is. One that is taken out and one of the same key that is added right behind it are an update.
    pub(crate) fn kind(&self, row: usize) -> ChangeKind {
        let Some(weights) = self.weights else {
            return ChangeKind::Insert;
        };
        let updates = |second: usize| {
            let same = |keys: &BooleanBuffer| keys.value(second - 1) && weights[second - 1] < 0 && weights[second] > 0;
            self.same_key.as_ref().is_some_and(same)
        };
        match weights[row] > 0 {
            true if row > 0 && updates(row) => ChangeKind::UpdateAfter,
            true => ChangeKind::Insert,
            false if row + 1 < weights.len() && updates(row + 1) => ChangeKind::UpdateBefore,
            false => ChangeKind::Delete,
        }
    }
}

/// Leaves out the rows that were there before an update: who writes rows by their key writes over them.
///
/// # Errors
/// As [`Changes::of`].
pub(crate) fn without_old_rows(batch: &RecordBatch, key: &[usize]) -> Result<RecordBatch> {
    let changes = Changes::of(batch, key)?;
    let kept = (0..batch.num_rows()).map(|row| Some(changes.kind(row) != ChangeKind::UpdateBefore));
    Ok(filter_record_batch(batch, &BooleanArray::from_iter(kept))?)
}
