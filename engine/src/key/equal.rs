//! Whether keys are equal, as their canonical bytes would say.

use crate::error::Result;
use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use std::borrow::Cow;
use std::sync::Arc;

/// Compares two columns of keys, row by row; the result is null where one of them is.
///
/// Floats are compared as keys are hashed and grouped: -0.0 is 0.0, and every NaN is the same one. Arrow's own comparison
/// looks at their bits.
///
/// # Errors
/// When the columns are of different types or lengths.
pub(crate) fn equal_keys(left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
    Ok(eq(&*canonical(left)?, &*canonical(right)?)?)
}

/// Gives floats the bits of their canonical form.
fn canonical(column: &ArrayRef) -> Result<Cow<'_, ArrayRef>> {
    Ok(match column.data_type() {
        DataType::Float16 => Cow::Owned(canonical_floats::<Float16Type>(column)),
        DataType::Float32 => Cow::Owned(canonical_floats::<Float32Type>(column)),
        DataType::Float64 => Cow::Owned(canonical_floats::<Float64Type>(column)),
        DataType::Dictionary(_, values) if values.is_floating() => {
            Cow::Owned(canonical(&cast(column, values)?)?.into_owned())
        }
        _ => Cow::Borrowed(column),
    })
}

/// Gives all zeros the same bits, and all NaN.
fn canonical_floats<T: ArrowPrimitiveType>(column: &ArrayRef) -> ArrayRef {
    let nan = T::Native::ZERO.div_wrapping(T::Native::ZERO);
    let one_of_each = |value: T::Native| match value {
        value if value.is_zero() => T::Native::ZERO,
        value if value.partial_cmp(&value).is_none() => nan,
        value => value,
    };
    Arc::new(column.as_primitive::<T>().unary::<_, T>(one_of_each))
}
