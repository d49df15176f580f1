//! The index in memory: for each shard, where its visible records lie.
//!
//! Only the writer adds to it, after the sync; readers take a read lock for a binary search.

use std::collections::VecDeque;

use crate::ids::{SegmentNumber, ShardKey};
use crate::limits::EXTENT_MERGE_BYTES_MAX;

/// How the bytes of an entry are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EntryKind {
    /// One or more adjacent frames of records.
    Records = 0,
    /// One staged frame; counters and arrival time come from the entry.
    Published = 1,
    /// Damaged: these records cannot be read.
    Damaged = 2,
    /// In an object: all records of the shard that this segment made visible. Where in it, its directory says.
    Tiered = 3,
}

/// Records of one shard that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) segment: SegmentNumber,
    pub(crate) kind: EntryKind,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    /// Counter of the first record.
    pub(crate) first: u64,
    /// Counter of the last record.
    pub(crate) last: u64,
    pub(crate) first_arrival_ms: u64,
    pub(crate) last_arrival_ms: u64,
}

impl IndexEntry {
    /// Takes in the entry behind this one when both are adjacent frames of records.
    fn merge(&mut self, next: &IndexEntry) -> bool {
        let adjacent = self.kind == EntryKind::Records
            && next.kind == EntryKind::Records
            && self.segment == next.segment
            && self.offset + self.len == next.offset
            && self.len + next.len <= EXTENT_MERGE_BYTES_MAX;
        if adjacent {
            self.len += next.len;
            self.last = next.last;
            self.last_arrival_ms = next.last_arrival_ms;
        }
        adjacent
    }
}

/// The entries of one shard in the order of their counters.
#[derive(Debug, Default)]
pub(crate) struct ShardIndex {
    entries: VecDeque<IndexEntry>,
    /// Records up to this counter are gone.
    floor: u64,
    /// Last counter of the last entry, also when that is gone.
    last: u64,
}

impl ShardIndex {
    /// Adds an entry behind all others. One that is already there (recovery reads a range twice) is left out.
    pub(crate) fn push(&mut self, mut entry: IndexEntry) {
        if entry.last <= self.floor {
            return;
        }
        if self.entries.back().is_some_and(|last| entry.first <= last.last) {
            return;
        }
        if entry.kind == EntryKind::Damaged && entry.last_arrival_ms == 0 {
            // When damaged records arrived is told by what comes behind them. Until then they have not expired.
            let before = self.entries.back_mut().map_or(0, |last| {
                if last.last_arrival_ms == u64::MAX {
                    last.last_arrival_ms = last.first_arrival_ms;
                }
                last.last_arrival_ms
            });
            entry.first_arrival_ms = before;
            entry.last_arrival_ms = u64::MAX;
        } else {
            self.settle_time(entry.first_arrival_ms);
            // What is told of damaged records may be too early; times must not go back, for they are searched.
            let before = self.entries.back().map_or(0, |last| last.last_arrival_ms);
            entry.first_arrival_ms = entry.first_arrival_ms.max(before);
            entry.last_arrival_ms = entry.last_arrival_ms.max(before);
        }
        if self.entries.back_mut().is_some_and(|last| last.merge(&entry)) {
            self.last = entry.last;
            return;
        }
        self.last = self.last.max(entry.last);
        self.entries.push_back(entry);
    }

    /// Damaged records at the end arrived by then.
    pub(crate) fn settle_time(&mut self, arrival_ms: u64) {
        if let Some(last) = self.entries.back_mut()
            && last.kind == EntryKind::Damaged
        {
            last.last_arrival_ms = if last.last_arrival_ms == u64::MAX {
                arrival_ms.max(last.first_arrival_ms)
            } else {
                arrival_ms.max(last.last_arrival_ms)
            };
        }
    }

    /// An index whose records up to `floor` are gone.
    pub(crate) fn above(floor: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            floor,
            last: floor,
        }
    }

    /// Records up to this counter are gone.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Takes out the entries whose records all arrived before `cutoff_ms`.
    pub(crate) fn expire(&mut self, cutoff_ms: u64) -> impl Iterator<Item = IndexEntry> + '_ {
        let count = self.entries.partition_point(|entry| entry.last_arrival_ms < cutoff_ms);
        self.take_front(count)
    }

    /// Puts an entry in the place of those that it covers, which are returned. Nothing when all of them are gone.
    pub(crate) fn replace(&mut self, entry: IndexEntry) -> Vec<IndexEntry> {
        let start = self.entries.partition_point(|known| known.last < entry.first);
        let end = self.entries.partition_point(|known| known.first <= entry.last);
        if start >= end {
            return Vec::new();
        }
        let covered: Vec<IndexEntry> = self.entries.drain(start + 1..end).collect();
        let first = std::mem::replace(&mut self.entries[start], entry);
        std::iter::once(first).chain(covered).collect()
    }

    /// Takes out the entries up to the last one that lies in `segment`.
    pub(crate) fn drop_through(&mut self, segment: SegmentNumber) -> impl Iterator<Item = IndexEntry> + '_ {
        let count = self
            .entries
            .iter()
            .rposition(|entry| entry.segment == segment)
            .map_or(0, |at| at + 1);
        self.take_front(count)
    }

    fn take_front(&mut self, count: usize) -> impl Iterator<Item = IndexEntry> + '_ {
        if let Some(last) = count.checked_sub(1).and_then(|at| self.entries.get(at)) {
            self.floor = self.floor.max(last.last);
        }
        self.entries.drain(..count)
    }

    /// The oldest entry.
    pub(crate) fn oldest(&self) -> Option<&IndexEntry> {
        self.entries.front()
    }

    /// Takes out the entries up to the one that holds `counter`.
    pub(crate) fn drop_to(&mut self, counter: u64) -> impl Iterator<Item = IndexEntry> + '_ {
        let count = self.entries.partition_point(|entry| entry.first <= counter);
        self.take_front(count)
    }

    /// Gives memory back after many entries have left.
    pub(crate) fn shrink(&mut self) {
        if self.entries.capacity() > 64 && self.entries.capacity() / 4 > self.entries.len() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &IndexEntry> {
        self.entries.iter()
    }

    /// The next counter behind all visible records.
    pub(crate) fn end(&self) -> u64 {
        self.last.saturating_add(1)
    }

    /// The entries from the one that holds `counter`, or the first behind it, without those all of whose records arrived
    /// before `horizon_ms`. Damaged records arrived no later than what lies behind them.
    pub(crate) fn live(&self, counter: u64, horizon_ms: u64) -> impl ExactSizeIterator<Item = &IndexEntry> {
        let counted = self.entries.partition_point(|entry| entry.last < counter);
        let live = self.entries.partition_point(|entry| entry.last_arrival_ms < horizon_ms);
        self.entries.range(counted.max(live)..)
    }

    /// Says whether records from `counter` on are in entries that [`Self::live`] leaves out because they arrived before
    /// `horizon_ms`.
    pub(crate) fn has_expired(&self, counter: u64, horizon_ms: u64) -> bool {
        let live = self.live(counter, horizon_ms).len();
        let from = self.entries.partition_point(|entry| entry.last < counter);
        self.entries.len() - from > live
    }

    /// The first entry that holds a record which arrived at `time_ms` or later.
    pub(crate) fn at_time(&self, time_ms: u64) -> Option<&IndexEntry> {
        self.entries
            .get(self.entries.partition_point(|entry| entry.last_arrival_ms < time_ms))
    }
}

/// The entries that one segment's frames made visible, in the order of the frames. Becomes the segment's index file.
#[derive(Debug, Default)]
pub(crate) struct SegmentEntries(pub(crate) Vec<(ShardKey, IndexEntry)>);

impl SegmentEntries {
    /// Adds an entry.
    pub(crate) fn push(&mut self, shard: ShardKey, entry: IndexEntry) {
        if let Some((last_shard, last)) = self.0.last_mut()
            && *last_shard == shard
            && last.merge(&entry)
        {
            return;
        }
        self.0.push((shard, entry));
    }

    /// Whether some of it stands for records that could not be read.
    pub(crate) fn tell_of_damage(&self) -> bool {
        self.0.iter().any(|(_, entry)| entry.kind == EntryKind::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u32, len: u32, first: u64, last: u64) -> IndexEntry {
        IndexEntry {
            segment: SegmentNumber(1),
            kind: EntryKind::Records,
            offset,
            len,
            first,
            last,
            first_arrival_ms: first * 10,
            last_arrival_ms: last * 10,
        }
    }

    #[test]
    fn adjacent_frames_merge_and_are_found_by_counter_and_time() {
        let mut index = ShardIndex::default();
        assert_eq!(index.end(), 1);
        index.push(entry(64, 100, 1, 4));
        index.push(entry(164, 100, 5, 9));
        index.push(entry(1000, 100, 20, 29));
        index.push(entry(1000, 100, 20, 29));
        assert_eq!(index.live(0, 0).len(), 2);
        assert_eq!(index.live(9, 0).next().unwrap().len, 200);
        assert_eq!(index.live(10, 0).next().unwrap().first, 20);
        assert_eq!(index.live(0, 91).next().unwrap().first, 20);
        assert!(index.live(30, 0).next().is_none());
        assert_eq!(index.end(), 30);
        assert_eq!(index.at_time(91).unwrap().first, 20);
        assert_eq!(index.at_time(0).unwrap().first, 1);
        assert!(index.at_time(291).is_none());
    }

    #[test]
    fn expired_entries_leave_and_do_not_come_back() {
        let mut index = ShardIndex::default();
        index.push(entry(64, 100, 1, 4));
        index.push(entry(1000, 100, 5, 9));
        assert_eq!(index.expire(40).count(), 0, "the last record arrived at 40");
        assert_eq!(index.expire(41).map(|entry| entry.last).collect::<Vec<_>>(), [4]);
        assert_eq!((index.floor(), index.end()), (4, 10));
        index.push(entry(64, 100, 1, 4));
        assert_eq!(index.live(0, 0).count(), 1);
        assert_eq!(index.expire(1_000).count(), 1);
        assert_eq!((index.floor(), index.end()), (9, 10), "numbers go on");
        assert_eq!((ShardIndex::above(9).floor(), ShardIndex::above(9).end()), (9, 10));
        let mut index = ShardIndex::above(9);
        index.push(entry(64, 100, 5, 9));
        index.push(entry(164, 100, 10, 12));
        assert_eq!(index.entries().count(), 1);
        assert_eq!(index.drop_through(SegmentNumber(2)).count(), 0);
        assert_eq!(index.drop_through(SegmentNumber(1)).count(), 1);
        assert_eq!(index.floor(), 12);
    }

    fn damaged(first: u64, last: u64) -> IndexEntry {
        IndexEntry {
            kind: EntryKind::Damaged,
            first_arrival_ms: 0,
            last_arrival_ms: 0,
            ..entry(0, 0, first, last)
        }
    }

    #[test]
    fn damaged_records_expire_with_what_is_behind_them() {
        let mut index = ShardIndex::default();
        index.push(damaged(1, 3));
        assert_eq!(index.expire(1_000_000).count(), 0, "nobody knows when they arrived");
        index.push(entry(64, 100, 4, 5));
        index.push(damaged(6, 7));
        assert_eq!(index.expire(40).count(), 0);
        assert_eq!(index.expire(41).map(|entry| entry.last).collect::<Vec<_>>(), [3]);
        index.settle_time(80);
        assert_eq!(index.expire(80).map(|entry| entry.last).collect::<Vec<_>>(), [5]);
        assert_eq!(index.expire(81).count(), 1);
    }

    #[test]
    fn an_entry_is_as_large_as_the_documents_say() {
        assert_eq!(size_of::<IndexEntry>(), 48);
    }

    #[test]
    fn what_is_older_than_the_horizon_is_not_live_but_damage_before_the_rest_is() {
        let mut index = ShardIndex::default();
        index.push(entry(64, 100, 1, 4));
        index.push(damaged(5, 9));
        index.push(entry(1000, 100, 10, 19));
        // Its arrival is told, and too early.
        index.push(IndexEntry {
            last_arrival_ms: 5,
            ..damaged(20, 29)
        });
        index.push(entry(2000, 100, 30, 39));
        for (counter, horizon, first) in [
            (0, 0, Some(1)),
            (0, 40, Some(1)),
            (0, 41, Some(5)),
            (0, 100, Some(5)),
            (0, 101, Some(10)),
            (12, 41, Some(10)),
            (0, 191, Some(20)),
            (30, 191, Some(30)),
            (0, 300, Some(20)),
            (0, 301, Some(30)),
            (0, 390, Some(30)),
            (0, 391, None),
        ] {
            let live = index.live(counter, horizon).next().map(|entry| entry.first);
            assert_eq!(live, first, "{counter} {horizon}");
        }
        assert_eq!(index.at_time(41).unwrap().first, 5);
        assert_eq!(index.at_time(101).unwrap().first, 10);
    }

    #[test]
    fn merging_stops_at_the_limit() {
        let mut index = ShardIndex::default();
        index.push(entry(0, EXTENT_MERGE_BYTES_MAX, 1, 4));
        index.push(entry(EXTENT_MERGE_BYTES_MAX, 8, 5, 5));
        assert_eq!(index.live(0, 0).len(), 2);
    }
}
