//! Columns that a decoder fills value by value, and that can take back their last row.

use super::record_error::RecordError;
use super::time_text::{self, TimestampStandard, Zone, shorten};
use crate::error::ConnectorError;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray, ListArray, MapArray, NullBufferBuilder,
    StringArray, StringViewArray, StructArray, Time32MillisecondArray, Time32SecondArray, Time64MicrosecondArray,
    Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use arrow::error::ArrowError;
use base64::Engine as _;
use std::sync::Arc;

/// How values are read from text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TextOptions {
    /// The spelling of timestamps.
    pub(crate) timestamps: TimestampStandard,
}

/// A column being filled.
#[derive(Debug)]
pub(crate) struct ColumnBuilder {
    field: FieldRef,
    options: TextOptions,
    values: Values,
    nulls: NullBufferBuilder,
}

/// The values of a column. Nulls have a value too, any one.
#[derive(Debug)]
enum Values {
    Boolean(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Text(Bytes),
    Binary(Bytes),
    Date(Vec<i32>),
    /// In the unit of the field.
    Time32(Vec<i32>, TimeUnit),
    Time64(Vec<i64>, TimeUnit),
    Timestamp(Vec<i64>, TimeUnit, Zone),
    List {
        offsets: Vec<i32>,
        items: Box<ColumnBuilder>,
    },
    Struct(Vec<ColumnBuilder>),
    Map {
        offsets: Vec<i32>,
        keys: Box<ColumnBuilder>,
        values: Box<ColumnBuilder>,
    },
}

/// Byte strings laid end to end; string `i` ends at `ends[i]`.
#[derive(Debug, Default)]
struct Bytes {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Bytes {
    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.data.truncate(self.ends.last().copied().unwrap_or(0));
    }

    fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.ends.push(self.data.len());
    }

    /// Takes the strings as offsets and data; the next batch gets the same room.
    fn finish<T: TryFrom<usize> + Default>(&mut self) -> Result<(Vec<T>, Buffer), ArrowError> {
        let next = Bytes {
            data: Vec::with_capacity(self.data.len()),
            ends: Vec::with_capacity(self.ends.len()),
        };
        let done = std::mem::replace(self, next);
        let mut offsets = Vec::with_capacity(done.ends.len() + 1);
        offsets.push(T::default());
        for end in done.ends {
            offsets.push(T::try_from(end).map_err(|_| {
                ArrowError::InvalidArgumentError("more than 2 GiB of text in one column of a batch".to_owned())
            })?);
        }
        Ok((offsets, Buffer::from_vec(done.data)))
    }
}

/// Takes a vector and leaves one with the same room.
fn take_with_room<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len();
    std::mem::replace(values, Vec::with_capacity(room))
}

impl ColumnBuilder {
    /// Makes the builder of a column.
    ///
    /// # Errors
    /// When text cannot be read into the column's type.
    pub(crate) fn new(field: &FieldRef, options: TextOptions) -> Result<Self, ConnectorError> {
        let child = |field: &FieldRef| ColumnBuilder::new(field, options);
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(Vec::new()),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::UInt8 => Values::UInt8(Vec::new()),
            DataType::UInt16 => Values::UInt16(Vec::new()),
            DataType::UInt32 => Values::UInt32(Vec::new()),
            DataType::UInt64 => Values::UInt64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal {
                values: Vec::new(),
                precision: *precision,
                scale: *scale,
            },
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Values::Text(Bytes::default()),
            DataType::Binary | DataType::LargeBinary => Values::Binary(Bytes::default()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time32(unit) => Values::Time32(Vec::new(), *unit),
            DataType::Time64(unit) => Values::Time64(Vec::new(), *unit),
            DataType::Timestamp(unit, None) => Values::Timestamp(Vec::new(), *unit, Zone::None),
            DataType::Timestamp(unit, Some(_)) => Values::Timestamp(Vec::new(), *unit, Zone::Utc),
            DataType::List(item) => Values::List {
                offsets: vec![0],
                items: Box::new(child(item)?),
            },
            DataType::Struct(fields) => Values::Struct(fields.iter().map(child).collect::<Result<_, _>>()?),
            DataType::Map(entries, _) => {
                let (key, value) = map_fields(entries)?;
                Values::Map {
                    offsets: vec![0],
                    keys: Box::new(child(key)?),
                    values: Box::new(child(value)?),
                }
            }
            other => {
                return Err(ConnectorError::new(format!(
                    "column {} has the type {other}, which formats do not read",
                    field.name()
                )));
            }
        };
        Ok(Self {
            field: Arc::clone(field),
            options,
            values,
            nulls: NullBufferBuilder::new(0),
        })
    }

    /// Returns the column's name.
    pub(crate) fn name(&self) -> &str {
        self.field.name()
    }

    /// Returns the rows so far.
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Takes rows back until `rows` are left.
    pub(crate) fn truncate(&mut self, rows: usize) {
        if self.len() <= rows
            && !matches!(
                self.values,
                Values::List { .. } | Values::Struct(_) | Values::Map { .. }
            )
        {
            return;
        }
        self.nulls.truncate(rows);
        match &mut self.values {
            Values::Boolean(v) => v.truncate(rows),
            Values::Int8(v) => v.truncate(rows),
            Values::Int16(v) => v.truncate(rows),
            Values::Int32(v) | Values::Date(v) | Values::Time32(v, _) => v.truncate(rows),
            Values::Int64(v) | Values::Time64(v, _) | Values::Timestamp(v, _, _) => v.truncate(rows),
            Values::UInt8(v) => v.truncate(rows),
            Values::UInt16(v) => v.truncate(rows),
            Values::UInt32(v) => v.truncate(rows),
            Values::UInt64(v) => v.truncate(rows),
            Values::Float32(v) => v.truncate(rows),
            Values::Float64(v) => v.truncate(rows),
            Values::Decimal { values, .. } => values.truncate(rows),
            Values::Text(b) | Values::Binary(b) => b.truncate(rows),
            Values::List { offsets, items } => {
                offsets.truncate(rows + 1);
                items.truncate(last_offset(offsets));
            }
            Values::Struct(children) => children.iter_mut().for_each(|child| child.truncate(rows)),
            Values::Map { offsets, keys, values } => {
                offsets.truncate(rows + 1);
                keys.truncate(last_offset(offsets));
                values.truncate(last_offset(offsets));
            }
        }
    }

    /// Appends a null.
    pub(crate) fn append_null(&mut self) -> Result<(), RecordError> {
        if !self.field.is_nullable() {
            return Err(RecordError::new("is null or missing, but the column is NOT NULL"));
        }
        self.append_filler();
        self.nulls.append_null();
        Ok(())
    }

    /// Appends a value to stand under a null, also of this column's parent.
    fn append_filler(&mut self) {
        match &mut self.values {
            Values::Boolean(v) => v.push(false),
            Values::Int8(v) => v.push(0),
            Values::Int16(v) => v.push(0),
            Values::Int32(v) | Values::Date(v) | Values::Time32(v, _) => v.push(0),
            Values::Int64(v) | Values::Time64(v, _) | Values::Timestamp(v, _, _) => v.push(0),
            Values::UInt8(v) => v.push(0),
            Values::UInt16(v) => v.push(0),
            Values::UInt32(v) => v.push(0),
            Values::UInt64(v) => v.push(0),
            Values::Float32(v) => v.push(0.0),
            Values::Float64(v) => v.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text(b) | Values::Binary(b) => b.push(&[]),
            Values::List { offsets, .. } | Values::Map { offsets, .. } => {
                let end = offsets.last().copied().unwrap_or(0);
                offsets.push(end);
            }
            Values::Struct(children) => {
                for child in children {
                    child.append_filler();
                    // Under a null parent a child's own NOT NULL does not count.
                    if child.field.is_nullable() {
                        child.nulls.append_null()
                    } else {
                        child.nulls.append_non_null()
                    }
                }
            }
        }
    }

    /// Appends `true` or `false`.
    pub(crate) fn append_bool(&mut self, value: bool) -> Result<(), RecordError> {
        match &mut self.values {
            Values::Boolean(v) => v.push(value),
            Values::Text(b) => b.push(if value { b"true" } else { b"false" }),
            _ => return Err(self.unexpected("a boolean")),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends a number from its text, which has the form of a JSON number.
    #[inline]
    pub(crate) fn append_number(&mut self, text: &str) -> Result<(), RecordError> {
        match &mut self.values {
            Values::Int64(v) => v.push(parse_integer(text, i64::MIN, i64::MAX)?),
            Values::Int32(v) => v.push(parse_narrow(text)?),
            Values::Float64(v) => v.push(parse_f64(text)?),
            Values::Text(b) => b.push(text.as_bytes()),
            _ => return self.append_other_number(text),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn append_other_number(&mut self, text: &str) -> Result<(), RecordError> {
        match &mut self.values {
            Values::Int8(v) => v.push(parse_narrow(text)?),
            Values::Int16(v) => v.push(parse_narrow(text)?),
            Values::UInt8(v) => v.push(parse_narrow(text)?),
            Values::UInt16(v) => v.push(parse_narrow(text)?),
            Values::UInt32(v) => v.push(parse_narrow(text)?),
            Values::UInt64(v) => v.push(parse_unsigned(text)?),
            Values::Float32(v) => v.push(parse_f32(text)?),
            Values::Decimal {
                values,
                precision,
                scale,
            } => values.push(parse_decimal(text, *precision, *scale)?),
            Values::Timestamp(..) => {
                return Err(RecordError::new(format!(
                    "the number {} is not a timestamp: formats read timestamps from text; for numbers declare the \
                     column as BIGINT and compute the timestamp with TO_TIMESTAMP_LTZ",
                    shorten(text)
                )));
            }
            _ => return Err(self.unexpected("a number")),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends a value from text, which numbers may be quoted in.
    #[inline]
    pub(crate) fn append_text(&mut self, text: &str) -> Result<(), RecordError> {
        if let Values::Text(b) = &mut self.values {
            b.push(text.as_bytes());
            self.nulls.append_non_null();
            return Ok(());
        }
        let standard = self.options.timestamps;
        match &mut self.values {
            Values::Timestamp(v, unit, zone) => {
                v.push(time_text::parse_timestamp(text, standard, *zone, *unit).map_err(RecordError::new)?);
            }
            Values::Boolean(v) => match text.trim() {
                t if t.eq_ignore_ascii_case("true") => v.push(true),
                t if t.eq_ignore_ascii_case("false") => v.push(false),
                t => return Err(RecordError::new(format!("'{}' is neither true nor false", shorten(t)))),
            },
            Values::Date(v) => v.push(time_text::parse_date(text).map_err(RecordError::new)?),
            Values::Time32(v, unit) => {
                let nanos = time_text::parse_time(text).map_err(RecordError::new)?;
                v.push(i32::try_from(nanos / nanos_per(*unit)).unwrap_or(0));
            }
            Values::Time64(v, unit) => {
                v.push(time_text::parse_time(text).map_err(RecordError::new)? / nanos_per(*unit));
            }
            Values::Binary(b) => {
                let start = b.data.len();
                let decoded = base64::engine::general_purpose::STANDARD.decode_vec(text, &mut b.data);
                if let Err(error) = decoded {
                    b.data.truncate(start);
                    return Err(RecordError::new(format!(
                        "is not base64, which binary columns are read from: {error}"
                    )));
                }
                b.ends.push(b.data.len());
            }
            Values::List { .. } | Values::Struct(_) | Values::Map { .. } => return Err(self.unexpected("text")),
            _ => return self.append_number(text.trim()),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends bytes as they are.
    pub(crate) fn append_bytes(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        match &mut self.values {
            Values::Binary(b) => b.push(bytes),
            Values::Text(b) => match std::str::from_utf8(bytes) {
                Ok(text) => b.push(text.as_bytes()),
                Err(error) => return Err(RecordError::new(format!("is not UTF-8: {error}"))),
            },
            _ => return Err(self.unexpected("bytes")),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Says what the column takes of a JSON array or object.
    pub(crate) fn container(&mut self) -> Container<'_> {
        match &mut self.values {
            Values::Text(_) => Container::Text,
            Values::List { items, .. } => Container::List(items),
            Values::Struct(children) => Container::Struct(children),
            Values::Map { keys, values, .. } => Container::Map(keys, values),
            _ => Container::Scalar,
        }
    }

    /// Ends a row whose items, fields or entries were appended to the columns in [`ColumnBuilder::container`].
    pub(crate) fn end_container(&mut self) -> Result<(), RecordError> {
        let end = |rows: usize| i32::try_from(rows).map_err(|_| RecordError::new("has too many items for one batch"));
        match &mut self.values {
            Values::List { offsets, items } => offsets.push(end(items.len())?),
            Values::Map { offsets, keys, .. } => offsets.push(end(keys.len())?),
            _ => {}
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Makes the error for a value of the wrong kind.
    pub(crate) fn unexpected(&self, found: &str) -> RecordError {
        RecordError::new(format!(
            "is {found}, but the column has the type {}",
            self.field.data_type()
        ))
    }

    /// Takes the rows out as an array of the column's type.
    ///
    /// # Errors
    /// When a column's text is longer than an array can be.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        let array: ArrayRef = match &mut self.values {
            Values::Boolean(v) => Arc::new(BooleanArray::new(BooleanBuffer::from(take_with_room(v)), nulls)),
            Values::Int8(v) => Arc::new(Int8Array::new(scalars(v), nulls)),
            Values::Int16(v) => Arc::new(Int16Array::new(scalars(v), nulls)),
            Values::Int32(v) => Arc::new(Int32Array::new(scalars(v), nulls)),
            Values::Int64(v) => Arc::new(Int64Array::new(scalars(v), nulls)),
            Values::UInt8(v) => Arc::new(UInt8Array::new(scalars(v), nulls)),
            Values::UInt16(v) => Arc::new(UInt16Array::new(scalars(v), nulls)),
            Values::UInt32(v) => Arc::new(UInt32Array::new(scalars(v), nulls)),
            Values::UInt64(v) => Arc::new(UInt64Array::new(scalars(v), nulls)),
            Values::Float32(v) => Arc::new(Float32Array::new(scalars(v), nulls)),
            Values::Float64(v) => Arc::new(Float64Array::new(scalars(v), nulls)),
            Values::Decimal {
                values,
                precision,
                scale,
            } => Arc::new(Decimal128Array::new(scalars(values), nulls).with_precision_and_scale(*precision, *scale)?),
            Values::Text(b) => finish_text(b, self.field.data_type(), nulls)?,
            Values::Binary(b) => match self.field.data_type() {
                DataType::LargeBinary => {
                    let (offsets, data) = b.finish::<i64>()?;
                    Arc::new(LargeBinaryArray::try_new(
                        OffsetBuffer::new(offsets.into()),
                        data,
                        nulls,
                    )?)
                }
                _ => {
                    let (offsets, data) = b.finish::<i32>()?;
                    Arc::new(BinaryArray::try_new(OffsetBuffer::new(offsets.into()), data, nulls)?)
                }
            },
            Values::Date(v) => Arc::new(Date32Array::new(scalars(v), nulls)),
            Values::Time32(v, TimeUnit::Second) => Arc::new(Time32SecondArray::new(scalars(v), nulls)),
            Values::Time32(v, _) => Arc::new(Time32MillisecondArray::new(scalars(v), nulls)),
            Values::Time64(v, TimeUnit::Nanosecond) => Arc::new(Time64NanosecondArray::new(scalars(v), nulls)),
            Values::Time64(v, _) => Arc::new(Time64MicrosecondArray::new(scalars(v), nulls)),
            Values::Timestamp(v, unit, _) => timestamps(scalars(v), *unit, self.field.data_type(), nulls),
            Values::List { offsets, items } => {
                let DataType::List(item) = self.field.data_type() else {
                    return Err(ArrowError::SchemaError("a list column lost its type".to_owned()));
                };
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, items.finish()?, nulls)?)
            }
            Values::Struct(children) => {
                let DataType::Struct(fields) = self.field.data_type() else {
                    return Err(ArrowError::SchemaError("a row column lost its type".to_owned()));
                };
                let rows = nulls
                    .as_ref()
                    .map_or_else(|| children.first().map_or(0, ColumnBuilder::len), NullBuffer::len);
                let arrays = children
                    .iter_mut()
                    .map(ColumnBuilder::finish)
                    .collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, nulls, rows)?)
            }
            Values::Map { offsets, keys, values } => {
                let DataType::Map(entries, ordered) = self.field.data_type() else {
                    return Err(ArrowError::SchemaError("a map column lost its type".to_owned()));
                };
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(ArrowError::SchemaError("a map column lost its type".to_owned()));
                };
                let rows = StructArray::try_new(fields.clone(), vec![keys.finish()?, values.finish()?], None)?;
                Arc::new(MapArray::try_new(Arc::clone(entries), offsets, rows, nulls, *ordered)?)
            }
        };
        Ok(array)
    }
}

/// What a column takes of a JSON array or object.
pub(crate) enum Container<'a> {
    /// The text of it.
    Text,
    /// The items of an array.
    List(&'a mut ColumnBuilder),
    /// The fields of an object.
    Struct(&'a mut [ColumnBuilder]),
    /// The keys and values of an object.
    Map(&'a mut ColumnBuilder, &'a mut ColumnBuilder),
    /// Nothing: the column holds a single value.
    Scalar,
}

fn map_fields(entries: &Field) -> Result<(&FieldRef, &FieldRef), ConnectorError> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Ok((&fields[0], &fields[1])),
        _ => Err(ConnectorError::new("a map's entries must be a key and a value")),
    }
}

fn last_offset(offsets: &[i32]) -> usize {
    usize::try_from(offsets.last().copied().unwrap_or(0)).unwrap_or(0)
}

fn scalars<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(take_with_room(values))
}

fn finish_text(bytes: &mut Bytes, data_type: &DataType, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    // Arrow checks the UTF-8 once more: this crate has no unsafe code, and it costs little.
    Ok(match data_type {
        DataType::LargeUtf8 => {
            let (offsets, data) = bytes.finish::<i64>()?;
            Arc::new(LargeStringArray::try_new(
                OffsetBuffer::new(offsets.into()),
                data,
                nulls,
            )?)
        }
        data_type => {
            let (offsets, data) = bytes.finish::<i32>()?;
            let array = StringArray::try_new(OffsetBuffer::new(offsets.into()), data, nulls)?;
            if *data_type == DataType::Utf8View {
                Arc::new(StringViewArray::from(&array))
            } else {
                Arc::new(array)
            }
        }
    })
}

fn timestamps(values: ScalarBuffer<i64>, unit: TimeUnit, data_type: &DataType, nulls: Option<NullBuffer>) -> ArrayRef {
    let zone = match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    match unit {
        TimeUnit::Second => Arc::new(TimestampSecondArray::new(values, nulls).with_timezone_opt(zone)),
        TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::new(values, nulls).with_timezone_opt(zone)),
        TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone_opt(zone)),
        TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::new(values, nulls).with_timezone_opt(zone)),
    }
}

fn nanos_per(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn parse_narrow<T: TryFrom<i64>>(text: &str) -> Result<T, RecordError> {
    let value = parse_integer(text, i64::MIN, i64::MAX)?;
    T::try_from(value).map_err(|_| out_of_range(text))
}

/// Reads an integer, also one spelt with a fraction of zeros or an exponent.
#[inline]
fn parse_integer(text: &str, min: i64, max: i64) -> Result<i64, RecordError> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, bytes),
    };
    if digits.is_empty() || digits.len() > 18 {
        return parse_integer_slowly(text, min, max);
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return parse_integer_slowly(text, min, max);
        }
        value = value * 10 + i64::from(digit);
    }
    Ok(if negative { -value } else { value })
}

#[cold]
fn parse_integer_slowly(text: &str, min: i64, max: i64) -> Result<i64, RecordError> {
    if let Ok(value) = text.parse::<i64>() {
        return if (min..=max).contains(&value) {
            Ok(value)
        } else {
            Err(out_of_range(text))
        };
    }
    let value = parse_decimal(text, 38, 0)?;
    if text.parse::<f64>().is_ok_and(|number| number.fract() != 0.0) {
        return Err(RecordError::new(format!("{} is not a whole number", shorten(text))));
    }
    i64::try_from(value).map_err(|_| out_of_range(text))
}

fn parse_unsigned(text: &str) -> Result<u64, RecordError> {
    match text.parse::<u64>() {
        Ok(value) => Ok(value),
        Err(_) => u64::try_from(parse_decimal(text, 38, 0)?).map_err(|_| out_of_range(text)),
    }
}

fn parse_f64(text: &str) -> Result<f64, RecordError> {
    match text.parse::<f64>() {
        Ok(value) if value.is_infinite() && !text.contains(['i', 'I']) => Err(out_of_range(text)),
        Ok(value) => Ok(value),
        Err(_) => Err(not_a_number(text)),
    }
}

fn parse_f32(text: &str) -> Result<f32, RecordError> {
    match text.parse::<f32>() {
        Ok(value) if value.is_infinite() && !text.contains(['i', 'I']) => Err(out_of_range(text)),
        Ok(value) => Ok(value),
        Err(_) => Err(not_a_number(text)),
    }
}

/// Reads a decimal number as an integer scaled by ten to the `scale`; digits beyond the scale are rounded half up.
fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, RecordError> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (
            &text[..at],
            text[at + 1..].parse::<i32>().map_err(|_| not_a_number(text))?,
        ),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 {
        return Err(not_a_number(text));
    }
    // The digits before this index stay, the one at it decides the rounding.
    let kept = i64::try_from(whole.len()).unwrap_or(i64::MAX) + i64::from(exponent) + i64::from(scale);
    let mut value = 0_i128;
    let mut round_up = false;
    for (i, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if !digit.is_ascii_digit() {
            return Err(not_a_number(text));
        }
        let digit = i128::from(digit - b'0');
        match i64::try_from(i).unwrap_or(i64::MAX).cmp(&kept) {
            std::cmp::Ordering::Less => {
                value = value
                    .checked_mul(10)
                    .and_then(|v| v.checked_add(digit))
                    .ok_or_else(|| out_of_range(text))?;
            }
            std::cmp::Ordering::Equal => round_up = digit >= 5,
            std::cmp::Ordering::Greater => {}
        }
    }
    let digits = i64::try_from(whole.len() + fraction.len()).unwrap_or(i64::MAX);
    for _ in digits..kept {
        if value == 0 {
            break;
        }
        value = value.checked_mul(10).ok_or_else(|| out_of_range(text))?;
    }
    value += i128::from(round_up);
    let limit = 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    if value >= limit {
        return Err(out_of_range(text));
    }
    Ok(if negative { -value } else { value })
}

fn out_of_range(text: &str) -> RecordError {
    RecordError::new(format!("{} is out of the column's range", shorten(text)))
}

fn not_a_number(text: &str) -> RecordError {
    RecordError::new(format!("'{}' is not a number", shorten(text)))
}

/// Makes builders for the columns of a record.
///
/// # Errors
/// When a column has a type that formats do not read.
pub(crate) fn builders(fields: &Fields, options: TextOptions) -> Result<Vec<ColumnBuilder>, ConnectorError> {
    fields.iter().map(|field| ColumnBuilder::new(field, options)).collect()
}

/// Takes back what a record that failed has appended, and what it has not reached.
pub(crate) fn roll_back(columns: &mut [ColumnBuilder], rows: usize) {
    columns.iter_mut().for_each(|column| column.truncate(rows));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(data_type: DataType) -> ColumnBuilder {
        ColumnBuilder::new(&Arc::new(Field::new("c", data_type, true)), TextOptions::default()).unwrap()
    }

    #[test]
    fn integers_keep_their_range() {
        let mut bytes = column(DataType::Int8);
        bytes.append_number("127").unwrap();
        bytes.append_number("-128").unwrap();
        bytes.append_number("1.0").unwrap();
        bytes.append_number("1e2").unwrap();
        assert!(bytes.append_number("128").unwrap_err().to_string().contains("range"));
        assert!(bytes.append_number("1.5").unwrap_err().to_string().contains("whole"));
        assert!(
            bytes
                .append_text("abc")
                .unwrap_err()
                .to_string()
                .contains("not a number")
        );
        assert_eq!(bytes.len(), 4);
        let mut longs = column(DataType::Int64);
        longs.append_number("9223372036854775807").unwrap();
        longs.append_number("-9223372036854775808").unwrap();
        assert!(longs.append_number("9223372036854775808").is_err());
        let mut unsigned = column(DataType::UInt64);
        unsigned.append_number("18446744073709551615").unwrap();
        assert!(unsigned.append_number("-1").is_err());
    }

    #[test]
    fn decimals_are_exact_and_rounded_half_up() {
        assert_eq!(parse_decimal("12.345", 10, 2), Ok(1235));
        assert_eq!(parse_decimal("-12.344", 10, 2), Ok(-1234));
        assert_eq!(parse_decimal("1e3", 10, 2), Ok(100_000));
        assert_eq!(parse_decimal("1.5e-1", 10, 2), Ok(15));
        assert_eq!(parse_decimal("0.005", 10, 2), Ok(1));
        assert!(parse_decimal("123.45", 4, 2).is_err());
        assert!(parse_decimal("1e999999999", 38, 0).is_err());
        assert_eq!(parse_decimal("0e999999999", 38, 0), Ok(0));
    }

    #[test]
    fn numbers_are_not_timestamps() {
        let mut times = column(DataType::Timestamp(TimeUnit::Millisecond, None));
        let error = times.append_number("1700000000000").unwrap_err().to_string();
        assert!(error.contains("BIGINT"), "{error}");
    }

    proptest! {
        #[test]
        fn integers_are_read_as_the_standard_library_reads_them(value: i64) {
            prop_assert_eq!(parse_integer(&value.to_string(), i64::MIN, i64::MAX), Ok(value));
        }

        #[test]
        fn any_text_is_refused_or_read(text in "[-+0-9.eE]{0,12}") {
            let _ = parse_decimal(&text, 38, 4);
            let _ = parse_integer(&text, i64::MIN, i64::MAX);
            let _ = parse_unsigned(&text);
        }
    }
}
