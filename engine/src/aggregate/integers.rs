//! Columns as whole numbers: what sets and multisets hold instead of values.

use super::min_max::one_nan;
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayData, ArrayRef, AsArray, Decimal128Array, Float64Array, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{ArrowNativeType, DataType, Decimal128Type, Float64Type};
use std::sync::Arc;

/// Returns the width in bytes of types that are signed whole numbers of 4 or 8 bytes inside.
fn width(data_type: &DataType) -> Option<usize> {
    use DataType as T;
    match data_type {
        T::Int64 | T::Timestamp(..) | T::Time64(_) | T::Date64 | T::Duration(_) => Some(8),
        T::Int32 | T::Date32 | T::Time32(_) => Some(4),
        _ => None,
    }
}

fn native<T: ArrowNativeType>(array: &ArrayRef) -> Vec<T> {
    let data = array.to_data();
    data.buffers()[0].typed_data::<T>()[data.offset()..data.offset() + data.len()].to_vec()
}

/// Returns values as numbers that are equal where the values are; `None` when the type is not made of such. What stands
/// for a null is any number.
pub(crate) fn to_i64(array: &ArrayRef) -> Option<Vec<i64>> {
    match width(array.data_type())? {
        8 => Some(native::<i64>(array)),
        _ => Some(native::<i32>(array).into_iter().map(i64::from).collect()),
    }
}

/// Says whether values of a type are numbers for [`to_i64`].
pub(crate) fn is_i64(data_type: &DataType) -> bool {
    width(data_type).is_some()
}

/// Makes values of numbers that [`to_i64`] gave.
///
/// # Errors
/// When the type is not one of those.
pub(crate) fn from_i64(values: Vec<i64>, data_type: &DataType) -> Result<ArrayRef> {
    let len = values.len();
    let buffer = match width(data_type) {
        Some(8) => Buffer::from_vec(values),
        Some(_) => Buffer::from_vec(values.into_iter().map(|value| value as i32).collect::<Vec<_>>()),
        None => return Err(Error::Internal(format!("{data_type} is not made of whole numbers"))),
    };
    let data = ArrayData::builder(data_type.clone())
        .len(len)
        .add_buffer(buffer)
        .build()?;
    Ok(make_array(data))
}

/// Returns values as numbers in the same order; `None` when the type has no such numbers. What stands for a null is any
/// number.
pub(super) fn to_ordered(array: &ArrayRef) -> Result<Option<Vec<i128>>> {
    let data_type = array.data_type();
    if let Some(values) = to_i64(array) {
        return Ok(Some(values.into_iter().map(i128::from).collect()));
    }
    if data_type.is_floating() {
        let wide = arrow::compute::cast(&one_nan(array), &DataType::Float64)?;
        let wide = wide.as_primitive::<Float64Type>();
        return Ok(Some(
            wide.values().iter().map(|value| i128::from(ordered(*value))).collect(),
        ));
    }
    let wide = match data_type {
        DataType::Decimal128(..) => Arc::clone(array),
        other if other.is_integer() => arrow::compute::cast(array, &DataType::Decimal128(38, 0))?,
        _ => return Ok(None),
    };
    Ok(Some(wide.as_primitive::<Decimal128Type>().values().to_vec()))
}

/// Says whether values of a type are numbers for [`to_ordered`].
pub(super) fn is_ordered(data_type: &DataType) -> bool {
    width(data_type).is_some()
        || data_type.is_floating()
        || data_type.is_integer()
        || matches!(data_type, DataType::Decimal128(..))
}

/// Makes values of numbers that [`to_ordered`] gave.
///
/// # Errors
/// When a number is not of the type.
pub(super) fn from_ordered(values: Vec<Option<i128>>, data_type: &DataType) -> Result<ArrayRef> {
    if data_type.is_floating() {
        let floats = values
            .into_iter()
            .map(|value| value.map(|value| unordered(value as i64)));
        let floats: ArrayRef = Arc::new(floats.collect::<Float64Array>());
        return Ok(arrow::compute::cast(&floats, data_type)?);
    }
    let wide = Decimal128Array::from(values);
    if let DataType::Decimal128(..) = data_type {
        return Ok(Arc::new(wide.with_data_type(data_type.clone())));
    }
    if width(data_type).is_some() {
        let numbers = wide.iter().map(|value| value.unwrap_or_default() as i64).collect();
        let data = from_i64(numbers, data_type)?.to_data().into_builder();
        return Ok(make_array(data.nulls(wide.nulls().cloned()).build()?));
    }
    let wide: ArrayRef = Arc::new(wide.with_data_type(DataType::Decimal128(38, 0)));
    Ok(arrow::compute::cast(&wide, data_type)?)
}

/// Maps a float to a number in the same total order.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn unordered(number: i64) -> f64 {
    f64::from_bits((number ^ (((number >> 63) as u64) >> 1) as i64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Float32Array, Int8Array, TimestampMicrosecondArray, UInt64Array};

    #[test]
    fn values_become_numbers_in_the_same_order_and_come_back() {
        let decimals = Decimal128Array::from(vec![-150, 0, 9])
            .with_precision_and_scale(5, 2)
            .unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int8Array::from(vec![-3, 0, 7])),
            Arc::new(UInt64Array::from(vec![0, 1, u64::MAX])),
            Arc::new(Date32Array::from(vec![-1, 0, 20_000])),
            Arc::new(TimestampMicrosecondArray::from(vec![-1, 0, 5]).with_timezone("UTC")),
            Arc::new(Float32Array::from(vec![f32::NEG_INFINITY, -0.5, 2.25])),
            Arc::new(Float64Array::from(vec![-1e300, 1.0, f64::NAN])),
            Arc::new(decimals),
        ];
        for column in columns {
            let numbers = to_ordered(&column).unwrap().unwrap();
            assert!(numbers.is_sorted(), "{:?}", column.data_type());
            let back = from_ordered(numbers.into_iter().map(Some).collect(), column.data_type()).unwrap();
            assert_eq!(&back, &column);
            if let Some(numbers) = to_i64(&column.slice(1, 2)) {
                assert_eq!(
                    from_i64(numbers, column.data_type()).unwrap().as_ref(),
                    column.slice(1, 2).as_ref()
                );
            }
        }
        assert!(ordered(f64::MAX) < ordered(f64::INFINITY));
    }
}
