//! The hash of keys: xxh3-64 of the canonical bytes. Durable: it decides the key group.

use super::encode::{EncodedKeys, canonical_float, encode_keys};
use crate::error::Result;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, downcast_primitive};
use arrow::datatypes::{DataType, ToByteSlice};
use xxhash_rust::xxh3::xxh3_64;

/// Returns the hash of an encoded key.
#[must_use]
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Computes the hash of the key of each row into `hashes`, replacing what was there; `keys` is scratch space.
///
/// # Errors
/// When a column's type cannot be part of a key.
pub fn hash_columns(columns: &[ArrayRef], rows: usize, keys: &mut EncodedKeys, hashes: &mut Vec<u64>) -> Result<()> {
    hashes.clear();
    hashes.reserve(rows);
    if let [column] = columns {
        macro_rules! primitive {
            ($t:ty) => {{
                hash_primitive(column.as_primitive::<$t>(), hashes);
                return Ok(());
            }};
        }
        let data_type = column.data_type();
        downcast_primitive! {
            data_type => (primitive),
            DataType::Utf8 | DataType::Utf8View => (),
            _ => (),
        }
    }
    encode_keys(columns, rows, keys)?;
    hashes.extend((0..rows).map(|row| key_hash(keys.key(row))));
    Ok(())
}

/// Hashes a column of fixed width without encoding it into a buffer first.
fn hash_primitive<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, hashes: &mut Vec<u64>) {
    let width = size_of::<T::Native>();
    let float = T::DATA_TYPE.is_floating();
    let mut bytes = [1u8; 33];
    let null = key_hash(&[0]);
    for row in 0..values.len() {
        if values.is_null(row) {
            hashes.push(null);
            continue;
        }
        let value = values.value(row);
        if float {
            canonical_float(value.to_byte_slice(), &mut bytes[1..=width]);
        } else {
            bytes[1..=width].copy_from_slice(value.to_byte_slice());
        }
        hashes.push(key_hash(&bytes[..=width]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn fast_path_agrees_with_the_canonical_bytes() {
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![Some(0), None, Some(-1), Some(1 << 40)])),
            Arc::new(Float32Array::from(vec![Some(0.0), Some(-0.0), None, Some(f32::NAN)])),
            Arc::new(StringArray::from(vec![Some(""), Some("a"), None, Some("abc")])),
        ];
        for column in columns {
            let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
            hash_columns(std::slice::from_ref(&column), 4, &mut keys, &mut hashes).unwrap();
            encode_keys(&[column], 4, &mut keys).unwrap();
            let expected: Vec<u64> = (0..4).map(|row| key_hash(keys.key(row))).collect();
            assert_eq!(hashes, expected);
        }
    }

    #[test]
    fn hash_of_a_key_is_durable() {
        // 0x01 then 42 as i64: a change of these numbers would send restored state to other key groups.
        let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
        let column: ArrayRef = Arc::new(Int64Array::from(vec![42]));
        hash_columns(&[column], 1, &mut keys, &mut hashes).unwrap();
        assert_eq!(hashes, vec![xxh3_64(&[1, 42, 0, 0, 0, 0, 0, 0, 0])]);
        assert_eq!(xxh3_64(b""), 0x2D06_8005_38D3_94C2);
    }
}
