//! What `sum` and `avg` share: a sum and a count per group.

use super::passes;
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array,
    PrimitiveArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int64Type};
use std::sync::Arc;

/// What a number is summed in: integers and decimals exactly in 128 bits, floats in 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Exact { scale: i8 },
    Float,
}

impl Number {
    /// Returns how numbers of a type are summed; `None` if it is no number.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Decimal128(_, scale) => Some(Number::Exact { scale: *scale }),
            DataType::Float32 | DataType::Float64 => Some(Number::Float),
            other if other.is_integer() => Some(Number::Exact { scale: 0 }),
            _ => None,
        }
    }

    pub(super) fn state_type(self) -> DataType {
        match self {
            Number::Exact { scale } => DataType::Decimal128(38, scale),
            Number::Float => DataType::Float64,
        }
    }
}

/// A sum and a count per group.
pub(super) struct Numbers {
    number: Number,
    exact: Vec<i128>,
    floats: Vec<f64>,
    counts: Vec<i64>,
}

impl Numbers {
    pub(super) fn new(number: Number) -> Self {
        Self {
            number,
            exact: Vec::new(),
            floats: Vec::new(),
            counts: Vec::new(),
        }
    }

    pub(super) fn resize(&mut self, groups: usize) {
        match self.number {
            Number::Exact { .. } => self.exact.resize(groups, 0),
            Number::Float => self.floats.resize(groups, 0.0),
        }
        self.counts.resize(groups, 0);
    }

    pub(super) fn update(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[u32],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("a sum has one argument".into()));
        };
        match argument.data_type() {
            DataType::Int64 => self.add(argument.as_primitive::<Int64Type>(), groups, filter, i128::from),
            DataType::Decimal128(..) => self.add(argument.as_primitive::<Decimal128Type>(), groups, filter, |v| v),
            DataType::Float64 => {
                self.add_floats(argument.as_primitive::<Float64Type>(), groups, filter, |v| v);
                Ok(())
            }
            DataType::Float32 => {
                self.add_floats(argument.as_primitive::<Float32Type>(), groups, filter, f64::from);
                Ok(())
            }
            DataType::UInt64 => {
                let wide = arrow::compute::cast(argument, &DataType::Decimal128(38, 0))?;
                self.add(wide.as_primitive::<Decimal128Type>(), groups, filter, |v| v)
            }
            other if other.is_integer() => {
                let wide = arrow::compute::cast(argument, &DataType::Int64)?;
                self.add(wide.as_primitive::<Int64Type>(), groups, filter, i128::from)
            }
            other => Err(Error::Internal(format!("a sum cannot take {other}"))),
        }
    }

    pub(super) fn update_changes(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[u32],
        filter: Option<&BooleanArray>,
        weights: &[i64],
    ) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("a sum has one argument".into()));
        };
        match self.number {
            Number::Exact { .. } => {
                let wide = match argument.data_type() {
                    DataType::Decimal128(..) => Arc::clone(argument),
                    _ => arrow::compute::cast(argument, &DataType::Decimal128(38, 0))?,
                };
                let values = wide.as_primitive::<Decimal128Type>();
                for (row, (&group, &weight)) in groups.iter().zip(weights).enumerate() {
                    if values.is_valid(row) && passes(filter, row) {
                        let slot = &mut self.exact[group as usize];
                        let change = values.value(row).checked_mul(i128::from(weight));
                        *slot = change
                            .and_then(|change| slot.checked_add(change))
                            .ok_or_else(|| Error::operator("a sum does not fit in 128 bits"))?;
                        self.counts[group as usize] += weight;
                    }
                }
            }
            Number::Float => {
                let wide = arrow::compute::cast(argument, &DataType::Float64)?;
                let values = wide.as_primitive::<Float64Type>();
                for (row, (&group, &weight)) in groups.iter().zip(weights).enumerate() {
                    if values.is_valid(row) && passes(filter, row) {
                        self.floats[group as usize] += values.value(row) * weight as f64;
                        self.counts[group as usize] += weight;
                    }
                }
            }
        }
        Ok(())
    }

    fn add<T: ArrowPrimitiveType>(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[u32],
        filter: Option<&BooleanArray>,
        widen: impl Fn(T::Native) -> i128,
    ) -> Result<()> {
        let mut overflow = false;
        let all = values.null_count() == 0 && filter.is_none();
        for (row, (&group, &value)) in groups.iter().zip(values.values()).enumerate() {
            if all || (values.is_valid(row) && passes(filter, row)) {
                let slot = &mut self.exact[group as usize];
                let (sum, overflowed) = slot.overflowing_add(widen(value));
                overflow |= overflowed;
                *slot = sum;
                self.counts[group as usize] += 1;
            }
        }
        if overflow {
            Err(Error::operator("a sum does not fit in 128 bits"))
        } else {
            Ok(())
        }
    }

    fn add_floats<T: ArrowPrimitiveType>(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[u32],
        filter: Option<&BooleanArray>,
        widen: impl Fn(T::Native) -> f64,
    ) {
        let all = values.null_count() == 0 && filter.is_none();
        for (row, (&group, &value)) in groups.iter().zip(values.values()).enumerate() {
            if all || (values.is_valid(row) && passes(filter, row)) {
                self.floats[group as usize] += widen(value);
                self.counts[group as usize] += 1;
            }
        }
    }

    pub(super) fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let wrong = || Error::Internal("a sum's state is a sum and a count".into());
        let [sums, counts] = state else { return Err(wrong()) };
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        match self.number {
            Number::Exact { .. } => {
                let sums = sums.as_primitive_opt::<Decimal128Type>().ok_or_else(wrong)?;
                for ((&group, &sum), &count) in groups.iter().zip(sums.values()).zip(counts.values()) {
                    let slot = &mut self.exact[group as usize];
                    *slot = slot
                        .checked_add(sum)
                        .ok_or_else(|| Error::operator("a sum does not fit in 128 bits"))?;
                    self.counts[group as usize] += count;
                }
            }
            Number::Float => {
                let sums = sums.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
                for ((&group, &sum), &count) in groups.iter().zip(sums.values()).zip(counts.values()) {
                    self.floats[group as usize] += sum;
                    self.counts[group as usize] += count;
                }
            }
        }
        Ok(())
    }

    /// Says whether [`Numbers::retract`] is exact: a sum of floats is not what it was before a number came and went.
    pub(super) fn can_retract(&self) -> bool {
        matches!(self.number, Number::Exact { .. })
    }

    pub(super) fn retract(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let wrong = || Error::Internal("an exact sum's state is a sum and a count".into());
        let ([sums, counts], true) = (state, self.can_retract()) else {
            return Err(wrong());
        };
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let sums = sums.as_primitive_opt::<Decimal128Type>().ok_or_else(wrong)?;
        for ((&group, &sum), &count) in groups.iter().zip(sums.values()).zip(counts.values()) {
            let slot = &mut self.exact[group as usize];
            *slot = slot.checked_sub(sum).ok_or_else(wrong)?;
            self.counts[group as usize] -= count;
        }
        Ok(())
    }

    pub(super) fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let sums: ArrayRef = match self.number {
            Number::Exact { .. } => {
                let sums = Decimal128Array::from_iter_values(groups.iter().map(|&group| self.exact[group as usize]));
                Arc::new(sums.with_data_type(self.number.state_type()))
            }
            Number::Float => Arc::new(Float64Array::from_iter_values(
                groups.iter().map(|&group| self.floats[group as usize]),
            )),
        };
        let counts = Int64Array::from_iter_values(groups.iter().map(|&group| self.counts[group as usize]));
        Ok(vec![sums, Arc::new(counts)])
    }

    /// Turns sums and counts into results of a type, null for a group without numbers.
    pub(super) fn finish(
        &self,
        name: &str,
        groups: &[u32],
        result: &DataType,
        exact: impl Fn(i128, i64) -> Option<i128>,
        float: impl Fn(f64, i64) -> f64,
    ) -> Result<ArrayRef> {
        let does_not_fit = |value: String| {
            Error::operator(format!(
                "{name} {value} does not fit {result}; aggregate a wider type with CAST"
            ))
        };
        let values: ArrayRef = match self.number {
            Number::Exact { scale } => {
                let mut values = Vec::with_capacity(groups.len());
                for &group in groups {
                    let (sum, count) = (self.exact[group as usize], self.counts[group as usize]);
                    values.push(match count {
                        0 => None,
                        _ => Some(exact(sum, count).ok_or_else(|| does_not_fit(sum.to_string()))?),
                    });
                }
                let wide = Decimal128Array::from(values);
                if let DataType::Decimal128(38, _) = result {
                    // The greatest decimal of 38 digits is below the greatest i128.
                    let limit = 10i128.pow(38);
                    if let Some(value) = wide.iter().flatten().find(|value| value.abs() >= limit) {
                        return Err(does_not_fit(format!("{value}e-{scale}")));
                    }
                    return Ok(Arc::new(wide.with_data_type(result.clone())));
                }
                narrow(&wide, result).map_err(does_not_fit)?
            }
            Number::Float => {
                let values = groups.iter().map(|&group| {
                    let (sum, count) = (self.floats[group as usize], self.counts[group as usize]);
                    (count != 0).then(|| float(sum, count))
                });
                let values: ArrayRef = Arc::new(values.collect::<Float64Array>());
                if result == &DataType::Float64 {
                    values
                } else {
                    arrow::compute::cast(&values, result)?
                }
            }
        };
        Ok(values)
    }

    pub(super) fn size(&self) -> usize {
        self.exact.capacity() * 16 + self.floats.capacity() * 8 + self.counts.capacity() * 8
    }
}

/// Narrows whole numbers of 128 bits to an integer type; fails with the first value that does not fit.
fn narrow(wide: &Decimal128Array, result: &DataType) -> Result<ArrayRef, String> {
    macro_rules! to {
        ($t:ty, $array:ty) => {{
            let mut values = Vec::with_capacity(wide.len());
            for value in wide.iter() {
                values.push(
                    value
                        .map(|value| <$t>::try_from(value).map_err(|_| value.to_string()))
                        .transpose()?,
                );
            }
            Ok(Arc::new(<$array>::from(values)))
        }};
    }
    use arrow::array::{Int8Array, Int16Array, Int32Array, UInt8Array, UInt16Array, UInt32Array, UInt64Array};
    match result {
        DataType::Int8 => to!(i8, Int8Array),
        DataType::Int16 => to!(i16, Int16Array),
        DataType::Int32 => to!(i32, Int32Array),
        DataType::Int64 => to!(i64, Int64Array),
        DataType::UInt8 => to!(u8, UInt8Array),
        DataType::UInt16 => to!(u16, UInt16Array),
        DataType::UInt32 => to!(u32, UInt32Array),
        DataType::UInt64 => to!(u64, UInt64Array),
        other => Err(format!("of whole numbers as {other}")),
    }
}
