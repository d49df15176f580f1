//! The values of a batch as text, for the formats that write text.

use super::time_text::{self, TimestampStandard, Zone};
use crate::error::ConnectorError;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    LargeBinaryArray, LargeStringArray, StringArray, StringViewArray,
};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine as _;
use std::io::Write as _;
use tidemill_engine::Error;

/// A column of a batch whose values can be written.
pub(crate) struct TextColumn<'a> {
    array: &'a dyn Array,
    values: Values<'a>,
}

enum Values<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    UInt16(&'a [u16]),
    UInt32(&'a [u32]),
    UInt64(&'a [u64]),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, i8),
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    Date(&'a Date32Array),
    /// A time of day, and nanoseconds per unit.
    Time32(&'a [i32], i64),
    Time64(&'a [i64], i64),
    Timestamp(&'a [i64], TimeUnit, Zone),
    List(&'a [i32], Box<TextColumn<'a>>),
    Struct(Vec<(&'a str, TextColumn<'a>)>),
    Map(&'a [i32], Box<TextColumn<'a>>, Box<TextColumn<'a>>),
}

/// What kind of value a column has, as far as quoting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Text that must be quoted and may need escapes.
    Text,
    /// Text that must be quoted and never needs escapes: dates, times, base64.
    PlainText,
    /// A number or a boolean.
    Bare,
    /// A float, which may be no number.
    Float,
    /// A list, a row or a map.
    Container,
}

/// The parts of a container's value.
pub(crate) enum Parts<'a, 'b> {
    /// The items of a list.
    List(&'b TextColumn<'a>, std::ops::Range<usize>),
    /// The fields of a row.
    Struct(&'b [(&'a str, TextColumn<'a>)]),
    /// The keys and values of a map.
    Map(&'b TextColumn<'a>, &'b TextColumn<'a>, std::ops::Range<usize>),
}

/// Checks that values of a type can be written as text.
///
/// # Errors
/// When they cannot; the error names the column.
pub(crate) fn check_writable(name: &str, data_type: &DataType) -> Result<(), ConnectorError> {
    let empty = arrow::array::new_empty_array(data_type);
    TextColumn::new(&empty).map(|_| ()).map_err(|_| {
        ConnectorError::new(format!(
            "column {name} has the type {data_type}, which text formats do not write"
        ))
    })
}

impl<'a> TextColumn<'a> {
    /// Makes a column's writer.
    ///
    /// # Errors
    /// When the type cannot be written.
    pub(crate) fn new(array: &'a ArrayRef) -> Result<Self, Error> {
        let values = match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(array.as_boolean()),
            DataType::Int8 => Values::Int8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => Values::Int16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt8 => Values::UInt8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Values::UInt16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Values::UInt32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Values::UInt64(array.as_primitive::<UInt64Type>().values()),
            DataType::Float32 => Values::Float32(array.as_primitive()),
            DataType::Float64 => Values::Float64(array.as_primitive()),
            DataType::Decimal128(_, scale) => Values::Decimal(array.as_primitive(), *scale),
            DataType::Utf8 => Values::Utf8(array.as_string()),
            DataType::LargeUtf8 => Values::LargeUtf8(array.as_string()),
            DataType::Utf8View => Values::Utf8View(array.as_string_view()),
            DataType::Binary => Values::Binary(array.as_binary()),
            DataType::LargeBinary => Values::LargeBinary(array.as_binary()),
            DataType::Date32 => Values::Date(array.as_primitive()),
            DataType::Time32(_) | DataType::Time64(_) | DataType::Timestamp(..) => time_values(array)?,
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Values::List(list.value_offsets(), Box::new(TextColumn::new(list.values())?))
            }
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let column = |(field, array): (&'a std::sync::Arc<arrow::datatypes::Field>, &'a ArrayRef)| {
                    Ok::<_, Error>((field.name().as_str(), TextColumn::new(array)?))
                };
                Values::Struct(columns.map(column).collect::<Result<_, _>>()?)
            }
            DataType::Map(..) => {
                let map = array.as_map();
                let (keys, values) = (TextColumn::new(map.keys())?, TextColumn::new(map.values())?);
                Values::Map(map.value_offsets(), Box::new(keys), Box::new(values))
            }
            other => {
                return Err(Error::operator(format!(
                    "values of the type {other} cannot be written as text"
                )));
            }
        };
        Ok(Self {
            array: array.as_ref(),
            values,
        })
    }

    /// Says whether a value is null.
    #[inline]
    pub(crate) fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::Null) || self.array.is_null(row)
    }

    /// Says how values must be quoted.
    pub(crate) fn shape(&self) -> Shape {
        match self.values {
            Values::Utf8(_) | Values::LargeUtf8(_) | Values::Utf8View(_) => Shape::Text,
            Values::Binary(_)
            | Values::LargeBinary(_)
            | Values::Date(_)
            | Values::Time32(..)
            | Values::Time64(..)
            | Values::Timestamp(..) => Shape::PlainText,
            Values::Float32(_) | Values::Float64(_) => Shape::Float,
            Values::List(..) | Values::Struct(_) | Values::Map(..) => Shape::Container,
            _ => Shape::Bare,
        }
    }

    /// Says whether a float has no value that a number can show.
    pub(crate) fn is_not_finite(&self, row: usize) -> bool {
        match self.values {
            Values::Float32(a) => !a.value(row).is_finite(),
            Values::Float64(a) => !a.value(row).is_finite(),
            _ => false,
        }
    }

    /// Returns a text column's value.
    #[inline]
    pub(crate) fn text(&self, row: usize) -> &'a str {
        match self.values {
            Values::Utf8(a) => a.value(row),
            Values::LargeUtf8(a) => a.value(row),
            Values::Utf8View(a) => a.value(row),
            _ => "",
        }
    }

    /// Returns the parts of a container's value.
    pub(crate) fn parts<'b>(&'b self, row: usize) -> Option<Parts<'a, 'b>> {
        let range = |offsets: &[i32]| {
            let at = |i: usize| usize::try_from(offsets[i]).unwrap_or(0);
            at(row)..at(row + 1)
        };
        match &self.values {
            Values::List(offsets, items) => Some(Parts::List(items, range(offsets))),
            Values::Struct(fields) => Some(Parts::Struct(fields)),
            Values::Map(offsets, keys, values) => Some(Parts::Map(keys, values, range(offsets))),
            _ => None,
        }
    }

    /// Writes a value that is not a container, without quotation marks. Nulls must be handled before.
    pub(crate) fn write(&self, row: usize, standard: TimestampStandard, out: &mut Vec<u8>) {
        match &self.values {
            Values::Null | Values::List(..) | Values::Struct(_) | Values::Map(..) => {}
            Values::Boolean(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
            Values::Int8(v) => write_integer(out, i64::from(v[row])),
            Values::Int16(v) => write_integer(out, i64::from(v[row])),
            Values::Int32(v) => write_integer(out, i64::from(v[row])),
            Values::Int64(v) => write_integer(out, v[row]),
            Values::UInt8(v) => write_integer(out, i64::from(v[row])),
            Values::UInt16(v) => write_integer(out, i64::from(v[row])),
            Values::UInt32(v) => write_integer(out, i64::from(v[row])),
            Values::UInt64(v) => write_unsigned(out, v[row]),
            Values::Float32(a) if a.value(row).is_infinite() => write_infinity(out, a.value(row) < 0.0),
            Values::Float64(a) if a.value(row).is_infinite() => write_infinity(out, a.value(row) < 0.0),
            Values::Float32(a) => write_formatted(out, format_args!("{:?}", a.value(row))),
            Values::Float64(a) => write_formatted(out, format_args!("{:?}", a.value(row))),
            Values::Decimal(a, scale) => write_decimal(out, a.value(row), *scale),
            Values::Utf8(_) | Values::LargeUtf8(_) | Values::Utf8View(_) => {
                out.extend_from_slice(self.text(row).as_bytes());
            }
            Values::Binary(a) => write_base64(out, a.value(row)),
            Values::LargeBinary(a) => write_base64(out, a.value(row)),
            Values::Date(a) => time_text::write_date(out, i64::from(a.value(row))),
            Values::Time32(v, scale) => time_text::write_time(out, i64::from(v[row]).saturating_mul(*scale)),
            Values::Time64(v, scale) => time_text::write_time(out, v[row].saturating_mul(*scale)),
            Values::Timestamp(v, unit, zone) => time_text::write_timestamp(out, v[row], *unit, standard, *zone),
        }
    }
}

fn time_values(array: &ArrayRef) -> Result<Values<'_>, Error> {
    use arrow::datatypes::{
        Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    };
    Ok(match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            Values::Time32(array.as_primitive::<Time32SecondType>().values(), 1_000_000_000)
        }
        DataType::Time32(_) => Values::Time32(array.as_primitive::<Time32MillisecondType>().values(), 1_000_000),
        DataType::Time64(TimeUnit::Microsecond) => {
            Values::Time64(array.as_primitive::<Time64MicrosecondType>().values(), 1_000)
        }
        DataType::Time64(_) => Values::Time64(array.as_primitive::<Time64NanosecondType>().values(), 1),
        DataType::Timestamp(unit, zone) => {
            let values: &[i64] = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
            };
            Values::Timestamp(values, *unit, if zone.is_some() { Zone::Utc } else { Zone::None })
        }
        other => return Err(Error::operator(format!("{other} is not a type of time"))),
    })
}

fn write_formatted(out: &mut Vec<u8>, value: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(value);
}

/// Writes an infinity as Java does, which others read too.
fn write_infinity(out: &mut Vec<u8>, negative: bool) {
    out.extend_from_slice(if negative { b"-Infinity" } else { b"Infinity" });
}

fn write_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    write_unsigned(out, value.unsigned_abs());
}

fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_decimal(out: &mut Vec<u8>, value: i128, scale: i8) {
    if value < 0 {
        out.push(b'-');
    }
    let digits = value.unsigned_abs().to_string();
    match usize::try_from(scale) {
        Ok(0) => out.extend_from_slice(digits.as_bytes()),
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            out.extend_from_slice(whole.as_bytes());
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
        Err(_) => {
            out.extend_from_slice(digits.as_bytes());
            if value != 0 {
                out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
            }
        }
    }
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        let mut out = Vec::new();
        write_integer(&mut out, i64::MIN);
        out.push(b' ');
        write_decimal(&mut out, -5, 3);
        out.push(b' ');
        write_decimal(&mut out, 12_345, 2);
        out.push(b' ');
        write_decimal(&mut out, 12, -2);
        assert_eq!(out, b"-9223372036854775808 -0.005 123.45 1200");
    }
}
