//! The rows that a join keeps of a side, found by the hash of their key.
//!
//! Rows are put into the index only when it pays: a side that is seldom probed, such as all bids that wait for the highest
//! one of their window, is searched through instead.

use crate::error::Result;
use crate::operator::{CapturedSection, OperatorContext, StateSection};
use crate::rows::{CHUNK_ROWS, ProbeFrom, RowIndex, RowKeys, RowRef, RowStore};
use arrow::array::RecordBatch;

/// What the state of the sides, left and right, is stored under.
const SIDE_NAMES: [&str; 2] = ["left", "right"];

/// So often is a row searched through, on average, before it is indexed after all: by then searching has cost about as much
/// as indexing does, so that together they cost at most twice what was best.
const SCANS_MAX: usize = 8;

/// A search that finds more pairs than this is given up for the index, which is asked for pairs bit by bit.
const SCANNED_PAIRS_MAX: usize = 1 << 16;

/// Bits of the filter that a search asks first.
const FILTER_BITS: usize = 1 << 16;

/// Kept rows.
pub(in crate::operators) struct KeptRows {
    pub(in crate::operators) store: RowStore,
    index: RowIndex,
    /// Rows from here on are not in the index.
    indexed_to: RowRef,
    /// How many those are.
    unindexed: usize,
    /// How many rows were searched through since the index was complete.
    scanned: usize,
    /// Rows removed since the last compaction.
    removed: usize,
}

/// Where to find candidates: those of rows without index are known, the others are asked for.
#[derive(Default)]
pub(in crate::operators) struct Probe {
    scanned: Vec<(u32, RowRef)>,
    from: Option<ProbeFrom>,
}

impl KeptRows {
    pub(in crate::operators) fn new(store: RowStore) -> Self {
        Self {
            store,
            index: RowIndex::default(),
            indexed_to: RowRef::FIRST,
            unindexed: 0,
            scanned: 0,
            removed: 0,
        }
    }

    pub(in crate::operators) fn size(&self) -> usize {
        self.store.size() + self.index.size()
    }

    /// Captures both sides of a join, and tells the size of them.
    pub(in crate::operators) fn capture_sides(sides: [&Self; 2], context: &OperatorContext) -> Vec<CapturedSection> {
        let size: usize = sides.iter().map(|side| side.size()).sum();
        context.metrics.state_bytes.set(size as u64);
        let sides = SIDE_NAMES.iter().zip(sides);
        let sections = sides.flat_map(|(name, side)| side.store.capture(name, context.key_groups));
        sections.collect()
    }

    /// Takes both sides of a join from what was captured.
    pub(in crate::operators) fn restore_sides(
        sides: [&mut Self; 2],
        sections: &[StateSection],
        context: &OperatorContext,
    ) -> Result<()> {
        for (name, side) in SIDE_NAMES.iter().zip(sides) {
            side.store.restore(sections, name, context.key_groups)?;
            side.indexed_to = RowRef::FIRST;
            side.unindexed = side.store.len();
        }
        Ok(())
    }

    pub(in crate::operators) fn append(&mut self, rows: &RecordBatch, keys: RowKeys<'_>) -> Result<RowRef> {
        if self.unindexed == 0 {
            self.indexed_to = self.store.end();
        }
        self.unindexed += rows.num_rows();
        self.store.append(rows, keys)
    }

    fn index_all(&mut self) {
        for (first, hashes) in self.store.hashes_from(self.indexed_to) {
            for (row, &hash) in hashes.iter().enumerate() {
                let row = first.plus(row);
                if self.store.contains(row) {
                    self.index.insert(hash, row);
                }
            }
        }
        (self.unindexed, self.scanned) = (0, 0);
        self.indexed_to = self.store.end();
    }

    /// Begins to look for rows with these hashes.
    pub(in crate::operators) fn probe(&mut self, hashes: &[u64]) -> Probe {
        let from = Some(ProbeFrom::default());
        if self.unindexed == 0 || hashes.is_empty() {
            return Probe {
                scanned: Vec::new(),
                from,
            };
        }
        if self.unindexed > hashes.len() * 2 && self.scanned <= self.unindexed * SCANS_MAX {
            self.scanned += self.unindexed;
            if let Some(scanned) = self.scan(hashes) {
                return Probe { scanned, from };
            }
        }
        self.index_all();
        Probe {
            scanned: Vec::new(),
            from,
        }
    }

    /// Searches the rows without index; `None` when they are too many pairs.
    fn scan(&self, hashes: &[u64]) -> Option<Vec<(u32, RowRef)>> {
        let bit = |hash: u64| (hash as usize) % FILTER_BITS;
        let mut filter = vec![0u64; FILTER_BITS / 64];
        let mut probing = RowIndex::default();
        for (row, &hash) in hashes.iter().enumerate() {
            filter[bit(hash) / 64] |= 1 << (bit(hash) % 64);
            probing.insert(hash, RowRef::FIRST.plus(row));
        }
        let mut pairs = Vec::new();
        for (first, kept) in self.store.hashes_from(self.indexed_to) {
            for (row, &hash) in kept.iter().enumerate() {
                if filter[bit(hash) / 64] & (1 << (bit(hash) % 64)) == 0 {
                    continue;
                }
                let row = first.plus(row);
                for probing in probing.rows_of(hash) {
                    if !self.store.contains(row) {
                        break;
                    }
                    if pairs.len() == SCANNED_PAIRS_MAX {
                        return None;
                    }
                    pairs.push((probing.row, row));
                }
            }
        }
        pairs.reverse();
        Some(pairs)
    }

    /// Adds at most `pairs_max` more candidates; says whether there may be more. The rows must be the same until then.
    pub(in crate::operators) fn candidates(
        &self,
        probe: &mut Probe,
        hashes: &[u64],
        pairs_max: usize,
        probing: &mut Vec<u32>,
        found: &mut Vec<RowRef>,
    ) -> bool {
        while probing.len() < pairs_max {
            let Some((row, kept)) = probe.scanned.pop() else { break };
            probing.push(row);
            found.push(kept);
        }
        if let Some(from) = probe.from
            && probing.len() < pairs_max
        {
            let left = pairs_max - probing.len();
            probe.from = self.index.candidates(hashes, from, left, probing, found);
        }
        !probe.scanned.is_empty() || probe.from.is_some()
    }

    /// Removes rows.
    pub(in crate::operators) fn remove(&mut self, rows: &[RowRef]) {
        let mut indexed = Vec::with_capacity(rows.len());
        for &row in rows {
            let Some(hash) = self.store.hash_of(row) else { continue };
            if row < self.indexed_to {
                indexed.push((hash, row));
            } else {
                self.unindexed -= 1;
            }
            self.store.remove(row);
            self.removed += 1;
        }
        self.index.remove(&mut indexed);
    }

    /// Gives back the memory of removed rows, when it is worth it.
    pub(in crate::operators) fn compact(&mut self) -> Result<()> {
        if self.removed < CHUNK_ROWS {
            return Ok(());
        }
        self.removed = 0;
        if self.unindexed == self.store.len() {
            // Nothing is in the index, which may be never: what moves is found all the same.
            self.store.compact(self.store.end())?;
            self.indexed_to = RowRef::FIRST;
            return Ok(());
        }
        let mut moved = self.store.compact(self.indexed_to)?;
        self.index.moved(&mut moved);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use std::sync::Arc;

    #[test]
    fn rows_that_are_never_probed_are_compacted_and_found_later() {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let mut kept = KeptRows::new(RowStore::new(Arc::clone(&schema)));
        let mut staying = Vec::new();
        for chunk in 0..8 {
            let ids: Vec<i64> = (0..CHUNK_ROWS as i64).map(|row| row + chunk * 100_000).collect();
            let hashes: Vec<u64> = ids.iter().map(|id| *id as u64).collect();
            let column: ArrayRef = Arc::new(Int64Array::from(ids));
            let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
            let keys = RowKeys {
                hashes: &hashes,
                due: None,
            };
            let first = kept.append(&rows, keys).unwrap();
            let gone: Vec<RowRef> = (1..CHUNK_ROWS).map(|row| first.plus(row)).collect();
            staying.push(hashes[0]);
            kept.remove(&gone);
            kept.compact().unwrap();
        }
        assert_eq!(kept.store.len(), 8);
        assert!(kept.size() < 2 * CHUNK_ROWS * 16, "{} bytes", kept.size());
        // Searched through, and then with the index.
        for hashes in [&staying[..1], &staying[..]] {
            let mut probe = kept.probe(hashes);
            let (mut probing, mut found) = (Vec::new(), Vec::new());
            while kept.candidates(&mut probe, hashes, 100, &mut probing, &mut found) {}
            let ids = kept.store.gather(&found, &[0]).unwrap();
            let ids = ids[0].as_primitive::<Int64Type>().values().iter();
            let expected = probing.iter().map(|row| hashes[*row as usize]);
            assert!(ids.map(|id| *id as u64).eq(expected));
            assert_eq!(probing.len(), hashes.len());
        }
    }
}
