//! Functions whose result can be far longer than their arguments: refused before they allocate.
//!
//! `repeat('x', 1000000000)` is 26 bytes of SQL. DataFusion allows results up to 2 GiB.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

/// The longest text that such a function may make of one row, in bytes.
const VALUE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What an element of an array counts for, at least.
const ELEMENT_BYTES: u64 = 8;

/// The most bytes of text that such a function may make of one batch.
const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Puts a limit around a function if it needs one.
pub(super) fn bound(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let growth = match function.name() {
        "repeat" => Growth::Times,
        "lpad" | "rpad" => Growth::Padded,
        "array_repeat" => Growth::Elements { element: 0 },
        "array_resize" => Growth::Elements { element: 2 },
        "array_replace_n" | "array_replace_all" => Growth::ElementsReplaced,
        "replace" | "regexp_replace" | "translate" | "overlay" => Growth::Replaced,
        _ => return function,
    };
    Arc::new(ScalarUDF::new_from_impl(Bounded { function, growth }))
}

/// How long a result can get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// The first argument, as often as the second says.
    Times,
    /// As long as the second argument says, in characters.
    Padded,
    /// As many elements of an array as the second argument says, each like the argument at this place.
    Elements { element: usize },
    /// The first argument, an array, with the third in place of each of its elements.
    ElementsReplaced,
    /// The first argument, with the third in place of each of its characters and at both ends.
    Replaced,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    function: Arc<ScalarUDF>,
    growth: Growth,
}

impl Bounded {
    fn check(&self, arguments: &ScalarFunctionArgs) -> Result<()> {
        let rows = arguments.number_rows;
        let text = |index: usize| lengths(arguments.args.get(index), rows);
        let number = |index: usize| numbers(arguments.args.get(index), rows);
        // Scalars are one row here, so that a literal is looked at once.
        let (first, second) = match self.growth {
            Growth::Times => (text(0)?, number(1)?),
            Growth::Padded => (vec![4], number(1)?),
            Growth::Elements { element } => (sizes(arguments.args.get(element), rows)?, number(1)?),
            Growth::ElementsReplaced => (
                sizes(arguments.args.get(2), rows)?,
                elements(arguments.args.first(), rows)?,
            ),
            Growth::Replaced => (text(0)?, text(2)?),
        };
        let rows = first.len().max(second.len());
        let at = |values: &[u64], row: usize| {
            values
                .get(if values.len() == 1 { 0 } else { row })
                .copied()
                .unwrap_or(0)
        };
        let mut batch = 0u64;
        for row in 0..rows {
            let (a, b) = (at(&first, row), at(&second, row));
            let longest = match self.growth {
                Growth::Times | Growth::Padded | Growth::Elements { .. } | Growth::ElementsReplaced => {
                    a.saturating_mul(b)
                }
                Growth::Replaced => a.saturating_add(a.saturating_add(1).saturating_mul(b)),
            };
            let name = self.function.name();
            let what = match self.growth {
                Growth::Elements { .. } | Growth::ElementsReplaced => "an array",
                _ => "a text",
            };
            if longest > VALUE_BYTES_MAX {
                return exec_err!(
                    "{name} could make {what} of {longest} bytes and the limit is {VALUE_BYTES_MAX}; shorten its arguments"
                );
            }
            // What replacing makes is far below its bound, as a rule.
            let is_replaced = matches!(self.growth, Growth::Replaced | Growth::ElementsReplaced);
            batch = batch.saturating_add(if is_replaced { 0 } else { longest });
            if batch > BATCH_BYTES_MAX {
                return exec_err!(
                    "{name} would make more than {BATCH_BYTES_MAX} bytes of one batch; shorten its arguments"
                );
            }
        }
        Ok(())
    }
}

/// Returns the lengths in bytes of text; nulls are 0.
fn lengths(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    let Some(value) = value else { return Ok(vec![0]) };
    let rows = if matches!(value, ColumnarValue::Scalar(_)) {
        1
    } else {
        rows
    };
    let values = cast(&value.to_array(rows)?, &DataType::Utf8)?;
    let values = values.as_string::<i32>();
    Ok((0..values.len())
        .map(|row| {
            if values.is_null(row) {
                0
            } else {
                values.value(row).len() as u64
            }
        })
        .collect())
}

/// Returns the bytes of values as elements of an array.
fn sizes(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    let Some(value) = value else {
        return Ok(vec![ELEMENT_BYTES]);
    };
    let rows = if matches!(value, ColumnarValue::Scalar(_)) {
        1
    } else {
        rows
    };
    let values = value.to_array(rows)?;
    if let Some(width) = values.data_type().primitive_width() {
        return Ok(vec![ELEMENT_BYTES.max(width as u64)]);
    }
    let size = |row| values.slice(row, 1).to_data().get_slice_memory_size();
    (0..values.len())
        .map(|row| Ok(ELEMENT_BYTES.max(size(row)? as u64)))
        .collect()
}

/// Returns how many elements arrays have; nulls have none.
fn elements(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    let Some(value) = value else { return Ok(vec![0]) };
    let rows = if matches!(value, ColumnarValue::Scalar(_)) {
        1
    } else {
        rows
    };
    let values = value.to_array(rows)?;
    if values.data_type().is_null() {
        return Ok(vec![0]);
    }
    numbers(Some(&ColumnarValue::Array(length(&values)?)), rows)
}

/// Returns numbers; nulls and those below 0 are 0.
fn numbers(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    let Some(value) = value else { return Ok(vec![0]) };
    let rows = if matches!(value, ColumnarValue::Scalar(_)) {
        1
    } else {
        rows
    };
    let values = cast(&value.to_array(rows)?, &DataType::Int64)?;
    let values = values.as_primitive::<Int64Type>();
    Ok(values
        .iter()
        .map(|value| u64::try_from(value.unwrap_or(0)).unwrap_or(0))
        .collect())
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<arrow::datatypes::FieldRef> {
        self.function.return_field_from_args(arguments)
    }

    fn with_updated_config(&self, _config: &ConfigOptions) -> Option<ScalarUDF> {
        None
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&arguments)?;
        self.function.invoke_with_args(arguments)
    }
}
