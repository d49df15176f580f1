//! The index of a sealed segment: which extents its frames made visible. Rebuilt from the log when it is missing or
//! damaged, so a failure to write it is only a slower start.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TMLOGIDX` |
//! | 8 | 4 | format version, 2; version 1 had no groups of staged frames and is rebuilt |
//! | 12 | 4 | number of the segment |
//! | 16 | 16 | uuid of the segment |
//! | 32 | 8 | where the frames of the segment end |
//! | 40 | 8 | number of entries |
//! | 48 | 56 each | entries, in the order of the frames |
//! | | 8 | number of groups of staged frames |
//! | | 32 each | the groups: hash of the sink, checkpoint, bytes, time of the last frame; 8 bytes each |
//! | | 4 | CRC32C of all bytes before |
//!
//! | offset in an entry | bytes | field |
//! |---|---|---|
//! | 0 | 8 | shard key |
//! | 8 | 4 | number of the segment where the bytes lie (another one when a publish made staged records visible) |
//! | 12 | 4 | kind: 0 records, 1 published, 2 damaged, 3 tiered (offset is 0) |
//! | 16 | 4 | offset |
//! | 20 | 4 | length |
//! | 24 | 8 | counter of the first record |
//! | 32 | 8 | counter of the last record |
//! | 40 | 8 | arrival of the first record, milliseconds since 1970 |
//! | 48 | 8 | arrival of the last record |

use super::names;
use crate::env::Disk;
use crate::ids::{SegmentNumber, ShardKey, Uuid};
use crate::index::{EntryKind, IndexEntry, SegmentEntries};
use crate::retention::{StagedGroup, StagedGroups};

const MAGIC: [u8; 8] = *b"TMLOGIDX";
const VERSION: u32 = 2;
const FIXED_BYTES: usize = 48;
const ENTRY_BYTES: usize = 56;
const GROUP_BYTES: usize = 32;

/// The contents of an index file.
#[derive(Debug)]
pub(crate) struct IndexFile {
    pub(crate) segment: SegmentNumber,
    pub(crate) uuid: Uuid,
    pub(crate) end: u64,
    pub(crate) entries: SegmentEntries,
    /// What was staged in the segment, published or not.
    pub(crate) staged: StagedGroups,
}

impl IndexFile {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.entries.0.len() * ENTRY_BYTES + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.segment.0.to_le_bytes());
        bytes.extend_from_slice(&self.uuid.0);
        bytes.extend_from_slice(&self.end.to_le_bytes());
        bytes.extend_from_slice(&(self.entries.0.len() as u64).to_le_bytes());
        for (shard, entry) in &self.entries.0 {
            bytes.extend_from_slice(&shard.0.to_le_bytes());
            bytes.extend_from_slice(&entry.segment.0.to_le_bytes());
            bytes.extend_from_slice(&(entry.kind as u32).to_le_bytes());
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
            bytes.extend_from_slice(&entry.len.to_le_bytes());
            for number in [entry.first, entry.last, entry.first_arrival_ms, entry.last_arrival_ms] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&(self.staged.0.len() as u64).to_le_bytes());
        for group in &self.staged.0 {
            for number in [group.sink_hash, group.checkpoint, group.bytes, group.last_ms] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when the bytes are not a sound index of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..bytes.len().checked_sub(4)?)?;
        if crc32c::crc32c(body) != u32_at(bytes, body.len())? || body.get(..8)? != MAGIC || u32_at(body, 8)? != VERSION
        {
            return None;
        }
        let count = u64_at(body, 40)? as usize;
        let (entries, groups) = body
            .get(FIXED_BYTES..)?
            .split_at_checked(count.checked_mul(ENTRY_BYTES)?)?;
        let count = u64_at(groups, 0)? as usize;
        let groups = &groups[8..];
        if groups.len() != count.checked_mul(GROUP_BYTES)? {
            return None;
        }
        let groups = groups
            .chunks_exact(GROUP_BYTES)
            .map(decode_group)
            .collect::<Option<Vec<_>>>()?;
        let entries = entries
            .chunks_exact(ENTRY_BYTES)
            .map(decode_entry)
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            segment: SegmentNumber(u32_at(body, 12)?),
            uuid: Uuid(body.get(16..32)?.try_into().ok()?),
            end: u64_at(body, 32)?,
            entries: SegmentEntries(entries),
            staged: StagedGroups(groups),
        })
    }

    /// Writes the file under its name, whole or not at all.
    pub(crate) fn write(&self, disk: &dyn Disk) -> std::io::Result<()> {
        self.write_as(disk, &names::index(self.segment))
    }

    /// Writes the file under another name, whole or not at all.
    pub(crate) fn write_as(&self, disk: &dyn Disk, name: &str) -> std::io::Result<()> {
        let unfinished = names::unfinished(name);
        let file = disk.create(&unfinished)?;
        file.write_at(&self.encode(), 0)?;
        file.sync_data()?;
        disk.rename(&unfinished, name)?;
        disk.sync_dir()
    }

    /// Reads the index of a segment. `None` when there is no sound one.
    pub(crate) fn read(disk: &dyn Disk, segment: SegmentNumber) -> Option<Self> {
        Self::read_as(disk, segment, &names::index(segment))
    }

    /// Reads the index of a segment from a file of another name.
    pub(crate) fn read_as(disk: &dyn Disk, segment: SegmentNumber, name: &str) -> Option<Self> {
        let file = disk.open(name).ok()?;
        let mut bytes = vec![0; usize::try_from(file.length().ok()?).ok()?];
        let length = file.read_at(&mut bytes, 0).ok()?;
        Self::decode(&bytes[..length]).filter(|index| index.segment == segment)
    }
}

fn decode_entry(bytes: &[u8]) -> Option<(ShardKey, IndexEntry)> {
    let kind = match u32_at(bytes, 12)? {
        0 => EntryKind::Records,
        1 => EntryKind::Published,
        2 => EntryKind::Damaged,
        3 => EntryKind::Tiered,
        _ => return None,
    };
    let entry = IndexEntry {
        segment: SegmentNumber(u32_at(bytes, 8)?),
        kind,
        offset: u32_at(bytes, 16)?,
        len: u32_at(bytes, 20)?,
        first: u64_at(bytes, 24)?,
        last: u64_at(bytes, 32)?,
        first_arrival_ms: u64_at(bytes, 40)?,
        last_arrival_ms: u64_at(bytes, 48)?,
    };
    Some((ShardKey(u64_at(bytes, 0)?), entry))
}

fn decode_group(bytes: &[u8]) -> Option<StagedGroup> {
    Some(StagedGroup {
        sink_hash: u64_at(bytes, 0)?,
        checkpoint: u64_at(bytes, 8)?,
        bytes: u64_at(bytes, 16)?,
        last_ms: u64_at(bytes, 24)?,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SimDisk;
    use proptest::prelude::*;

    fn sample() -> IndexFile {
        let entry = IndexEntry {
            segment: SegmentNumber(2),
            kind: EntryKind::Published,
            offset: 64,
            len: 128,
            first: 1,
            last: 3,
            first_arrival_ms: 10,
            last_arrival_ms: 11,
        };
        IndexFile {
            segment: SegmentNumber(3),
            uuid: Uuid([9; 16]),
            end: 4096,
            entries: SegmentEntries(vec![(ShardKey(7), entry)]),
            staged: StagedGroups(vec![StagedGroup {
                sink_hash: 1,
                checkpoint: 2,
                bytes: 3,
                last_ms: 4,
            }]),
        }
    }

    #[test]
    fn round_trips_through_a_file() {
        let disk = SimDisk::new();
        sample().write(&disk).unwrap();
        let read = IndexFile::read(&disk, SegmentNumber(3)).unwrap();
        assert_eq!(read.entries.0, sample().entries.0);
        assert_eq!(read.staged, sample().staged);
        assert_eq!((read.end, read.uuid), (4096, Uuid([9; 16])));
        assert_eq!(sample().encode().len(), FIXED_BYTES + ENTRY_BYTES + 8 + GROUP_BYTES + 4);
        assert_eq!(sample().encode()[48..56], 7u64.to_le_bytes());
    }

    proptest! {
        #[test]
        fn flips_and_random_bytes_are_refused(at in 0usize..148, bit in 0..8, random in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = sample().encode();
            bytes[at] ^= 1u8 << bit;
            prop_assert!(IndexFile::decode(&bytes).is_none());
            prop_assert!(IndexFile::decode(&random).is_none());
        }
    }
}
