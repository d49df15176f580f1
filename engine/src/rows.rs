//! Rows that operators keep: columns in chunks, and an index by key hash.
//!
//! ```text
//!  RowStore   chunk 7 ▐████ sealed │ chunk 8 ▐██ ██ sealed │ chunk 9 ▐█▐█▐ open: the batches as they arrived
//!                ▲ RowRef {chunk: 7, row: 12}
//!  RowIndex   hash ─▶ refs of its rows, oldest first
//! ```
//! Used by operators that need single rows again: joins, top-N, deduplication, OVER. All work is on columns: rows are
//! appended as batches, and gathered as columns. A row has, besides its columns, the hash of its key, and may have a time
//! at which it is due to be dropped and a mark.
//!
//! Invariants:
//! - Refs are ordered as the rows were appended, also after compaction and after a restore.
//! - A ref stays valid until its row is removed or moved by [`RowStore::compact`], which tells where it went.
//! - A sealed chunk shares no buffer with anything that arrived; of the open one at most a few dozen batches do.
//!
//! File map: `chunk` is one chunk, `index` finds rows by hash, `snapshot` is the durable form.

mod chunk;
mod index;
mod snapshot;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use chunk::Chunk;
pub(crate) use index::{ProbeFrom, RowIndex};
use std::cell::Cell;
use std::collections::VecDeque;

/// A chunk is sealed when it has so many rows.
pub(crate) const CHUNK_ROWS: usize = 16_384;

/// Neighbouring chunks become one when they have no more live rows than this together.
const MERGED_ROWS: usize = CHUNK_ROWS / 2;

/// The place of a row. Greater is younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowRef {
    pub(crate) chunk: u32,
    pub(crate) row: u32,
}

impl RowRef {
    /// Before all rows.
    pub(crate) const FIRST: RowRef = RowRef { chunk: 0, row: 0 };

    /// Returns the ref of the row that was appended `rows` later in the same call.
    pub(crate) fn plus(self, rows: usize) -> Self {
        Self {
            chunk: self.chunk,
            row: self.row + rows as u32,
        }
    }
}

/// Rows as columns, in the order they were appended.
pub(crate) struct RowStore {
    schema: SchemaRef,
    /// Whether rows have a time at which they are due.
    has_due: bool,
    /// By number, from `first` on; none where a chunk is gone. Only the last one may be open.
    chunks: VecDeque<Option<Box<Chunk>>>,
    first: u32,
    rows: usize,
    /// Counts calls of `gather`, to tell the slots that chunks remember from those of earlier calls.
    gathers: Cell<u64>,
}

/// Rows to append, besides their columns.
#[derive(Clone, Copy)]
pub(crate) struct RowKeys<'a> {
    /// The hash of each row's key.
    pub(crate) hashes: &'a [u64],
    /// When each row is due, in milliseconds; for stores that know this.
    pub(crate) due: Option<&'a [i64]>,
}

impl RowStore {
    /// Makes an empty store of rows of a schema, whose columns have unique names.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            has_due: false,
            chunks: VecDeque::new(),
            first: 0,
            rows: 0,
            gathers: Cell::new(0),
        }
    }

    /// Makes rows have a time at which they are due to be dropped.
    pub(crate) fn with_due(mut self) -> Self {
        self.has_due = true;
        self
    }

    /// Returns the rows' schema.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Returns about how many bytes the rows take.
    pub(crate) fn size(&self) -> usize {
        self.live_chunks().map(|(_, chunk)| chunk.size()).sum()
    }

    /// Returns the place behind the last row: every row appended later is there or behind it.
    pub(crate) fn end(&self) -> RowRef {
        match self.chunks.back() {
            Some(Some(chunk)) if !chunk.is_sealed() => RowRef {
                chunk: self.last_number(),
                row: chunk.rows() as u32,
            },
            _ => RowRef {
                chunk: self.first + self.chunks.len() as u32,
                row: 0,
            },
        }
    }

    fn last_number(&self) -> u32 {
        self.first + self.chunks.len() as u32 - 1
    }

    /// Appends the rows of a batch; returns the first one's ref. The others follow it: `first.plus(1)` and so on.
    ///
    /// # Errors
    /// When the columns have other types, or there are not as many hashes or times as rows.
    pub(crate) fn append(&mut self, batch: &RecordBatch, keys: RowKeys<'_>) -> Result<RowRef> {
        let rows = batch.num_rows();
        let types_fit = batch.num_columns() == self.schema.fields().len()
            && std::iter::zip(batch.columns(), self.schema.fields()).all(|(c, f)| c.data_type() == f.data_type());
        if !types_fit || keys.hashes.len() != rows || keys.due.map(<[i64]>::len) != self.has_due.then_some(rows) {
            return Err(Error::Internal("rows to keep do not fit their store".into()));
        }
        let place = self.end();
        if rows == 0 {
            return Ok(place);
        }
        if place.row == 0 {
            self.chunks.push_back(Some(Box::new(Chunk::new(self.has_due))));
        }
        let Some(Some(chunk)) = self.chunks.back_mut() else {
            return Err(Error::Internal("the open chunk of rows is lost".into()));
        };
        chunk.append(batch.columns(), keys)?;
        self.rows += rows;
        if chunk.rows() >= CHUNK_ROWS {
            chunk.seal()?;
        }
        Ok(place)
    }

    /// Removes a row. Says whether it was there.
    pub(crate) fn remove(&mut self, row: RowRef) -> bool {
        let Some(chunk) = self.chunk_mut(row.chunk) else {
            return false;
        };
        if !chunk.remove(row.row as usize) {
            return false;
        }
        // The open one goes on: a number for each time that it empties would be a place in `chunks` for each.
        let is_empty = chunk.live() == 0 && chunk.is_sealed();
        self.rows -= 1;
        if is_empty {
            self.drop_chunk(row.chunk);
        }
        true
    }

    fn drop_chunk(&mut self, number: u32) {
        if let Some(slot) = number
            .checked_sub(self.first)
            .and_then(|index| self.chunks.get_mut(index as usize))
        {
            *slot = None;
        }
        // The last place stays, so that no number is given twice.
        while self.chunks.len() > 1 && matches!(self.chunks.front(), Some(None)) {
            self.chunks.pop_front();
            self.first += 1;
        }
    }

    /// Says whether a row is there.
    pub(crate) fn contains(&self, row: RowRef) -> bool {
        self.chunk(row.chunk)
            .is_some_and(|chunk| chunk.is_live(row.row as usize))
    }

    /// Returns the hash of a row's key; `None` when the row is gone.
    pub(crate) fn hash_of(&self, row: RowRef) -> Option<u64> {
        let chunk = self.chunk(row.chunk)?;
        chunk
            .is_live(row.row as usize)
            .then(|| chunk.hashes()[row.row as usize])
    }

    /// Returns when a row is due; `None` when it is gone, or rows are never due.
    pub(crate) fn due_of(&self, row: RowRef) -> Option<i64> {
        let chunk = self.chunk(row.chunk)?;
        chunk
            .is_live(row.row as usize)
            .then(|| chunk.due().get(row.row as usize).copied())?
    }

    /// Marks a row. Says whether it was unmarked before.
    pub(crate) fn mark(&mut self, row: RowRef) -> bool {
        self.chunk_mut(row.chunk)
            .is_some_and(|chunk| chunk.mark(row.row as usize))
    }

    /// Says whether a row is marked.
    pub(crate) fn is_marked(&self, row: RowRef) -> bool {
        self.chunk(row.chunk)
            .is_some_and(|chunk| chunk.is_marked(row.row as usize))
    }

    /// Adds to `due` the rows that are due at or before a time, oldest first. The caller removes them;
    /// those that stay may be told again.
    pub(crate) fn take_due(&mut self, until_ms: i64, due: &mut Vec<RowRef>) {
        for (index, chunk) in self.chunks.iter_mut().enumerate() {
            if let Some(chunk) = chunk {
                let number = self.first + index as u32;
                chunk.take_due(until_ms, |row| due.push(RowRef { chunk: number, row }));
            }
        }
    }

    /// Returns columns of rows, each as one array with a value per ref, in the order of the refs.
    ///
    /// # Errors
    /// When a row is gone.
    pub(crate) fn gather(&self, refs: &[RowRef], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        if refs.is_empty() {
            let empty = |column: &usize| new_empty_array(self.schema.field(*column).data_type());
            return Ok(columns.iter().map(empty).collect());
        }
        let call = self.gathers.get() + 1;
        self.gathers.set(call);
        // The arrays that occur: of a sealed chunk its one piece, of the open one all.
        let mut pieces = Vec::new();
        let mut indices = Vec::with_capacity(refs.len());
        let (mut last, mut last_chunk, mut last_slot) = (None, None, 0);
        for row in refs {
            if last != Some(row.chunk) {
                let chunk = self.chunk(row.chunk).ok_or_else(lost)?;
                last_slot = chunk.slot(call, || {
                    let slot = pieces.len();
                    pieces.extend(chunk.pieces());
                    slot
                });
                (last, last_chunk) = (Some(row.chunk), Some(chunk));
            }
            let chunk = last_chunk.ok_or_else(lost)?;
            let (piece, row) = chunk.locate(row.row as usize).ok_or_else(lost)?;
            indices.push((last_slot + piece, row));
        }
        let gathered = columns.iter().map(|&column| {
            let arrays: Vec<&dyn Array> = pieces.iter().map(|piece| piece.column(column)).collect();
            Ok(interleave(&arrays, &indices)?)
        });
        gathered.collect()
    }

    /// Goes through the hashes of the rows from a place on: the ref of the first of a run, and the hashes of the run. Rows
    /// that are gone are among them; ask [`contains`](Self::contains).
    pub(crate) fn hashes_from(&self, from: RowRef) -> impl Iterator<Item = (RowRef, &[u64])> {
        self.live_chunks()
            .filter(move |(number, _)| *number >= from.chunk)
            .map(move |(number, chunk)| {
                let row = if number == from.chunk { from.row } else { 0 };
                let first = RowRef { chunk: number, row };
                (first, chunk.hashes().get(row as usize..).unwrap_or_default())
            })
    }

    /// Writes sparse chunks that lie wholly before a place anew, without the rows that are gone, and makes neighbours with few
    /// rows one. Returns the hash, the old and the new place of every row that moved; the order stays.
    ///
    /// Costs no more than the removals since the last call.
    ///
    /// # Errors
    /// When arrow fails.
    pub(crate) fn compact(&mut self, before: RowRef) -> Result<Vec<(u64, RowRef, RowRef)>> {
        let mut moved = Vec::new();
        // The chunk that may still take rows of the following ones.
        let mut into: Option<usize> = None;
        for index in 0..self.chunks.len() {
            let number = self.first + index as u32;
            let Some(chunk) = &self.chunks[index] else { continue };
            if number >= before.chunk || !chunk.is_sealed() {
                break;
            }
            let target = into.filter(|target| {
                let known = self.chunks[*target].as_ref().map_or(usize::MAX, |known| known.live());
                known + chunk.live() <= MERGED_ROWS
            });
            if target.is_none() && chunk.live() * 4 > chunk.rows() {
                into = Some(index);
                continue;
            }
            let Some(source) = self.chunks[index].take() else {
                continue;
            };
            let target = target.unwrap_or(index);
            let known = self.chunks[target].take();
            let target_number = self.first + target as u32;
            let parts = known.iter().map(|known| (target_number, known.as_ref()));
            let parts: Vec<(u32, &Chunk)> = parts.chain([(number, source.as_ref())]).collect();
            let (merged, origins) = Chunk::merge(&parts, self.has_due)?;
            for (row, (old, hash)) in origins.into_iter().zip(merged.hashes()).enumerate() {
                let new = RowRef {
                    chunk: target_number,
                    row: row as u32,
                };
                if old != new {
                    moved.push((*hash, old, new));
                }
            }
            self.chunks[target] = Some(Box::new(merged));
            into = Some(target);
        }
        // The first chunk may be gone now; the last one's place stays.
        while self.chunks.len() > 1 && matches!(self.chunks.front(), Some(None)) {
            self.chunks.pop_front();
            self.first += 1;
        }
        Ok(moved)
    }

    fn live_chunks(&self) -> impl Iterator<Item = (u32, &Chunk)> {
        let numbered = self.chunks.iter().enumerate();
        numbered.filter_map(|(index, chunk)| Some((self.first + index as u32, chunk.as_deref()?)))
    }

    fn chunk(&self, number: u32) -> Option<&Chunk> {
        let index = number.checked_sub(self.first)?;
        self.chunks.get(index as usize)?.as_deref()
    }

    fn chunk_mut(&mut self, number: u32) -> Option<&mut Chunk> {
        let index = number.checked_sub(self.first)?;
        self.chunks.get_mut(index as usize)?.as_deref_mut()
    }
}

fn lost() -> Error {
    Error::Internal("a row that was kept is gone".into())
}
