//! `avg(x)`.

use super::{Accumulator, AggregateFunction, EncodedState, Number, Numbers};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

/// Averages numbers; null when a group has none.
///
/// As in Flink, the average of integers is an integer (cut towards zero), of floats a float, and of a decimal(p, s) a
/// decimal(38, max(6, s)), rounded half up.
#[derive(Clone, Debug)]
pub struct Avg {
    argument: DataType,
    number: Number,
}

impl Avg {
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
                "avg needs a number, and its argument is {argument}"
            ))),
        }
    }
}

impl AggregateFunction for Avg {
    fn name(&self) -> &str {
        "avg"
    }

    fn return_type(&self) -> DataType {
        match &self.argument {
            DataType::Decimal128(_, scale) => DataType::Decimal128(38, (*scale).max(6)),
            other => other.clone(),
        }
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.number.state_type(), DataType::Int64]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        let factor = match &self.argument {
            DataType::Decimal128(_, scale) => 10i128.pow(u32::from((*scale).max(6).abs_diff(*scale))),
            _ => 1,
        };
        let rounds = matches!(self.argument, DataType::Decimal128(..));
        Box::new(Averages {
            numbers: Numbers::new(self.number),
            result: self.return_type(),
            factor,
            rounds,
        })
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator())
    }

    fn has_signed_state(&self) -> bool {
        true
    }
}

struct Averages {
    numbers: Numbers,
    result: DataType,
    /// What a decimal sum is multiplied by to have the result's scale.
    factor: i128,
    rounds: bool,
}

impl Accumulator for Averages {
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
        let whole = |sum: i128, count: i64| {
            let count = i128::from(count);
            // Divided first, so that only a result that does not fit overflows.
            let (quotient, remainder) = (sum / count, sum % count);
            let (fraction, rest) = ((remainder * self.factor) / count, (remainder * self.factor) % count);
            let up = self.rounds && rest.unsigned_abs() * 2 >= count.unsigned_abs();
            quotient
                .checked_mul(self.factor)?
                .checked_add(fraction + if up { sum.signum() } else { 0 })
        };
        self.numbers
            .finish("avg", groups, &self.result, whole, |sum, count| sum / count as f64)
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
    use arrow::array::{Array, AsArray, Decimal128Array, Float64Array, Int64Array};
    use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type};
    use std::sync::Arc;

    fn avg(values: ArrayRef) -> ArrayRef {
        let mut averages = Avg::try_new(values.data_type()).unwrap().accumulator();
        averages.resize(1);
        let groups = vec![0; values.len()];
        averages.update(&[values], &groups, None).unwrap();
        averages.evaluate(&[0]).unwrap()
    }

    #[test]
    fn integers_are_cut_towards_zero() {
        assert_eq!(
            avg(Arc::new(Int64Array::from(vec![1, 2])))
                .as_primitive::<Int64Type>()
                .value(0),
            1
        );
        assert_eq!(
            avg(Arc::new(Int64Array::from(vec![-1, -2])))
                .as_primitive::<Int64Type>()
                .value(0),
            -1
        );
        let large = avg(Arc::new(Int64Array::from(vec![i64::MAX, i64::MAX - 2])));
        assert_eq!(large.as_primitive::<Int64Type>().value(0), i64::MAX - 1);
    }

    #[test]
    fn decimals_round_half_up_at_scale_six() {
        let values = Decimal128Array::from(vec![100, 100, 101])
            .with_precision_and_scale(5, 2)
            .unwrap();
        let result = avg(Arc::new(values));
        assert_eq!(result.data_type(), &DataType::Decimal128(38, 6));
        assert_eq!(result.as_primitive::<Decimal128Type>().value(0), 1_003_333);
    }

    #[test]
    fn floats_and_nothing() {
        let result = avg(Arc::new(Float64Array::from(vec![Some(1.0), None, Some(2.0)])));
        assert_eq!(result.as_primitive::<Float64Type>().value(0), 1.5);
        assert!(avg(Arc::new(Int64Array::from(vec![None]))).is_null(0));
    }
}
