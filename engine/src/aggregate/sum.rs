//! `sum(x)`.

use super::{Accumulator, AggregateFunction, EncodedState, Number, Numbers};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

/// Sums numbers; null when a group has none.
///
/// As in Flink, the sum of integers and floats has the argument's type and that of a decimal(p, s) is decimal(38, s).
/// Unlike Flink, a sum that does not fit fails the job instead of wrapping around: sum a wider cast then.
#[derive(Clone, Debug)]
pub struct Sum {
    argument: DataType,
    number: Number,
}

impl Sum {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not a number.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        match Number::of(argument) {
            Some(number) => Ok(Self {
                argument: argument.clone(),
                number,
            }),
            None => Err(Error::Graph(format!(
                "sum needs a number, and its argument is {argument}"
            ))),
        }
    }
}

impl AggregateFunction for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn return_type(&self) -> DataType {
        match &self.argument {
            DataType::Decimal128(_, scale) => DataType::Decimal128(38, *scale),
            other => other.clone(),
        }
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.number.state_type(), DataType::Int64]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Sums {
            numbers: Numbers::new(self.number),
            result: self.return_type(),
        })
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator())
    }

    fn has_signed_state(&self) -> bool {
        true
    }
}

struct Sums {
    numbers: Numbers,
    result: DataType,
}

impl Accumulator for Sums {
    fn resize(&mut self, groups: usize) {
        self.numbers.resize(groups);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        self.numbers.update(arguments, groups, filter)
    }

    fn update_changes(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[u32],
        filter: Option<&BooleanArray>,
        weights: &[i64],
    ) -> Result<()> {
        self.numbers.update_changes(arguments, groups, filter, weights)
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        self.numbers.merge(state, groups)
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.numbers.state(groups)
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        self.numbers
            .finish("sum", groups, &self.result, |sum, _| Some(sum), |sum, _| sum)
    }

    fn can_retract(&self) -> bool {
        self.numbers.can_retract()
    }

    fn retract(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.numbers.retract(&state.columns, groups)
    }

    fn size(&self) -> usize {
        self.numbers.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Decimal128Array, Float64Array, Int32Array};
    use arrow::datatypes::{Float64Type, Int32Type};
    use std::sync::Arc;

    fn sum(values: ArrayRef, groups: &[u32]) -> Result<ArrayRef> {
        let mut sums = Sum::try_new(values.data_type())?.accumulator();
        sums.resize(2);
        sums.update(&[values], groups, None)?;
        sums.evaluate(&[0, 1])
    }

    #[test]
    fn sum_of_nothing_is_null() {
        let result = sum(Arc::new(Int32Array::from(vec![Some(1), None, Some(5)])), &[0, 1, 0]).unwrap();
        assert_eq!(
            result.as_primitive::<Int32Type>(),
            &Int32Array::from(vec![Some(6), None])
        );
    }

    #[test]
    fn sum_that_does_not_fit_says_so() {
        let error = sum(Arc::new(Int32Array::from(vec![i32::MAX, 1])), &[0, 0]).unwrap_err();
        assert!(error.to_string().contains("does not fit Int32"), "{error}");
    }

    #[test]
    fn decimals_and_floats_keep_their_kind() {
        let decimals = Decimal128Array::from(vec![150, 250])
            .with_precision_and_scale(5, 2)
            .unwrap();
        let result = sum(Arc::new(decimals), &[0, 0]).unwrap();
        assert_eq!(result.data_type(), &DataType::Decimal128(38, 2));
        assert_eq!(result.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 400);
        let result = sum(Arc::new(Float64Array::from(vec![0.5, 0.25])), &[1, 1]).unwrap();
        assert_eq!(result.as_primitive::<Float64Type>().value(1), 0.75);
    }
}
