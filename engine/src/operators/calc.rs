//! Projection and filter: a function of one batch.

use crate::error::{Error, Result};
use crate::expr::EvalContext;
use crate::graph::Calc;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

/// A [`Calc`] with what it needs while running.
pub(crate) struct CalcOperator {
    calc: Calc,
    schema: SchemaRef,
}

impl CalcOperator {
    pub(crate) fn new(calc: Calc) -> Self {
        let schema = calc.schema();
        Self { calc, schema }
    }

    /// Applies the filter, then the projection.
    pub(crate) fn apply(&self, batch: &RecordBatch, wall_time_ms: i64) -> Result<RecordBatch> {
        let context = EvalContext { wall_time_ms };
        let filtered;
        let batch = match &self.calc.predicate {
            Some(predicate) => {
                let mask = predicate.evaluate(batch, &context)?;
                let mask = mask
                    .as_boolean_opt()
                    .ok_or_else(|| Error::Internal(format!("a filter gave {}", mask.data_type())))?;
                // Nulls in the mask count as false; a mask that keeps everything costs no copy.
                if mask.null_count() == 0 && mask.true_count() == batch.num_rows() {
                    batch
                } else {
                    filtered = filter_record_batch(batch, mask)?;
                    &filtered
                }
            }
            None => batch,
        };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.calc.outputs.len());
        for (field, expr) in &self.calc.outputs {
            let column = expr.evaluate(batch, &context)?;
            if !field.is_nullable() && column.logical_null_count() > 0 {
                let name = field.name();
                return Err(Error::operator(format!(
                    "column {name} is NOT NULL and a row has no value for it; filter such rows out or drop the constraint"
                )));
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            SchemaRef::clone(&self.schema),
            columns,
            &options,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{column, from_fn};
    use arrow::array::{BooleanArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use std::sync::Arc;

    fn batch(values: Vec<Option<i64>>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values))]).unwrap()
    }

    #[test]
    fn null_in_the_filter_drops_the_row() {
        let predicate = from_fn("a > 1", DataType::Boolean, |batch, _| {
            let values = batch.column(0).as_primitive::<Int64Type>();
            Ok(Arc::new(BooleanArray::from_iter(
                values.iter().map(|value| value.map(|value| value > 1)),
            )))
        });
        let outputs = vec![(Field::new("b", DataType::Int64, false), column(0))];
        let calc = CalcOperator::new(Calc {
            predicate: Some(predicate),
            outputs,
        });
        let result = calc.apply(&batch(vec![Some(1), None, Some(3)]), 0).unwrap();
        assert_eq!(result.column(0).as_primitive::<Int64Type>().values(), &[3]);
    }

    #[test]
    fn null_in_a_not_null_column_is_an_error() {
        let outputs = vec![(Field::new("b", DataType::Int64, false), column(0))];
        let calc = CalcOperator::new(Calc {
            predicate: None,
            outputs,
        });
        let error = calc.apply(&batch(vec![None]), 0).unwrap_err();
        assert!(error.to_string().contains("column b is NOT NULL"), "{error}");
    }

    #[test]
    fn no_columns_keep_the_number_of_rows() {
        let calc = CalcOperator::new(Calc {
            predicate: None,
            outputs: Vec::new(),
        });
        assert_eq!(calc.apply(&batch(vec![None, Some(1)]), 0).unwrap().num_rows(), 2);
    }
}
