//! Whether all rows of a batch have one key, found out by comparing columns with themselves, one row on.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

/// Says whether all rows have the same key, where that is cheap to find out: `false` says nothing.
pub(crate) fn is_constant(columns: &[ArrayRef]) -> bool {
    columns
        .iter()
        .all(|column| column.null_count() == 0 && is_constant_column(column))
}

fn is_constant_column(column: &ArrayRef) -> bool {
    let rows = column.len();
    match column.data_type() {
        DataType::Utf8 if rows > 0 => {
            let texts = column.as_string::<i32>();
            let offsets = texts.value_offsets();
            let length = offsets[1] - offsets[0];
            let bytes = &texts.value_data()[offsets[0] as usize..offsets[rows] as usize];
            texts.value(0) == texts.value(rows - 1)
                && offsets.windows(2).all(|bounds| bounds[1] - bounds[0] == length)
                && repeats(bytes, length as usize)
        }
        other => other.primitive_width().is_some_and(|width| {
            let data = column.to_data();
            let bytes = data.buffers()[0].as_slice();
            repeats(&bytes[data.offset() * width..(data.offset() + rows) * width], width)
        }),
    }
}

/// Says whether bytes are the first `length` of them again and again.
fn repeats(bytes: &[u8], length: usize) -> bool {
    bytes.len() <= length || bytes[length..] == bytes[..bytes.len() - length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn one_key_is_seen_and_others_are_not_taken_for_one() {
        let texts = |texts: &[&str]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
        let numbers = |numbers: &[i32]| Arc::new(Int32Array::from(numbers.to_vec())) as ArrayRef;
        assert!(is_constant(&[]));
        assert!(is_constant(&[texts(&["ab", "ab", "ab"]), numbers(&[7, 7, 7])]));
        assert!(is_constant(&[texts(&["x", "ab", "ab", "y"]).slice(1, 2)]));
        assert!(is_constant(&[numbers(&[1, 7, 7, 2]).slice(1, 2)]));
        assert!(is_constant(&[texts(&["", ""])]));
        assert!(!is_constant(&[texts(&["ab", "ba", "ab"])]));
        assert!(!is_constant(&[texts(&["a", "aa", "a"])]));
        assert!(!is_constant(&[texts(&["ab", "a", "bab"])]));
        assert!(!is_constant(&[numbers(&[7, 7, 7]), numbers(&[1, 2, 1])]));
        assert!(!is_constant(&[Arc::new(Int32Array::from(vec![None, Some(0)]))]));
    }
}
