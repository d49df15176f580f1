//! The index in memory: for each shard, where its visible records lie.
//!
//! Only the writer adds to it, after the sync; readers take a read lock for a binary search.

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
    entries: Vec<IndexEntry>,
}

impl ShardIndex {
    /// Adds an entry behind all others. One that is already there (recovery reads a range twice) is left out.
    pub(crate) fn push(&mut self, mut entry: IndexEntry) {
        if let Some(last) = self.entries.last_mut() {
            // The arrival of damaged records may not be known; times must not go back, for they are searched.
            entry.first_arrival_ms = entry.first_arrival_ms.max(last.last_arrival_ms);
            entry.last_arrival_ms = entry.last_arrival_ms.max(last.last_arrival_ms);
            if entry.first <= last.last || last.merge(&entry) {
                return;
            }
        }
        self.entries.push(entry);
    }

    /// The next counter behind all visible records.
    pub(crate) fn end(&self) -> u64 {
        self.entries.last().map_or(1, |entry| entry.last.saturating_add(1))
    }

    /// The entries from the one that holds `counter`, or the first behind it, without those all of whose records arrived
    /// before `horizon_ms`. Damage in front of the first entry that is left stays: what is lost there may have arrived
    /// as late.
    pub(crate) fn live(&self, counter: u64, horizon_ms: u64) -> &[IndexEntry] {
        let mut live = self.entries.partition_point(|entry| entry.last_arrival_ms < horizon_ms);
        if live < self.entries.len() {
            while live > 0 && self.entries[live - 1].kind == EntryKind::Damaged {
                live -= 1;
            }
        }
        let from = self.entries.partition_point(|entry| entry.last < counter);
        &self.entries[from.max(live)..]
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
        assert_eq!(index.live(9, 0)[0].len, 200);
        assert_eq!(index.live(10, 0)[0].first, 20);
        assert!(index.live(30, 0).is_empty());
        assert_eq!(index.end(), 30);
        assert_eq!(index.at_time(91).unwrap().first, 20);
        assert_eq!(index.at_time(0).unwrap().first, 1);
        assert!(index.at_time(291).is_none());
    }

    #[test]
    fn what_is_older_than_the_horizon_is_not_live_but_damage_before_the_rest_is() {
        let damaged = |first, last| IndexEntry {
            kind: EntryKind::Damaged,
            first_arrival_ms: 0,
            last_arrival_ms: 0,
            ..entry(0, 0, first, last)
        };
        let mut index = ShardIndex::default();
        index.push(entry(64, 100, 1, 4));
        index.push(damaged(5, 9));
        index.push(entry(1000, 100, 10, 19));
        index.push(damaged(20, 29));
        index.push(entry(2000, 100, 30, 39));
        for (counter, horizon, first) in [
            (0, 0, Some(1)),
            (0, 40, Some(1)),
            (0, 41, Some(5)),
            (12, 41, Some(10)),
            (0, 191, Some(20)),
            (30, 191, Some(30)),
            (0, 390, Some(20)),
            (0, 391, None),
        ] {
            let live = index.live(counter, horizon).first().map(|entry| entry.first);
            assert_eq!(live, first, "{counter} {horizon}");
        }
        assert_eq!(index.at_time(41).unwrap().first, 10);
    }

    #[test]
    fn merging_stops_at_the_limit() {
        let mut index = ShardIndex::default();
        index.push(entry(0, EXTENT_MERGE_BYTES_MAX, 1, 4));
        index.push(entry(EXTENT_MERGE_BYTES_MAX, 8, 5, 5));
        assert_eq!(index.live(0, 0).len(), 2);
    }
}
