//! Rows with each of their elements: a row goes on once per element of an array, or entry of a map, with the element and its
//! place from 1 behind its columns. Stateless.

use crate::error::{Error, Result};
use crate::expr::{EvalContext, Expr};
use crate::operator::{OpenTick, Operator, Output, Progress, TickClose};
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use std::sync::Arc;

/// Rows per emitted batch.
const BATCH_ROWS: usize = 8192;

/// What becomes of rows without elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Childless {
    /// They are dropped: an inner join.
    Dropped,
    /// They go on once, with nulls: a left join.
    Kept,
}

/// Returns the type of the elements of an array, or of the entries of a map.
///
/// # Errors
/// When the type has no elements.
pub(crate) fn element_type(of: &DataType) -> Result<DataType> {
    match of {
        DataType::List(item) | DataType::Map(item, _) => Ok(item.data_type().clone()),
        other => Err(Error::Graph(format!("{other} has no elements"))),
    }
}

/// The operator.
pub(crate) struct ElementsOperator {
    of: Expr,
    childless: Childless,
    schema: SchemaRef,
    /// The arrays of the batch at hand, and the next row and element of it.
    arrays: Option<ArrayRef>,
    next: (usize, usize),
}

impl ElementsOperator {
    /// Makes the operator; `schema` is that of the output.
    pub(crate) fn new(of: Expr, childless: Childless, schema: SchemaRef) -> Self {
        Self {
            of,
            childless,
            schema,
            arrays: None,
            next: (0, 0),
        }
    }

    /// Emits the next rows, at most `wanted`.
    fn emit(&mut self, batch: &RecordBatch, arrays: &ArrayRef, wanted: usize, out: &mut Output) -> Result<()> {
        let (offsets, values): (&[i32], ArrayRef) = match arrays.data_type() {
            DataType::List(_) => {
                let lists = arrays.as_list::<i32>();
                (lists.value_offsets(), Arc::clone(lists.values()))
            }
            _ => {
                let maps = arrays.as_map();
                (maps.value_offsets(), Arc::new(maps.entries().clone()))
            }
        };
        let (mut rows, mut elements, mut places) = (Vec::new(), Vec::new(), Vec::new());
        while self.next.0 < batch.num_rows() && rows.len() < wanted {
            let (row, first) = self.next;
            let length = match arrays.is_valid(row) {
                true => (offsets[row + 1] - offsets[row]) as usize,
                false => 0,
            };
            if length == 0 && self.childless == Childless::Kept {
                rows.push(row as u32);
                elements.push(None);
                places.push(None);
            }
            let end = length.min(first + (wanted - rows.len()));
            for element in first..end {
                rows.push(row as u32);
                elements.push(Some(offsets[row] as u32 + element as u32));
                places.push(Some(element as i32 + 1));
            }
            self.next = if end < length { (row, end) } else { (row + 1, 0) };
        }
        if rows.is_empty() {
            return Ok(());
        }
        let mut columns = arrow::compute::take_record_batch(batch, &UInt32Array::from(rows))?
            .columns()
            .to_vec();
        columns.push(take(&values, &UInt32Array::from(elements), None)?);
        columns.push(Arc::new(Int32Array::from(places)));
        out.emit(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        Ok(())
    }
}

impl Operator for ElementsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let arrays = match self.arrays.take() {
            Some(arrays) => arrays,
            None => {
                let context = EvalContext {
                    wall_time_ms: tick.wall_time_ms,
                };
                self.of.evaluate(batch, &context)?
            }
        };
        while self.next.0 < batch.num_rows() {
            if out.is_full() {
                self.arrays = Some(arrays);
                return Ok(Progress::More);
            }
            let wanted = BATCH_ROWS.min(out.budget_left()).max(1);
            self.emit(batch, &arrays, wanted, out)?;
        }
        self.next = (0, 0);
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::column;
    use crate::time::{Tick, Watermark};
    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    /// The rows of `(id, array)` as `(id, element, place)`, taken with a budget.
    fn elements(
        lists: &[Option<Vec<Option<i64>>>],
        childless: Childless,
        budget: usize,
    ) -> Vec<(i64, Option<i64>, Option<i32>)> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..lists.len() as i64));
        let arrays: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists.to_vec()));
        let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("l", arrays, true)]).unwrap();
        let mut fields = batch.schema().fields().to_vec();
        fields.push(Arc::new(Field::new("e", DataType::Int64, true)));
        fields.push(Arc::new(Field::new("o", DataType::Int32, true)));
        let mut operator = ElementsOperator::new(column(1), childless, Arc::new(Schema::new(fields)));
        let tick = OpenTick {
            tick: Tick(1),
            wall_time_ms: 0,
            watermarks: vec![Watermark::NONE],
        };
        let mut found = Vec::new();
        loop {
            let mut out = Output::with_budget(budget);
            let progress = operator.on_batch(0, &batch, &tick, &mut out).unwrap();
            for batch in out.take() {
                assert!(batch.num_rows() <= budget);
                let long = |index: usize| batch.column(index).as_primitive::<Int64Type>().clone();
                let (ids, values) = (long(0), long(2));
                let places = batch.column(3).as_primitive::<arrow::datatypes::Int32Type>().clone();
                for row in 0..batch.num_rows() {
                    let value = values.is_valid(row).then(|| values.value(row));
                    let place = places.is_valid(row).then(|| places.value(row));
                    found.push((ids.value(row), value, place));
                }
            }
            if progress == Progress::Done {
                return found;
            }
        }
    }

    #[test]
    fn rows_go_on_once_per_element_whatever_the_budget() {
        let lists = [
            Some(vec![Some(1), None, Some(3)]),
            None,
            Some(vec![]),
            Some((0..20).map(Some).collect()),
        ];
        for childless in [Childless::Dropped, Childless::Kept] {
            let mut expected = Vec::new();
            for (id, list) in lists.iter().enumerate() {
                let list = list.clone().unwrap_or_default();
                if list.is_empty() && childless == Childless::Kept {
                    expected.push((id as i64, None, None));
                }
                for (place, value) in list.into_iter().enumerate() {
                    expected.push((id as i64, value, Some(place as i32 + 1)));
                }
            }
            for budget in [1, 2, 7, 1000] {
                assert_eq!(elements(&lists, childless, budget), expected, "{childless:?} {budget}");
            }
        }
    }
}
