//! A chunk of rows: open while batches are appended, sealed when it is full.

use super::{CHUNK_ROWS, RowKeys, RowRef};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, GenericListArray, StructArray, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, filter};
use arrow::datatypes::DataType;
use std::cell::Cell;
use std::sync::Arc;

/// So many neighbouring pieces of about one size become one piece, so that many small batches do not stay apart, nor hold
/// the buffers they were cut from.
const PIECES_MERGED: usize = 8;

/// Columns that came together.
pub(super) struct Piece {
    columns: Vec<ArrayRef>,
    /// The chunk's row that is the first one here.
    first: usize,
    rows: usize,
    /// How often it was merged.
    level: u8,
}

impl Piece {
    /// Returns a column.
    pub(super) fn column(&self, column: usize) -> &dyn Array {
        self.columns[column].as_ref()
    }
}

/// One bit per row.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn grow(&mut self, rows: usize) {
        self.0.resize(rows.div_ceil(64), 0);
    }

    fn get(&self, row: usize) -> bool {
        self.0.get(row / 64).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }

    /// Sets a bit; says whether it was not set.
    fn set(&mut self, row: usize) -> bool {
        let (word, bit) = (&mut self.0[row / 64], 1 << (row % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// A chunk.
pub(super) struct Chunk {
    pieces: Vec<Piece>,
    hashes: Vec<u64>,
    /// Empty where rows are never due.
    due: Vec<i64>,
    /// No row that is there is due before; only looked at where rows can be due.
    due_min: i64,
    gone: Bits,
    marked: Bits,
    live: usize,
    sealed: bool,
    /// The call of `gather` that used this chunk last, and the place of its first piece there.
    slot: Cell<(u64, usize)>,
}

impl Chunk {
    pub(super) fn new(has_due: bool) -> Self {
        // The rows of a full chunk arrive soon, or the allocator gives back what was too much when it is sealed.
        Self {
            pieces: Vec::new(),
            hashes: Vec::new(),
            due: Vec::new(),
            due_min: if has_due { i64::MAX } else { i64::MIN },
            gone: Bits::default(),
            marked: Bits::default(),
            live: 0,
            sealed: false,
            slot: Cell::new((0, 0)),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    pub(super) fn due(&self) -> &[i64] {
        &self.due
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter()
    }

    pub(super) fn size(&self) -> usize {
        let columns = self.pieces.iter().flat_map(|piece| &piece.columns);
        let columns: usize = columns.map(|column| column.get_array_memory_size()).sum();
        columns + self.hashes.capacity() * 8 + self.due.capacity() * 8 + (self.gone.0.len() + self.marked.0.len()) * 8
    }

    /// Returns the place that this call of `gather` gave the chunk, or makes one.
    pub(super) fn slot(&self, call: u64, make: impl FnOnce() -> usize) -> usize {
        let (known, slot) = self.slot.get();
        if known == call {
            return slot;
        }
        let slot = make();
        self.slot.set((call, slot));
        slot
    }

    /// Returns the piece that a row is in, and its place there.
    pub(super) fn locate(&self, row: usize) -> Option<(usize, usize)> {
        if row >= self.rows() {
            return None;
        }
        if self.sealed {
            return Some((0, row));
        }
        let piece = self.pieces.partition_point(|piece| piece.first <= row) - 1;
        Some((piece, row - self.pieces[piece].first))
    }

    pub(super) fn append(&mut self, columns: &[ArrayRef], keys: RowKeys<'_>) -> Result<()> {
        let (first, rows) = (self.rows(), keys.hashes.len());
        self.hashes.extend_from_slice(keys.hashes);
        if let Some(due) = keys.due {
            self.due.extend_from_slice(due);
            self.due_min = due.iter().copied().fold(self.due_min, i64::min);
        }
        self.gone.grow(first + rows);
        self.marked.grow(first + rows);
        self.live += rows;
        self.pieces.push(Piece {
            columns: columns.to_vec(),
            first,
            rows,
            level: 0,
        });
        while first + rows < CHUNK_ROWS
            && let Some(start) = self.pieces.len().checked_sub(PIECES_MERGED)
            && self.pieces[start..]
                .iter()
                .all(|piece| piece.level == self.pieces[start].level)
        {
            let merged = merged(&self.pieces[start..])?;
            self.pieces.truncate(start);
            self.pieces.push(merged);
        }
        Ok(())
    }

    /// Makes the chunk one piece that shares nothing with what was appended.
    pub(super) fn seal(&mut self) -> Result<()> {
        self.pieces = vec![merged(&self.pieces)?];
        self.hashes.shrink_to_fit();
        self.due.shrink_to_fit();
        self.sealed = true;
        Ok(())
    }

    pub(super) fn is_live(&self, row: usize) -> bool {
        row < self.rows() && !self.gone.get(row)
    }

    pub(super) fn is_marked(&self, row: usize) -> bool {
        self.marked.get(row)
    }

    pub(super) fn mark(&mut self, row: usize) -> bool {
        self.is_live(row) && self.marked.set(row)
    }

    pub(super) fn remove(&mut self, row: usize) -> bool {
        let is_there = self.is_live(row) && self.gone.set(row);
        self.live -= usize::from(is_there);
        is_there
    }

    /// Tells the rows that are due at or before a time; they are taken for removed.
    pub(super) fn take_due(&mut self, until_ms: i64, mut take: impl FnMut(u32)) {
        if self.due.is_empty() || self.due_min > until_ms {
            return;
        }
        let mut due_min = i64::MAX;
        for (row, &due_ms) in self.due.iter().enumerate() {
            if self.gone.get(row) {
                continue;
            }
            if due_ms <= until_ms {
                take(row as u32);
            } else {
                due_min = due_min.min(due_ms);
            }
        }
        self.due_min = due_min;
    }

    /// Returns the columns without the rows that are gone, or that `keep` does not want: per piece.
    pub(super) fn kept(&self, keep: impl Fn(usize) -> bool) -> Result<(Vec<Vec<ArrayRef>>, Vec<usize>)> {
        let kept: Vec<usize> = (0..self.rows())
            .filter(|&row| !self.gone.get(row) && keep(row))
            .collect();
        if kept.len() == self.rows() {
            let columns = self.pieces.iter().map(|piece| piece.columns.clone()).collect();
            return Ok((columns, kept));
        }
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let wanted = BooleanBuffer::collect_bool(piece.rows, |row| {
                let row = piece.first + row;
                !self.gone.get(row) && keep(row)
            });
            let wanted = BooleanArray::new(wanted, None);
            let columns = piece.columns.iter().map(|column| Ok(filter(column, &wanted)?));
            pieces.push(columns.collect::<Result<Vec<_>>>()?);
        }
        Ok((pieces, kept))
    }

    /// Makes one sealed chunk of the rows of several that are still there; also returns where each of them was.
    pub(super) fn merge(parts: &[(u32, &Chunk)], has_due: bool) -> Result<(Chunk, Vec<RowRef>)> {
        let mut merged = Chunk::new(has_due);
        let (mut origins, mut pieces) = (Vec::new(), Vec::new());
        for (number, part) in parts {
            let (columns, kept) = part.kept(|_| true)?;
            for row in kept {
                let new = merged.hashes.len();
                merged.hashes.push(part.hashes[row]);
                if has_due {
                    merged.due.push(part.due[row]);
                    merged.due_min = merged.due_min.min(part.due[row]);
                }
                merged.marked.grow(new + 1);
                if part.marked.get(row) {
                    merged.marked.set(new);
                }
                origins.push(RowRef {
                    chunk: *number,
                    row: row as u32,
                });
            }
            pieces.extend(columns);
        }
        let rows = merged.hashes.len();
        merged.gone.grow(rows);
        merged.live = rows;
        merged.pieces = vec![Piece {
            columns: concat_owned(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>())?,
            first: 0,
            rows,
            level: 0,
        }];
        merged.sealed = true;
        Ok((merged, origins))
    }
}

/// Makes one piece of neighbouring ones.
fn merged(pieces: &[Piece]) -> Result<Piece> {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
        return Err(Error::Internal("no rows to put together".into()));
    };
    Ok(Piece {
        columns: concat_owned(&pieces.iter().map(|piece| piece.columns.as_slice()).collect::<Vec<_>>())?,
        first: first.first,
        rows: last.first + last.rows - first.first,
        level: first.level + 1,
    })
}

/// Puts columns together, each into buffers of its own.
pub(super) fn concat_owned(pieces: &[&[ArrayRef]]) -> Result<Vec<ArrayRef>> {
    let width = pieces.first().map_or(0, |piece| piece.len());
    let columns = (0..width).map(|column| {
        let empty = new_empty_array(pieces[0][column].data_type());
        let mut arrays: Vec<&dyn Array> = pieces.iter().map(|piece| piece[column].as_ref()).collect();
        // One array alone would be handed on as it is, with its buffers.
        arrays.push(empty.as_ref());
        owned(&concat(&arrays)?)
    });
    columns.collect()
}

/// Takes text and binary views off the buffers that they look into, also inside rows and lists.
fn owned(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::Struct(fields) => {
            let row = array.as_struct();
            let columns = row.columns().iter().map(owned).collect::<Result<Vec<_>>>()?;
            Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                columns,
                row.nulls().cloned(),
                row.len(),
            )?)
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let values = owned(list.values())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Arc::new(GenericListArray::<i32>::try_new(
                Arc::clone(field),
                offsets,
                values,
                nulls,
            )?)
        }
        _ => Arc::clone(array),
    })
}
