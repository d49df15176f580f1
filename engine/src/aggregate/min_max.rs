//! `min(x)` and `max(x)`.

use super::{Accumulator, AggregateFunction, multiset, passes};
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, PrimitiveBuilder, StringArray,
    downcast_primitive,
};
use arrow::datatypes::{ArrowNativeTypeOp, DataType};
use std::cmp::Ordering;
use std::sync::Arc;

/// The least value of a group; null when it has none.
#[derive(Clone, Debug)]
pub struct Min(DataType);

/// The greatest value of a group; null when it has none.
#[derive(Clone, Debug)]
pub struct Max(DataType);

fn check(name: &str, argument: &DataType) -> Result<DataType> {
    let text = matches!(
        argument,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean
    );
    if text || argument.is_primitive() && !matches!(argument, DataType::Interval(_)) {
        Ok(argument.clone())
    } else {
        Err(Error::Graph(format!(
            "{name} needs values with an order, and its argument is {argument}"
        )))
    }
}

impl Min {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When values of the type have no order.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        check("min", argument).map(Self)
    }
}

impl Max {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When values of the type have no order.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        check("max", argument).map(Self)
    }
}

impl AggregateFunction for Min {
    fn name(&self) -> &str {
        "min"
    }

    fn return_type(&self) -> DataType {
        self.0.clone()
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.0.clone()]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        extremes(&self.0, Ordering::Less)
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        multiset::accumulator(&self.0, Ordering::Less)
    }
}

impl AggregateFunction for Max {
    fn name(&self) -> &str {
        "max"
    }

    fn return_type(&self) -> DataType {
        self.0.clone()
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.0.clone()]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        extremes(&self.0, Ordering::Greater)
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        multiset::accumulator(&self.0, Ordering::Greater)
    }
}

fn extremes(data_type: &DataType, wanted: Ordering) -> Box<dyn Accumulator> {
    macro_rules! primitive {
        ($t:ty) => {
            Box::new(Primitives::<$t> {
                values: Vec::new(),
                seen: Vec::new(),
                data_type: data_type.clone(),
                wanted,
            })
        };
    }
    downcast_primitive! {
        data_type => (primitive),
        _ => Box::new(Texts { values: Vec::new(), bytes: 0, data_type: data_type.clone(), wanted }),
    }
}

/// Gives every NaN the same sign: arithmetic makes both, and the negative one would sort below everything.
pub(super) fn one_nan(values: &ArrayRef) -> ArrayRef {
    use arrow::datatypes::{Float32Type, Float64Type};
    match values.data_type() {
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            Arc::new(values.unary::<_, Float32Type>(|value| if value.is_nan() { f32::NAN } else { value }))
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value }))
        }
        _ => Arc::clone(values),
    }
}

/// Extremes of values of fixed width. NaN counts as the greatest float, as in Flink and DataFusion.
struct Primitives<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    seen: Vec<bool>,
    data_type: DataType,
    wanted: Ordering,
}

impl<T: ArrowPrimitiveType> Accumulator for Primitives<T> {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups, T::default_value());
        self.seen.resize(groups, false);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let arguments: Vec<ArrayRef> = arguments.iter().map(one_nan).collect();
        let values: &PrimitiveArray<T> = arguments
            .first()
            .and_then(|argument| argument.as_primitive_opt::<T>())
            .ok_or_else(|| Error::Internal(format!("min and max expected values of {}", self.data_type)))?;
        for (row, (&group, &value)) in groups.iter().zip(values.values()).enumerate() {
            if values.is_valid(row) && passes(filter, row) {
                let group = group as usize;
                if !self.seen[group] || value.compare(self.values[group]) == self.wanted {
                    self.values[group] = value;
                    self.seen[group] = true;
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        self.update(state, groups, None)
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let mut builder = PrimitiveBuilder::<T>::with_capacity(groups.len()).with_data_type(self.data_type.clone());
        for &group in groups {
            builder.append_option(self.seen[group as usize].then(|| self.values[group as usize]));
        }
        Ok(Arc::new(builder.finish()))
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}

/// Extremes of strings (by their bytes) and booleans (false first), held as text.
struct Texts {
    values: Vec<Option<Box<str>>>,
    bytes: usize,
    data_type: DataType,
    wanted: Ordering,
}

impl Accumulator for Texts {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups, None);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let Some(argument) = arguments.first() else {
            return Err(Error::Internal("min and max have one argument".into()));
        };
        // "false" sorts before "true", so booleans may be held as text.
        let text = arrow::compute::cast(argument, &DataType::Utf8)?;
        let text = text.as_string::<i32>();
        for (row, &group) in groups.iter().enumerate() {
            if text.is_valid(row) && passes(filter, row) {
                let (value, slot) = (text.value(row), &mut self.values[group as usize]);
                if slot.as_deref().is_none_or(|held| value.cmp(held) == self.wanted) {
                    self.bytes = self.bytes + value.len() - slot.as_deref().map_or(0, str::len);
                    *slot = Some(value.into());
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        self.update(state, groups, None)
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let text = groups
            .iter()
            .map(|&group| self.values[group as usize].as_deref())
            .collect::<StringArray>();
        Ok(arrow::compute::cast(&text, &self.data_type)?)
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<Option<Box<str>>>() + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, StringViewArray, TimestampMillisecondArray};

    fn run(function: &dyn AggregateFunction, values: ArrayRef) -> ArrayRef {
        let mut accumulator = function.accumulator();
        accumulator.resize(2);
        let groups = vec![0; values.len()];
        accumulator.update(&[values], &groups, None).unwrap();
        accumulator.evaluate(&[0, 1]).unwrap()
    }

    #[test]
    fn extremes_of_each_kind() {
        let times: ArrayRef =
            Arc::new(TimestampMillisecondArray::from(vec![Some(5), None, Some(-3)]).with_timezone("UTC"));
        let least = run(&Min::try_new(times.data_type()).unwrap(), Arc::clone(&times));
        assert_eq!(
            least.as_ref(),
            &TimestampMillisecondArray::from(vec![Some(-3), None]).with_timezone("UTC")
        );
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["b", "abc", "c"]));
        let greatest = run(&Max::try_new(texts.data_type()).unwrap(), texts);
        assert_eq!(greatest.as_ref(), &StringViewArray::from(vec![Some("c"), None]));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
        let least = run(&Min::try_new(flags.data_type()).unwrap(), flags);
        assert_eq!(least.as_ref(), &BooleanArray::from(vec![Some(false), None]));
    }

    #[test]
    fn nan_is_the_greatest_float() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0, -f64::NAN, 2.0]));
        let greatest = run(&Max::try_new(&DataType::Float64).unwrap(), Arc::clone(&values));
        assert!(
            greatest
                .as_primitive::<arrow::datatypes::Float64Type>()
                .value(0)
                .is_nan()
        );
        let least = run(&Min::try_new(&DataType::Float64).unwrap(), values);
        assert_eq!(least.as_primitive::<arrow::datatypes::Float64Type>().value(0), 1.0);
    }
}
