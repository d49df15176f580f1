//! Rows of a table, found by their key.

use crate::error::{Error, Result};
use crate::key::{EncodedKeys, equal_keys, hash_columns};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use hashbrown::HashTable;
use std::sync::Arc;

/// The end of a chain of rows.
const NONE: u32 = u32::MAX;

/// Rows of a table with a hash table over their keys.
///
/// Rows whose key holds a null are in no chain. Rows of one hash stand in their order.
pub(super) struct TableIndex {
    rows: RecordBatch,
    keys: Vec<usize>,
    /// Hash, and the first row of that hash.
    firsts: HashTable<(u64, u32)>,
    /// The next row of the same hash; empty when no two rows have the same.
    next: Vec<u32>,
}

/// Rows of a batch and the rows of a table that belong to them, in the batch's order.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) input: Vec<u32>,
    pub(super) table: Vec<u32>,
}

/// The rows of several keys, those of one key after the other.
pub(super) struct RowsByKey {
    pub(super) rows: RecordBatch,
    /// Where the rows of each key end.
    pub(super) ends: Vec<u32>,
}

impl TableIndex {
    /// Indexes rows by the columns `keys`.
    ///
    /// # Errors
    /// When there are more rows than can be counted, or a column cannot be a key.
    pub(super) fn new(schema: &SchemaRef, rows: &[RecordBatch], keys: &[usize]) -> Result<Self> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if u32::try_from(count).map_or(true, |count| count == NONE) {
            return Err(Error::Limit(format!(
                "{count} rows are too many for a lookup join's cache"
            )));
        }
        let rows = match rows {
            [rows] => rows.clone(),
            rows => concat_batches(schema, rows)?,
        };
        let columns: Vec<ArrayRef> = keys.iter().map(|key| Arc::clone(rows.column(*key))).collect();
        let (mut encoded, mut hashes) = (EncodedKeys::default(), Vec::new());
        hash_columns(&columns, count, &mut encoded, &mut hashes)?;
        let valid = valid(&columns);
        let mut firsts: HashTable<(u64, u32)> = HashTable::with_capacity(count);
        let mut next = Vec::new();
        // From the last row to the first, so that every chain is in order.
        for row in (0..count).rev() {
            if valid.as_ref().is_some_and(|valid| valid.is_null(row)) {
                continue;
            }
            let (hash, number) = (hashes[row], row as u32);
            match firsts.find_mut(hash, |(known, _)| *known == hash) {
                Some((_, first)) => {
                    if next.is_empty() {
                        next = vec![NONE; count];
                    }
                    next[row] = *first;
                    *first = number;
                }
                None => {
                    firsts.insert_unique(hash, (hash, number), |(hash, _)| *hash);
                }
            }
        }
        Ok(Self {
            rows,
            keys: keys.to_vec(),
            firsts,
            next,
        })
    }

    /// Returns the rows.
    pub(super) fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Finds the rows whose key equals that of each row of `columns`; rows that hold a null find none.
    ///
    /// # Errors
    /// When a column cannot be a key.
    pub(super) fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Matches> {
        let mut found = Matches::default();
        if self.firsts.is_empty() || rows == 0 {
            return Ok(found);
        }
        let (mut encoded, mut hashes) = (EncodedKeys::default(), Vec::new());
        hash_columns(columns, rows, &mut encoded, &mut hashes)?;
        found.input.reserve(rows);
        found.table.reserve(rows);
        let valid = valid(columns);
        for (row, hash) in hashes.iter().enumerate() {
            if valid.as_ref().is_some_and(|valid| valid.is_null(row)) {
                continue;
            }
            let Some((_, first)) = self.firsts.find(*hash, |(known, _)| known == hash) else {
                continue;
            };
            let mut table = *first;
            loop {
                found.input.push(row as u32);
                found.table.push(table);
                match self.next.get(table as usize) {
                    Some(next) if *next != NONE => table = *next,
                    _ => break,
                }
            }
        }
        self.check(columns, rows, found)
    }

    /// Leaves out what only has the same hash.
    fn check(&self, columns: &[ArrayRef], rows: usize, mut found: Matches) -> Result<Matches> {
        let of_table = UInt32Array::from(found.table);
        let of_input = (!is_all(&found.input, rows)).then(|| UInt32Array::from(found.input.clone()));
        let mut equal: Option<BooleanBuffer> = None;
        for (column, key) in columns.iter().zip(&self.keys) {
            let left = match &of_input {
                Some(places) => take(column, places, None)?,
                None => Arc::clone(column),
            };
            let right = take(self.rows.column(*key), &of_table, None)?;
            // Neither side has nulls here.
            let same = equal_keys(&left, &right)?.values().clone();
            equal = Some(match equal {
                Some(before) => &before & &same,
                None => same,
            });
        }
        found.table = of_table.values().to_vec();
        if let Some(equal) = equal {
            found.keep(&BooleanArray::new(equal, None));
        }
        Ok(found)
    }

    /// Returns the rows of each of `columns`' keys, which are distinct.
    ///
    /// # Errors
    /// When a column cannot be a key.
    pub(super) fn rows_by_key(&self, columns: &[ArrayRef]) -> Result<RowsByKey> {
        let count = columns.first().map_or(0, |column| column.len());
        let found = self.find(columns, count)?;
        let mut ends = vec![0u32; count];
        for row in &found.input {
            ends[*row as usize] += 1;
        }
        let mut end = 0;
        for slot in &mut ends {
            end += *slot;
            *slot = end;
        }
        Ok(RowsByKey {
            rows: take_record_batch(&self.rows, &UInt32Array::from(found.table))?,
            ends,
        })
    }
}

impl Matches {
    /// Keeps the pairs for which `mask` is true.
    pub(super) fn keep(&mut self, mask: &BooleanArray) {
        if mask.null_count() == 0 && mask.true_count() == mask.len() {
            return;
        }
        let mut kept = 0;
        for pair in 0..mask.len() {
            if mask.is_valid(pair) && mask.value(pair) {
                self.input[kept] = self.input[pair];
                self.table[kept] = self.table[pair];
                kept += 1;
            }
        }
        self.input.truncate(kept);
        self.table.truncate(kept);
    }
}

/// Says whether `places` are those of all rows, each once and in order.
pub(super) fn is_all(places: &[u32], rows: usize) -> bool {
    places.len() == rows && places.iter().enumerate().all(|(row, place)| row as u32 == *place)
}

/// Returns which rows hold no null; `None` when none does.
pub(super) fn valid(columns: &[ArrayRef]) -> Option<NullBuffer> {
    let nulls = columns.iter().map(|column| column.logical_nulls());
    let nulls = nulls.fold(None, |before, more| NullBuffer::union(before.as_ref(), more.as_ref()));
    nulls.filter(|nulls| nulls.null_count() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Float32Array;
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn floats_that_are_equal_find_each_other_whatever_their_bits() {
        let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Float32, true)]));
        let column: ArrayRef = Arc::new(Float32Array::from(vec![0.0, -f32::NAN, 1.0]));
        let table = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
        let index = TableIndex::new(&schema, &[table], &[0]).unwrap();
        let asked: ArrayRef = Arc::new(Float32Array::from(vec![-0.0, f32::NAN, 2.0, 0.0]));
        let found = index.find(&[asked], 4).unwrap();
        assert_eq!((found.input, found.table), (vec![0, 1, 3], vec![0, 1, 0]));
    }
}
