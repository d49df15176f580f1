//! Values as numbers, and which filters rows pass.

use crate::aggregate::integers::{from_i64, is_i64, to_i64};
use crate::error::{Error, Result};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, key_hash};
use crate::operators::group_table::{GroupKeys, GroupTable};
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

/// The values of one argument: whole numbers of 4 or 8 bytes stand for themselves, others have numbers.
pub(super) struct Values {
    data_type: DataType,
    known: GroupTable,
    scratch: EncodedKeys,
}

/// The values as they were when they were captured.
pub(super) struct FrozenValues {
    data_type: DataType,
    known: GroupKeys,
}

impl Values {
    pub(super) fn new(data_type: &DataType) -> Self {
        Self {
            data_type: data_type.clone(),
            known: GroupTable::default(),
            scratch: EncodedKeys::default(),
        }
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Returns how many values have a number.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns the number that stands for the value of each row that is wanted; anything for the others.
    pub(super) fn numbers(&mut self, values: &ArrayRef, is_wanted: impl Fn(usize) -> bool) -> Result<Vec<i64>> {
        if let Some(numbers) = to_i64(values) {
            return Ok(numbers);
        }
        encode_keys(std::slice::from_ref(values), values.len(), &mut self.scratch)?;
        let rows = 0..values.len();
        Ok(rows
            .map(|row| {
                if !is_wanted(row) {
                    return 0;
                }
                let value = self.scratch.key(row);
                i64::from(self.known.group(key_hash(value), value))
            })
            .collect())
    }

    /// Returns the number here of a value that has one there.
    pub(super) fn number_of(&mut self, other: &Self, number: i64) -> i64 {
        if is_i64(&self.data_type) {
            return number;
        }
        let bytes = other.known.key(number as u32);
        i64::from(self.known.group(key_hash(bytes), bytes))
    }

    /// Returns the values of numbers.
    pub(super) fn array(&self, numbers: Vec<i64>) -> Result<ArrayRef> {
        array(&self.data_type, self.known.keys(), numbers)
    }

    pub(super) fn freeze(&self) -> FrozenValues {
        FrozenValues {
            data_type: self.data_type.clone(),
            known: self.known.keys().clone(),
        }
    }

    /// Forgets all values.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    pub(super) fn size(&self) -> usize {
        self.known.size()
    }
}

impl FrozenValues {
    /// Returns the values of numbers.
    pub(super) fn array(&self, numbers: Vec<i64>) -> Result<ArrayRef> {
        array(&self.data_type, &self.known, numbers)
    }
}

fn array(data_type: &DataType, known: &GroupKeys, numbers: Vec<i64>) -> Result<ArrayRef> {
    if is_i64(data_type) {
        return from_i64(numbers, data_type);
    }
    let decoder = KeyDecoder::new(vec![data_type.clone()]);
    let mut columns = decoder.decode(numbers.iter().map(|&number| known.get(number as u32)))?;
    columns
        .pop()
        .ok_or_else(|| Error::Internal("a value has one column".into()))
}

/// Returns for each row the filters that it passes, a bit each. A filter that is `None` lets every row pass.
pub(super) fn passed_filters(filters: &[Option<&BooleanArray>], rows: usize) -> Vec<u16> {
    let always = filters.iter().enumerate().filter(|(_, filter)| filter.is_none());
    let always = always.fold(0u16, |bits, (bit, _)| bits | 1 << bit);
    let mut passed = vec![always; rows];
    for (bit, filter) in filters.iter().enumerate() {
        let Some(filter) = filter else { continue };
        let rows = match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        };
        rows.set_indices().for_each(|row| passed[row] |= 1 << bit);
    }
    passed
}
