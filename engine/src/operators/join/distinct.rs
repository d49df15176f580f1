//! One row per key where no more is asked: the right side of a semi or anti join without a condition.
//!
//! Without this, many rows of one key on both sides would be compared in all pairs for nothing.

use super::kept::KeptRows;
use super::pairs::are_equal;
use crate::error::Result;
use crate::key::{EncodedKeys, encode_keys};
use crate::rows::RowRef;
use arrow::array::{ArrayRef, RecordBatch};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Returns of each key the row that is due last, in the order of the rows; `None` when every row has a key of its own.
pub(super) fn last_of_keys(rows: &RecordBatch, keys: &[usize], due: Option<&[i64]>) -> Result<Option<Vec<usize>>> {
    let columns: Vec<ArrayRef> = keys
        .iter()
        .map(|&key| std::sync::Arc::clone(rows.column(key)))
        .collect();
    let mut encoded = EncodedKeys::default();
    encode_keys(&columns, rows.num_rows(), &mut encoded)?;
    let due_of = |row: usize| due.map_or(i64::MAX, |due| due[row]);
    let mut best: HashMap<&[u8], usize> = HashMap::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        match best.entry(encoded.key(row)) {
            Entry::Occupied(mut known) => {
                if due_of(row) > due_of(*known.get()) {
                    known.insert(row);
                }
            }
            Entry::Vacant(vacant) => {
                vacant.insert(row);
            }
        }
    }
    if best.len() == rows.num_rows() {
        return Ok(None);
    }
    let mut kept: Vec<usize> = best.into_values().collect();
    kept.sort_unstable();
    Ok(Some(kept))
}

/// Removes the kept rows whose keys are among these rows' and that are due before them; says of each of these rows whether
/// it is still wanted. The rows have keys of their own.
pub(super) fn replace(
    kept: &mut KeptRows,
    rows: &RecordBatch,
    keys: &[usize],
    hashes: &[u64],
    due: Option<&[i64]>,
) -> Result<Vec<bool>> {
    let mut is_wanted = vec![true; rows.num_rows()];
    let mut gone: Vec<RowRef> = Vec::new();
    let mut probe = kept.probe(hashes);
    loop {
        let (mut probing, mut found) = (Vec::new(), Vec::new());
        let more = kept.candidates(&mut probe, hashes, super::BATCH_ROWS, &mut probing, &mut found);
        let equal = are_equal(rows, keys, &probing, &kept.store, keys, &found)?;
        for ((row, known), _) in probing.into_iter().zip(found).zip(equal).filter(|(_, equal)| *equal) {
            let row = row as usize;
            match (kept.store.due_of(known), due) {
                (Some(known_ms), Some(due)) if known_ms < due[row] => gone.push(known),
                _ => is_wanted[row] = false,
            }
        }
        if !more {
            break;
        }
    }
    kept.remove(&gone);
    Ok(is_wanted)
}
