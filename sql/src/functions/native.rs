//! Scalar functions of ours: a table row per function, and a Rust function over the arguments of a batch.
//!
//! The families are files of their own: `text`, `encoding`, `numbers`, `time`, `json`, `collections`. Null arguments give
//! null unless a function says otherwise.

use crate::types::sql_name;
use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, StringBuilder};
use arrow::array::{BinaryArray, Float64Array, Int64Array, PrimitiveArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest text that a function may make of one row, in bytes.
const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a function takes at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Text,
    /// Any integer, as `BIGINT`.
    Integer,
    /// Any number, as `DOUBLE`.
    Double,
    /// Text or bytes, as bytes.
    Bytes,
    /// A date, timestamp or text of one, as microseconds.
    Time,
    /// Anything, as it is.
    Any,
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Text,
    Int,
    BigInt,
    Double,
    Boolean,
    Bytes,
    Date,
    Timestamp,
    /// An array of text.
    Texts,
    /// A map from text to text.
    TextMap,
    /// The type of the argument at a place.
    Same(usize),
    /// The type of the argument at a place, a single value; text where there is none.
    Single(usize),
    /// The type of the argument at a place, text or an array of text; text where there is none.
    TextOrTexts(usize),
    /// The type of the elements or values of the first argument.
    Element,
}

/// A function.
pub(super) struct Native {
    /// Its name in small letters.
    pub(super) name: &'static str,
    pub(super) takes: &'static [Takes],
    /// How many of the arguments must be there; the last one may be repeated where this is `usize::MAX`.
    pub(super) needed: usize,
    pub(super) gives: Gives,
    pub(super) eval: fn(&Args<'_>) -> Result<ArrayRef>,
}

/// As many arguments as are listed, and any number of the last one.
pub(super) const REPEATED: usize = usize::MAX;

/// The same, and the last one may be missing.
pub(super) const REPEATED_OR_NONE: usize = usize::MAX - 1;

/// Returns all functions of ours.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let families = [
        super::collections::FUNCTIONS,
        super::encoding::FUNCTIONS,
        super::json::FUNCTIONS,
        super::numbers::FUNCTIONS,
        super::text::FUNCTIONS,
        super::time::FUNCTIONS,
    ];
    let natives = families.into_iter().flatten();
    natives
        .map(|native| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(NativeFunction { native, signature }))
        })
        .collect()
}

struct NativeFunction {
    native: &'static Native,
    signature: Signature,
}

impl fmt::Debug for NativeFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.native.name)
    }
}

impl PartialEq for NativeFunction {
    fn eq(&self, other: &Self) -> bool {
        self.native.name == other.native.name
    }
}

impl Eq for NativeFunction {}

impl Hash for NativeFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.native.name.hash(state);
    }
}

/// Returns the type of an array of text.
pub(super) fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

impl ScalarUDFImpl for NativeFunction {
    fn name(&self) -> &str {
        self.native.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let Native { takes, needed, .. } = self.native;
        let name = self.native.name.to_uppercase();
        let (least, most) = match *needed {
            REPEATED => (takes.len(), usize::MAX),
            REPEATED_OR_NONE => (takes.len() - 1, usize::MAX),
            needed => (needed, takes.len()),
        };
        if !(least..=most).contains(&arguments.len()) {
            let wanted = match most {
                usize::MAX => format!("{least} or more"),
                most if most == least => most.to_string(),
                most => format!("{least} to {most}"),
            };
            return plan_err!("{name} takes {wanted} arguments, not {}", arguments.len());
        }
        let mut types = Vec::with_capacity(arguments.len());
        for (index, found) in arguments.iter().enumerate() {
            let takes = takes[index.min(takes.len() - 1)];
            let fits = found.is_null()
                || match takes {
                    Takes::Text => found.is_string(),
                    Takes::Integer => found.is_integer(),
                    Takes::Double => found.is_numeric(),
                    Takes::Bytes => found.is_string() || found.is_binary(),
                    Takes::Time => matches!(found, DataType::Timestamp(..) | DataType::Date32) || found.is_string(),
                    Takes::Any => true,
                };
            if !fits {
                let wanted = match takes {
                    Takes::Text => "STRING",
                    Takes::Integer => "BIGINT",
                    Takes::Double => "DOUBLE",
                    Takes::Bytes => "STRING or BYTES",
                    Takes::Time => "TIMESTAMP or DATE",
                    Takes::Any => "a value",
                };
                return plan_err!(
                    "argument {} of {name} must be {wanted}, not {}",
                    index + 1,
                    sql_name(found)
                );
            }
            types.push(match takes {
                Takes::Text => DataType::Utf8,
                Takes::Integer => DataType::Int64,
                Takes::Double => DataType::Float64,
                Takes::Bytes => DataType::Binary,
                Takes::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
                Takes::Any => found.clone(),
            });
        }
        Ok(types)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.native.gives {
            Gives::Text => DataType::Utf8,
            Gives::Int => DataType::Int32,
            Gives::BigInt => DataType::Int64,
            Gives::Double => DataType::Float64,
            Gives::Boolean => DataType::Boolean,
            Gives::Bytes => DataType::Binary,
            Gives::Date => DataType::Date32,
            Gives::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
            Gives::Texts => texts(),
            Gives::TextMap => crate::types::map_of(DataType::Utf8, DataType::Utf8),
            Gives::Same(index) => arguments.get(index).cloned().unwrap_or(DataType::Null),
            Gives::Single(index) | Gives::TextOrTexts(index) => {
                let name = self.native.name.to_uppercase();
                match (self.native.gives, arguments.get(index)) {
                    (_, None) => DataType::Utf8,
                    (Gives::Single(_), Some(found)) if found.is_nested() => {
                        return plan_err!("{name} gives a single value, not {}", sql_name(found));
                    }
                    (Gives::Single(_), Some(found)) => found.clone(),
                    (_, Some(found)) => match found {
                        DataType::Utf8 => DataType::Utf8,
                        DataType::List(item) if *item.data_type() == DataType::Utf8 => found.clone(),
                        _ => return plan_err!("{name} gives STRING or ARRAY<STRING>, not {}", sql_name(found)),
                    },
                }
            }
            Gives::Element => match arguments.first() {
                Some(DataType::List(item)) => item.data_type().clone(),
                Some(DataType::Map(entries, _)) => match entries.data_type() {
                    DataType::Struct(fields) if fields.len() == 2 => fields[1].data_type().clone(),
                    _ => return plan_err!("this map has no values"),
                },
                Some(other) => {
                    let name = self.native.name.to_uppercase();
                    return plan_err!("{name} takes an ARRAY or a MAP, not {}", sql_name(other));
                }
                None => DataType::Null,
            },
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut values = Vec::with_capacity(arguments.args.len());
        for value in &arguments.args {
            values.push(match value {
                ColumnarValue::Array(array) => (Arc::clone(array), 1),
                ColumnarValue::Scalar(scalar) => (scalar.to_array()?, 0),
            });
        }
        let args = Args {
            name: self.native.name,
            values,
            rows: arguments.number_rows,
            gives: arguments.return_field.data_type(),
        };
        (self.native.eval)(&args).map(ColumnarValue::Array)
    }
}

/// The arguments of a batch.
pub(super) struct Args<'a> {
    name: &'static str,
    /// The values, with the distance between those of two rows: 0 for a literal.
    values: Vec<(ArrayRef, usize)>,
    pub(super) rows: usize,
    /// The type of the result.
    pub(super) gives: &'a DataType,
}

/// An argument of a type, for each row.
#[derive(Clone, Copy)]
pub(super) struct Each<'a, A> {
    array: Option<&'a A>,
    step: usize,
}

impl Args<'_> {
    /// Returns the function's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns how many arguments there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns an argument with one value per row.
    ///
    /// # Errors
    /// When a literal cannot be repeated.
    pub(super) fn array(&self, index: usize) -> Result<ArrayRef> {
        let (array, step) = &self.values[index];
        match step {
            0 => Ok(arrow::compute::take(
                array,
                &arrow::array::UInt32Array::from_value(0, self.rows),
                None,
            )?),
            _ => Ok(Arc::clone(array)),
        }
    }

    /// Returns the type of an argument.
    pub(super) fn data_type(&self, index: usize) -> &DataType {
        self.values[index].0.data_type()
    }

    fn each<'a, A: 'static>(&'a self, index: usize) -> Each<'a, A> {
        match self.values.get(index) {
            Some((array, step)) => Each {
                array: array.as_any().downcast_ref(),
                step: *step,
            },
            None => Each { array: None, step: 0 },
        }
    }

    pub(super) fn text(&self, index: usize) -> Each<'_, StringArray> {
        self.each(index)
    }

    pub(super) fn bytes(&self, index: usize) -> Each<'_, BinaryArray> {
        self.each(index)
    }

    pub(super) fn integer(&self, index: usize) -> Each<'_, Int64Array> {
        self.each(index)
    }

    pub(super) fn double(&self, index: usize) -> Each<'_, Float64Array> {
        self.each(index)
    }

    pub(super) fn time(&self, index: usize) -> Each<'_, TimestampMicrosecondArray> {
        self.each(index)
    }

    /// Makes a text of each row.
    ///
    /// # Errors
    /// When a text is too long.
    pub(super) fn texts<T: AsRef<str>>(&self, of: impl Fn(usize) -> Option<T>) -> Result<ArrayRef> {
        let mut builder = StringBuilder::with_capacity(self.rows, self.rows * 8);
        for row in 0..self.rows {
            let value = of(row);
            if let Some(text) = &value
                && text.as_ref().len() > VALUE_BYTES_MAX
            {
                let name = self.name.to_uppercase();
                return exec_err!("{name} makes a text of more than {VALUE_BYTES_MAX} bytes, which is the limit");
            }
            builder.append_option(value);
        }
        Ok(Arc::new(builder.finish()))
    }

    pub(super) fn ints(&self, of: impl FnMut(usize) -> Option<i32>) -> Result<ArrayRef> {
        Ok(Arc::new(Int32Array::from_iter((0..self.rows).map(of))))
    }

    pub(super) fn booleans(&self, of: impl FnMut(usize) -> Option<bool>) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::from_iter((0..self.rows).map(of))))
    }

    pub(super) fn all_bytes(&self, of: impl FnMut(usize) -> Option<Vec<u8>>) -> Result<ArrayRef> {
        let values: Vec<Option<Vec<u8>>> = (0..self.rows).map(of).collect();
        Ok(Arc::new(BinaryArray::from_iter(values)))
    }

    pub(super) fn primitives<T: arrow::datatypes::ArrowPrimitiveType>(
        &self,
        of: impl FnMut(usize) -> Option<T::Native>,
    ) -> Result<ArrayRef> {
        Ok(Arc::new(PrimitiveArray::<T>::from_iter((0..self.rows).map(of))))
    }

    /// Makes an array of text of each row.
    pub(super) fn lists(&self, mut of: impl FnMut(usize) -> Option<Vec<String>>) -> Result<ArrayRef> {
        let mut builder = arrow::array::ListBuilder::new(StringBuilder::new());
        for row in 0..self.rows {
            match of(row) {
                Some(values) => {
                    values.iter().for_each(|value| builder.values().append_value(value));
                    builder.append(true);
                }
                None => builder.append(false),
            }
        }
        Ok(Arc::new(builder.finish()))
    }
}

macro_rules! each {
    ($array:ty, $value:ty) => {
        impl<'a> Each<'a, $array> {
            /// Returns the value of a row.
            pub(super) fn get(&self, row: usize) -> Option<$value> {
                let (array, row) = (self.array?, row * self.step);
                array.is_valid(row).then(|| array.value(row))
            }
        }
    };
}

each!(StringArray, &'a str);
each!(BinaryArray, &'a [u8]);
each!(Int64Array, i64);
each!(Float64Array, f64);
each!(TimestampMicrosecondArray, i64);
