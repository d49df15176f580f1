//! Remembers the rows of keys that were asked for.
//!
//! Rows stay in the batches they came in; a key knows its range there. When more than half of what the batches hold belongs
//! to keys that were forgotten, the rows that live are gathered into one new batch.

use super::index::RowsByKey;
use super::matching::DistinctKeys;
use crate::error::Result;
use crate::lookup::PartialCacheOptions;
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use hashbrown::HashTable;
use std::time::Duration;

/// Rows that nobody needs are borne with up to this many.
const DEAD_ROWS_MAX: usize = 8_192;

/// More batches than this are gathered into one.
const CHUNKS_MAX: usize = 512;

/// The cache. Times are wall times of ticks, in milliseconds.
pub(super) struct KeyCache {
    options: PartialCacheOptions,
    /// Hash and slot.
    table: HashTable<(u64, u32)>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    chunks: Vec<Option<Chunk>>,
    /// What counts against the limit: rows, and 1 for a key without any.
    weight: usize,
    /// Rows in all chunks, and those of them that a key has.
    held_rows: usize,
    live_rows: usize,
    /// Where the search for something to forget goes on.
    hand: usize,
}

struct Entry {
    hash: u64,
    key: Box<[u8]>,
    /// The chunk of the rows; none for a key without rows.
    rows: Option<Range>,
    written_ms: i64,
    accessed_ms: i64,
    /// Wanted since the hand last came by.
    is_wanted: bool,
}

#[derive(Clone, Copy)]
struct Range {
    chunk: u32,
    start: u32,
    len: u32,
}

struct Chunk {
    rows: RecordBatch,
    live_rows: usize,
}

/// What a cache knows of some keys.
pub(super) struct Known {
    /// The rows of keys that are known.
    ranges: Vec<Range>,
    /// The numbers of keys that must be asked for.
    pub(super) missing: Vec<usize>,
}

impl KeyCache {
    pub(super) fn new(options: PartialCacheOptions) -> Self {
        Self {
            options,
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            chunks: Vec::new(),
            weight: 0,
            held_rows: 0,
            live_rows: 0,
            hand: 0,
        }
    }

    /// Looks keys up, at a moment.
    pub(super) fn known(&mut self, keys: &DistinctKeys, now_ms: i64) -> Known {
        let mut known = Known {
            ranges: Vec::new(),
            missing: Vec::new(),
        };
        for number in 0..keys.len() {
            let (hash, key) = keys.key(number);
            let Some(slot) = self.slot(hash, key) else {
                known.missing.push(number);
                continue;
            };
            if self.has_expired(slot, now_ms) {
                self.forget(slot);
                known.missing.push(number);
            } else if let Some(entry) = &mut self.slots[slot as usize] {
                entry.accessed_ms = now_ms;
                entry.is_wanted = true;
                known.ranges.extend(entry.rows);
            }
        }
        known
    }

    /// Returns the rows of keys that are known; `None` when they have none.
    ///
    /// # Errors
    /// When the rows are more than a batch can hold.
    pub(super) fn gather(&self, known: &Known) -> Result<Option<RecordBatch>> {
        self.rows_of(&known.ranges)
    }

    /// Remembers the rows of keys that were asked for: `missing` are their numbers among `keys`, in the order of `fetched`.
    ///
    /// # Errors
    /// When the rows are more than a batch can hold.
    pub(super) fn learn(
        &mut self,
        keys: &DistinctKeys,
        missing: &[usize],
        fetched: &RowsByKey,
        now_ms: i64,
    ) -> Result<()> {
        let chunk = self.add_chunk(fetched.rows.clone());
        let mut start = 0;
        for (number, end) in missing.iter().zip(&fetched.ends) {
            let range = Range {
                chunk,
                start,
                len: end - start,
            };
            start = *end;
            let (hash, key) = keys.key(*number);
            if let Some(slot) = self.slot(hash, key) {
                // Two batches asked for it at the same time.
                self.forget(slot);
            }
            if range.len > 0 || self.options.remembers_missing {
                self.insert(hash, key, range, now_ms);
            }
        }
        self.drop_chunk_if_dead(chunk);
        // Keys that nobody asks for again would otherwise stay until the cache is full.
        for _ in 0..2 * missing.len() {
            self.step(|cache, slot| cache.has_expired(slot, now_ms));
        }
        while self.weight > self.options.rows_max {
            self.step(|cache, slot| match &mut cache.slots[slot as usize] {
                Some(entry) => !std::mem::take(&mut entry.is_wanted),
                None => false,
            });
        }
        if self.held_rows > 2 * self.live_rows + DEAD_ROWS_MAX || self.chunks.len() > CHUNKS_MAX {
            self.compact()?;
        }
        Ok(())
    }

    fn slot(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same = |(known, slot): &(u64, u32)| {
            *known == hash
                && self.slots[*slot as usize]
                    .as_ref()
                    .is_some_and(|entry| *entry.key == *key)
        };
        self.table.find(hash, same).map(|(_, slot)| *slot)
    }

    fn has_expired(&self, slot: u32, now_ms: i64) -> bool {
        let Some(entry) = &self.slots[slot as usize] else {
            return false;
        };
        let over = |since: i64, limit: Option<Duration>| {
            limit.is_some_and(|limit| i128::from(now_ms) - i128::from(since) >= limit.as_millis() as i128)
        };
        over(entry.written_ms, self.options.expire_after_write)
            || over(entry.accessed_ms, self.options.expire_after_access)
    }

    fn insert(&mut self, hash: u64, key: &[u8], range: Range, now_ms: i64) {
        let rows = (range.len > 0).then_some(range);
        let entry = Entry {
            hash,
            key: key.into(),
            rows,
            written_ms: now_ms,
            accessed_ms: now_ms,
            is_wanted: false,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // As many slots as keys at most, and those are below the limit and a batch.
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(entry);
        self.table.insert_unique(hash, (hash, slot), |(hash, _)| *hash);
        self.weight += (range.len as usize).max(1);
        self.live_rows += range.len as usize;
        if let Some(Some(chunk)) = rows.map(|range| &mut self.chunks[range.chunk as usize]) {
            chunk.live_rows += range.len as usize;
        }
    }

    fn forget(&mut self, slot: u32) {
        let Some(entry) = self.slots[slot as usize].take() else {
            return;
        };
        if let Ok(found) = self.table.find_entry(entry.hash, |(_, known)| *known == slot) {
            found.remove();
        }
        self.free.push(slot);
        let len = entry.rows.map_or(0, |range| range.len as usize);
        self.weight -= len.max(1);
        self.live_rows -= len;
        if let Some(range) = entry.rows {
            if let Some(chunk) = &mut self.chunks[range.chunk as usize] {
                chunk.live_rows -= len;
            }
            self.drop_chunk_if_dead(range.chunk);
        }
    }

    /// Moves the hand by one slot, and forgets it if `is_over` says so.
    fn step(&mut self, is_over: impl FnOnce(&mut Self, u32) -> bool) {
        if self.slots.is_empty() {
            return;
        }
        self.hand = (self.hand + 1) % self.slots.len();
        let slot = self.hand as u32;
        if self.slots[self.hand].is_some() && is_over(self, slot) {
            self.forget(slot);
        }
    }

    fn add_chunk(&mut self, rows: RecordBatch) -> u32 {
        self.held_rows += rows.num_rows();
        let chunk = Some(Chunk { rows, live_rows: 0 });
        match self.chunks.iter().position(Option::is_none) {
            Some(free) => {
                self.chunks[free] = chunk;
                free as u32
            }
            None => {
                self.chunks.push(chunk);
                (self.chunks.len() - 1) as u32
            }
        }
    }

    fn drop_chunk_if_dead(&mut self, number: u32) {
        let slot = &mut self.chunks[number as usize];
        if let Some(chunk) = slot.take_if(|chunk| chunk.live_rows == 0) {
            self.held_rows -= chunk.rows.num_rows();
        }
    }

    fn rows_of(&self, ranges: &[Range]) -> Result<Option<RecordBatch>> {
        let mut places = vec![usize::MAX; self.chunks.len()];
        let mut batches = Vec::new();
        let mut indices = Vec::new();
        for range in ranges {
            let Some(chunk) = &self.chunks[range.chunk as usize] else {
                continue;
            };
            let place = &mut places[range.chunk as usize];
            if *place == usize::MAX {
                *place = batches.len();
                batches.push(&chunk.rows);
            }
            indices.extend((range.start..range.start + range.len).map(|row| (*place, row as usize)));
        }
        if indices.is_empty() {
            return Ok(None);
        }
        Ok(Some(interleave_record_batch(&batches, &indices)?))
    }

    /// Gathers the rows that live into one chunk.
    fn compact(&mut self) -> Result<()> {
        let ranges: Vec<Range> = self.slots.iter().flatten().filter_map(|entry| entry.rows).collect();
        let rows = self.rows_of(&ranges)?;
        self.chunks.clear();
        self.held_rows = 0;
        let Some(rows) = rows else { return Ok(()) };
        let chunk = self.add_chunk(rows);
        let mut start = 0;
        for range in self.slots.iter_mut().flatten().filter_map(|entry| entry.rows.as_mut()) {
            *range = Range {
                chunk,
                start,
                len: range.len,
            };
            start += range.len;
        }
        if let Some(Some(chunk)) = self.chunks.last_mut() {
            chunk.live_rows = self.live_rows;
        }
        Ok(())
    }

    /// Returns how much counts against the limit, how many rows are held, and how many of them live.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.weight, self.held_rows, self.live_rows)
    }
}
