//! Number functions with Flink's meaning.

use super::native::{Args, Gives, Native, Takes};
use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, exec_err};

use Takes::{Any, Double};

pub(super) const FUNCTIONS: &[Native] = &[
    Native {
        name: "sign",
        takes: &[Any],
        needed: 1,
        gives: Gives::Same(0),
        eval: sign,
    },
    Native {
        name: "typeof",
        takes: &[Any],
        needed: 1,
        gives: Gives::Text,
        eval: type_of,
    },
    Native {
        name: "power",
        takes: &[Double, Double],
        needed: 2,
        gives: Gives::Double,
        eval: power,
    },
];

/// -1, 0 or 1, in the type of the number.
fn sign(args: &Args<'_>) -> Result<ArrayRef> {
    let values = args.array(0)?;
    if !(values.data_type().is_numeric() || values.data_type().is_null()) {
        let found = crate::types::sql_name(values.data_type());
        return exec_err!("SIGN takes a number, not {found}");
    }
    let doubles = cast(&values, &DataType::Float64)?;
    let doubles = doubles.as_primitive::<Float64Type>();
    let signs = doubles.unary::<_, Float64Type>(|value| if value == 0.0 { 0.0 } else { value.signum() });
    Ok(cast(&signs, values.data_type())?)
}

fn type_of(args: &Args<'_>) -> Result<ArrayRef> {
    let name = crate::types::sql_name(args.data_type(0));
    args.texts(|_| Some(name.as_str()))
}

fn power(args: &Args<'_>) -> Result<ArrayRef> {
    let (base, exponent) = (args.double(0), args.double(1));
    args.primitives::<Float64Type>(|row| Some(base.get(row)?.powf(exponent.get(row)?)))
}
