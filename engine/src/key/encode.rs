//! The canonical encoding of keys, and back.

use crate::error::{Error, Result};
use arrow::array::NullBufferBuilder;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BinaryViewBuilder, BooleanBuilder, LargeBinaryBuilder,
    LargeStringBuilder, PrimitiveArray, StringBuilder, StringViewBuilder, downcast_primitive,
};
use arrow::array::{AsArray, new_null_array};
use arrow::buffer::{MutableBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, ToByteSlice};
use std::sync::Arc;

/// The encoded keys of a batch, one after the other in one buffer that is used again for the next batch.
#[derive(Debug, Default, Clone)]
pub struct EncodedKeys {
    bytes: Vec<u8>,
    /// `offsets[i]..offsets[i + 1]` are the bytes of row i.
    offsets: Vec<usize>,
}

impl EncodedKeys {
    /// Returns the number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Says whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of the key of a row.
    #[must_use]
    #[inline]
    pub fn key(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row]..self.offsets[row + 1]]
    }
}

/// Says whether values of a type can be part of a key.
#[must_use]
pub fn supports_key_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null | DataType::Boolean => true,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        // Keys of many batches come together, so the dictionary's indices must have room for them all.
        DataType::Dictionary(index, values) => {
            matches!(
                **index,
                DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64
            ) && !matches!(**values, DataType::Dictionary(..))
                && supports_key_type(values)
        }
        other => other.is_primitive(),
    }
}

/// Encodes the keys of `rows` rows into `keys`, replacing what was there.
///
/// # Errors
/// When a column's type cannot be part of a key.
pub fn encode_keys(columns: &[ArrayRef], rows: usize, keys: &mut EncodedKeys) -> Result<()> {
    let columns = columns.iter().map(plain).collect::<Result<Vec<_>>>()?;
    let mut lengths = vec![0usize; rows];
    for column in &columns {
        add_lengths(column, &mut lengths)?;
    }
    keys.offsets.clear();
    keys.offsets.reserve(rows + 1);
    keys.offsets.push(0);
    let mut total = 0;
    for length in &mut lengths {
        let start = total;
        total += *length;
        keys.offsets.push(total);
        // From here on the row's write position.
        *length = start;
    }
    keys.bytes.clear();
    keys.bytes.resize(total, 0);
    for column in &columns {
        write_column(column, &mut keys.bytes, &mut lengths)?;
    }
    Ok(())
}

/// Unpacks dictionaries: their values have the same encoding as plain ones.
fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Dictionary(_, values) => Ok(arrow::compute::cast(column, values)?),
        _ => Ok(Arc::clone(column)),
    }
}

fn unsupported(data_type: &DataType) -> Error {
    Error::operator(format!(
        "a value of {data_type} cannot be part of a key; group by a scalar of it"
    ))
}

fn add_lengths(column: &ArrayRef, lengths: &mut [usize]) -> Result<()> {
    fn variable(nulls: Option<&NullBuffer>, lengths: &mut [usize], length: impl Fn(usize) -> usize) {
        for (row, total) in lengths.iter_mut().enumerate() {
            *total += if is_valid(nulls, row) { 5 + length(row) } else { 1 };
        }
    }
    macro_rules! variable {
        ($array:expr) => {{
            let array = $array;
            variable(array.nulls(), lengths, |row| array.value(row).len())
        }};
    }
    match column.data_type() {
        DataType::Null => lengths.iter_mut().for_each(|total| *total += 1),
        DataType::Boolean => fixed_lengths(column, 1, lengths),
        DataType::Utf8 => variable!(column.as_string::<i32>()),
        DataType::LargeUtf8 => variable!(column.as_string::<i64>()),
        DataType::Utf8View => variable!(column.as_string_view()),
        DataType::Binary => variable!(column.as_binary::<i32>()),
        DataType::LargeBinary => variable!(column.as_binary::<i64>()),
        DataType::BinaryView => variable!(column.as_binary_view()),
        other => match other.primitive_width() {
            Some(width) => fixed_lengths(column, width, lengths),
            None => return Err(unsupported(other)),
        },
    }
    Ok(())
}

#[inline]
fn is_valid(nulls: Option<&NullBuffer>, row: usize) -> bool {
    nulls.is_none_or(|nulls| nulls.is_valid(row))
}

fn fixed_lengths(column: &ArrayRef, width: usize, lengths: &mut [usize]) {
    if column.null_count() == 0 {
        lengths.iter_mut().for_each(|total| *total += 1 + width);
    } else {
        for (row, total) in lengths.iter_mut().enumerate() {
            *total += if column.is_valid(row) { 1 + width } else { 1 };
        }
    }
}

fn write_column(column: &ArrayRef, bytes: &mut [u8], positions: &mut [usize]) -> Result<()> {
    fn variable<'a>(
        nulls: Option<&NullBuffer>,
        bytes: &mut [u8],
        positions: &mut [usize],
        value: impl Fn(usize) -> &'a [u8],
    ) {
        for (row, position) in positions.iter_mut().enumerate() {
            if is_valid(nulls, row) {
                let value = value(row);
                let target = &mut bytes[*position..*position + 5 + value.len()];
                target[0] = 1;
                target[1..5].copy_from_slice(&(value.len() as u32).to_le_bytes());
                target[5..].copy_from_slice(value);
                *position += 5 + value.len();
            } else {
                bytes[*position] = 0;
                *position += 1;
            }
        }
    }
    macro_rules! variable {
        ($array:expr) => {{
            let array = $array;
            variable(array.nulls(), bytes, positions, |row| array.value(row).as_ref())
        }};
    }
    macro_rules! primitive {
        ($t:ty) => {{
            write_primitive(column.as_primitive::<$t>(), bytes, positions);
        }};
    }
    match column.data_type() {
        DataType::Null => positions.iter_mut().for_each(|position| *position += 1),
        DataType::Boolean => {
            let values = column.as_boolean();
            for (row, position) in positions.iter_mut().enumerate() {
                if values.is_valid(row) {
                    bytes[*position] = 1;
                    bytes[*position + 1] = u8::from(values.value(row));
                    *position += 2;
                } else {
                    *position += 1;
                }
            }
        }
        DataType::Utf8 => variable!(column.as_string::<i32>()),
        DataType::LargeUtf8 => variable!(column.as_string::<i64>()),
        DataType::Utf8View => variable!(column.as_string_view()),
        DataType::Binary => variable!(column.as_binary::<i32>()),
        DataType::LargeBinary => variable!(column.as_binary::<i64>()),
        DataType::BinaryView => variable!(column.as_binary_view()),
        other => downcast_primitive! {
            other => (primitive),
            _ => return Err(unsupported(other)),
        },
    }
    Ok(())
}

fn write_primitive<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, bytes: &mut [u8], positions: &mut [usize]) {
    let width = size_of::<T::Native>();
    let float = T::DATA_TYPE.is_floating();
    for (row, position) in positions.iter_mut().enumerate() {
        if values.is_valid(row) {
            let value = values.value(row);
            let target = &mut bytes[*position + 1..*position + 1 + width];
            if float {
                canonical_float(value.to_byte_slice(), target)
            } else {
                target.copy_from_slice(value.to_byte_slice())
            }
            bytes[*position] = 1;
            *position += 1 + width;
        } else {
            bytes[*position] = 0;
            *position += 1;
        }
    }
}

/// Writes a float's bits so that equal values have equal bytes: one zero, one NaN.
pub(super) fn canonical_float(bits: &[u8], target: &mut [u8]) {
    match *bits {
        [a, b] => {
            let mut bits = u16::from_ne_bytes([a, b]);
            let is_nan = bits & 0x7C00 == 0x7C00 && bits & 0x03FF != 0;
            if is_nan {
                bits = 0x7E00
            } else if bits == 0x8000 {
                bits = 0
            }
            target.copy_from_slice(&bits.to_le_bytes());
        }
        [a, b, c, d] => {
            let value = f32::from_ne_bytes([a, b, c, d]);
            let value = if value.is_nan() {
                f32::NAN
            } else if value == 0.0 {
                0.0
            } else {
                value
            };
            target.copy_from_slice(&value.to_le_bytes());
        }
        _ => {
            let mut eight = [0u8; 8];
            eight.copy_from_slice(bits);
            let value = f64::from_ne_bytes(eight);
            let value = if value.is_nan() {
                f64::NAN
            } else if value == 0.0 {
                0.0
            } else {
                value
            };
            target.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Decodes keys back into arrays.
#[derive(Debug, Clone)]
pub struct KeyDecoder {
    types: Vec<DataType>,
}

impl KeyDecoder {
    /// Makes a decoder of keys with these column types.
    #[must_use]
    pub fn new(types: Vec<DataType>) -> Self {
        Self { types }
    }

    /// Decodes keys into one array per key column.
    ///
    /// # Errors
    /// When the bytes are not keys of these types.
    pub fn decode<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let mut rest: Vec<&[u8]> = keys.collect();
        let mut columns = Vec::with_capacity(self.types.len());
        for data_type in &self.types {
            columns.push(decode_column(data_type, &mut rest)?);
        }
        if rest.iter().any(|rest| !rest.is_empty()) {
            return Err(Error::Internal("a key is longer than its columns".into()));
        }
        Ok(columns)
    }
}

/// Takes a value's bytes off the front; `None` for null.
fn take_fixed<'a>(rest: &mut &'a [u8], width: usize) -> Result<Option<&'a [u8]>> {
    let broken = || Error::Internal("a key is shorter than its columns".into());
    let (&marker, tail) = rest.split_first().ok_or_else(broken)?;
    if marker == 0 {
        *rest = tail;
        return Ok(None);
    }
    let value = tail.get(..width).ok_or_else(broken)?;
    *rest = &tail[width..];
    Ok(Some(value))
}

fn take_variable<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    let Some(length) = take_fixed(rest, 4)? else {
        return Ok(None);
    };
    let mut four = [0u8; 4];
    four.copy_from_slice(length);
    let length = u32::from_le_bytes(four) as usize;
    let value = rest
        .get(..length)
        .ok_or_else(|| Error::Internal("a key is shorter than its columns".into()))?;
    *rest = &rest[length..];
    Ok(Some(value))
}

fn decode_column(data_type: &DataType, rest: &mut [&[u8]]) -> Result<ArrayRef> {
    fn text(value: &[u8]) -> Result<&str> {
        std::str::from_utf8(value).map_err(|_| Error::Internal("a key's text is not UTF-8".into()))
    }
    macro_rules! variable {
        ($builder:ty, $convert:expr) => {{
            let mut builder = <$builder>::new();
            for rest in rest.iter_mut() {
                match take_variable(rest)? {
                    Some(value) => builder.append_value($convert(value)?),
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    macro_rules! primitive {
        ($t:ty) => {
            decode_primitive::<$t>(data_type, rest)?
        };
    }
    Ok(match data_type {
        DataType::Null => {
            for rest in rest.iter_mut() {
                take_fixed(rest, 0)?;
            }
            new_null_array(data_type, rest.len())
        }
        DataType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(rest.len());
            for rest in rest.iter_mut() {
                builder.append_option(take_fixed(rest, 1)?.map(|value| value[0] != 0));
            }
            Arc::new(builder.finish())
        }
        DataType::Utf8 => variable!(StringBuilder, text),
        DataType::LargeUtf8 => variable!(LargeStringBuilder, text),
        DataType::Utf8View => variable!(StringViewBuilder, text),
        DataType::Binary => variable!(BinaryBuilder, Ok::<&[u8], Error>),
        DataType::LargeBinary => variable!(LargeBinaryBuilder, Ok::<&[u8], Error>),
        DataType::BinaryView => variable!(BinaryViewBuilder, Ok::<&[u8], Error>),
        DataType::Dictionary(_, values) => {
            let values = decode_column(values, rest)?;
            arrow::compute::cast(&values, data_type)?
        }
        other => downcast_primitive! {
            other => (primitive),
            _ => return Err(unsupported(other)),
        },
    })
}

fn decode_primitive<T: ArrowPrimitiveType>(data_type: &DataType, rest: &mut [&[u8]]) -> Result<ArrayRef> {
    let width = size_of::<T::Native>();
    // Aligned for every type, so that the bytes become values without a copy.
    let mut values = MutableBuffer::with_capacity(rest.len() * width);
    let mut nulls = NullBufferBuilder::new(rest.len());
    for rest in rest.iter_mut() {
        let value = take_fixed(rest, width)?;
        nulls.append(value.is_some());
        match value {
            Some(value) => values.extend_from_slice(value),
            None => values.extend_zeros(width),
        }
    }
    let values = ScalarBuffer::<T::Native>::new(values.into(), 0, rest.len());
    Ok(Arc::new(
        PrimitiveArray::<T>::try_new(values, nulls.finish())?.with_data_type(data_type.clone()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, Float64Array, Int32Array, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    fn keys(columns: &[ArrayRef]) -> EncodedKeys {
        let mut keys = EncodedKeys::default();
        encode_keys(columns, columns[0].len(), &mut keys).unwrap();
        keys
    }

    #[test]
    fn encoding_does_not_depend_on_the_array_type() {
        let values = [Some("a"), None, Some(""), Some("longer than twelve bytes")];
        let plain: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let view: ArrayRef = Arc::new(StringViewArray::from(values.to_vec()));
        let dictionary: ArrayRef = Arc::new(values.into_iter().collect::<DictionaryArray<Int32Type>>());
        let (a, b, c) = (keys(&[plain]), keys(&[view]), keys(&[dictionary]));
        for row in 0..values.len() {
            assert_eq!(a.key(row), b.key(row));
            assert_eq!(a.key(row), c.key(row));
        }
    }

    #[test]
    fn encoding_version_1_is_fixed() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(258), None])),
            Arc::new(StringArray::from(vec!["ab", "c"])),
            Arc::new(Float64Array::from(vec![-0.0, 1.0])),
        ];
        let keys = keys(&columns);
        let expected: &[u8] = &[1, 2, 1, 0, 0, 1, 2, 0, 0, 0, b'a', b'b', 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(keys.key(0), expected);
        let expected: &[u8] = &[0, 1, 1, 0, 0, 0, b'c', 1, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F];
        assert_eq!(keys.key(1), expected);
    }

    #[test]
    fn decoding_gives_the_columns_back() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(1), None, Some(-5)])),
            Arc::new(StringViewArray::from(vec![None, Some("x"), Some("y")])),
            Arc::new(arrow::array::BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(arrow::array::TimestampMillisecondArray::from(vec![1, 2, 3]).with_timezone("UTC")),
            Arc::new(
                arrow::array::Decimal128Array::from(vec![100, -1, 7])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
        ];
        let keys = keys(&columns);
        let decoder = KeyDecoder::new(columns.iter().map(|column| column.data_type().clone()).collect());
        let decoded = decoder.decode((0..3).map(|row| keys.key(row))).unwrap();
        assert_eq!(decoded, columns);
    }

    #[test]
    fn cut_keys_are_an_error_not_a_panic() {
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["abc"]))];
        let keys = keys(&columns);
        let decoder = KeyDecoder::new(vec![DataType::Utf8]);
        for cut in 0..keys.key(0).len() {
            assert!(decoder.decode(std::iter::once(&keys.key(0)[..cut])).is_err());
        }
    }
}
