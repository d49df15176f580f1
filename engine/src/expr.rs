//! The expressions that operators evaluate, over whole record batches.
//!
//! The engine only knows this trait. SQL implements it with DataFusion's vectorised expressions; a Rust job implements
//! it by hand or uses [`Column`] and [`from_fn`].

use crate::error::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use std::fmt;
use std::sync::Arc;

/// What an expression may read besides the rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvalContext {
    /// The wall time of the rows' tick, in milliseconds since the epoch: what `now()` and `PROCTIME()` answer.
    pub wall_time_ms: i64,
}

/// A function from the rows of a batch to one value per row.
///
/// Evaluation must depend on nothing but the batch and the context: the same ticks give the same output.
pub trait ScalarExpr: Send + Sync + fmt::Debug {
    /// Returns the type of the values for rows of `input`.
    ///
    /// # Errors
    /// When the expression does not fit the schema.
    fn data_type(&self, input: &Schema) -> Result<DataType>;

    /// Evaluates the expression; the array has as many rows as the batch.
    ///
    /// # Errors
    /// When a row cannot be evaluated (a cast, a division by zero); the message says which value.
    fn evaluate(&self, batch: &RecordBatch, context: &EvalContext) -> Result<ArrayRef>;

    /// Returns the index of the input column when the expression is nothing but that column.
    fn as_column(&self) -> Option<usize> {
        None
    }
}

/// A shared expression.
pub type Expr = Arc<dyn ScalarExpr>;

/// The column at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column(pub usize);

impl ScalarExpr for Column {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        match input.fields().get(self.0) {
            Some(field) => Ok(field.data_type().clone()),
            None => Err(Error::Graph(format!(
                "column {} does not exist in a row of {}",
                self.0,
                input.fields().len()
            ))),
        }
    }

    fn evaluate(&self, batch: &RecordBatch, _context: &EvalContext) -> Result<ArrayRef> {
        Ok(Arc::clone(batch.column(self.0)))
    }

    fn as_column(&self) -> Option<usize> {
        Some(self.0)
    }
}

/// Returns the expression of the column at `index`.
#[must_use]
pub fn column(index: usize) -> Expr {
    Arc::new(Column(index))
}

/// An expression made of a closure over the batch.
struct FnExpr<F> {
    name: String,
    data_type: DataType,
    function: F,
}

impl<F> fmt::Debug for FnExpr<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.data_type)
    }
}

impl<F> ScalarExpr for FnExpr<F>
where
    F: Fn(&RecordBatch, &EvalContext) -> Result<ArrayRef> + Send + Sync,
{
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn evaluate(&self, batch: &RecordBatch, context: &EvalContext) -> Result<ArrayRef> {
        let array = (self.function)(batch, context)?;
        if array.len() != batch.num_rows() || array.data_type() != &self.data_type {
            return Err(Error::operator(format!(
                "expression {} returned {} values of {} for {} rows of {}; return one value of the declared type per row",
                self.name,
                array.len(),
                array.data_type(),
                batch.num_rows(),
                self.data_type
            )));
        }
        Ok(array)
    }
}

/// Makes an expression of a closure; `name` is what plans and errors show.
pub fn from_fn<F>(name: impl Into<String>, data_type: DataType, function: F) -> Expr
where
    F: Fn(&RecordBatch, &EvalContext) -> Result<ArrayRef> + Send + Sync + 'static,
{
    Arc::new(FnExpr {
        name: name.into(),
        data_type,
        function,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::Field;

    fn batch() -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]).unwrap()
    }

    #[test]
    fn closure_of_the_wrong_length_is_refused() {
        let expr = from_fn("short", DataType::Int64, |_, _| {
            Ok(Arc::new(Int64Array::from(vec![1])) as ArrayRef)
        });
        let error = expr.evaluate(&batch(), &EvalContext::default()).unwrap_err();
        assert!(error.to_string().contains("short returned 1 values"), "{error}");
    }

    #[test]
    fn column_says_when_it_does_not_exist() {
        assert!(Column(4).data_type(batch().schema_ref()).is_err());
        assert_eq!(Column(0).data_type(batch().schema_ref()).unwrap(), DataType::Int64);
    }
}
