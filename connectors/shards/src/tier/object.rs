//! An object: the records of one stream that one segment made visible, with a directory in front.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TMTIEROB` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | number of the segment |
//! | 16 | 16 | uuid of the store |
//! | 32 | 16 | id of the stream |
//! | 48 | 8 | bytes of the object |
//! | 56 | 8 | number of runs |
//! | 64 | 80 each | the runs, by shard and then by counter |
//! | | | frames, as they were in the log, run by run |
//!
//! | offset in a run | bytes | field |
//! |---|---|---|
//! | 0 | 8 | shard key |
//! | 8 | 16 | uuid of the segment where the frames were: their checksums are seeded with it |
//! | 24 | 4 | offset of the first frame there |
//! | 28 | 4 | kind: 0 records, 1 published (counters and arrival are those of the run) |
//! | 32 | 8 | offset in the object |
//! | 40 | 8 | bytes |
//! | 48 | 8 | counter of the first record |
//! | 56 | 8 | counter of the last record |
//! | 64 | 8 | arrival of the first record, milliseconds since 1970 |
//! | 72 | 8 | arrival of the last record |
//!
//! Header and runs are checked by a CRC32C that the log holds; frames have checksums of their own.

use std::collections::BTreeMap;

use crate::ids::{SegmentNumber, ShardKey, Uuid};
use crate::index::{EntryKind, IndexEntry};

const MAGIC: [u8; 8] = *b"TMTIEROB";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const RUN_BYTES: usize = 80;

/// Adjacent frames of one shard in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) shard: ShardKey,
    pub(crate) origin: Uuid,
    pub(crate) origin_offset: u32,
    pub(crate) published: bool,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) first_arrival_ms: u64,
    pub(crate) last_arrival_ms: u64,
}

/// Puts an object together from its runs and their frames; fills in where each run lies. Returns the object and the
/// bytes of its directory.
pub(crate) fn encode(
    segment: SegmentNumber,
    store: Uuid,
    stream: Uuid,
    mut runs: Vec<(Run, Vec<u8>)>,
) -> (Vec<u8>, usize, Vec<Run>) {
    runs.sort_by_key(|(run, _)| (run.shard, run.first));
    let directory = HEADER_BYTES + runs.len() * RUN_BYTES;
    let total = directory + runs.iter().map(|(_, frames)| frames.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&segment.0.to_le_bytes());
    bytes.extend_from_slice(&store.0);
    bytes.extend_from_slice(&stream.0);
    bytes.extend_from_slice(&(total as u64).to_le_bytes());
    bytes.extend_from_slice(&(runs.len() as u64).to_le_bytes());
    let mut offset = directory as u64;
    for (run, frames) in &mut runs {
        run.offset = offset;
        run.len = frames.len() as u64;
        offset += run.len;
        bytes.extend_from_slice(&run.shard.0.to_le_bytes());
        bytes.extend_from_slice(&run.origin.0);
        bytes.extend_from_slice(&run.origin_offset.to_le_bytes());
        bytes.extend_from_slice(&u32::from(run.published).to_le_bytes());
        let numbers = [
            run.offset,
            run.len,
            run.first,
            run.last,
            run.first_arrival_ms,
            run.last_arrival_ms,
        ];
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    for (_, frames) in &runs {
        bytes.extend_from_slice(frames);
    }
    (bytes, directory, runs.into_iter().map(|(run, _)| run).collect())
}

/// Reads the directory of an object of `total` bytes. `None` when it is not one of this version that fits.
pub(crate) fn directory(bytes: &[u8], total: u64) -> Option<Vec<Run>> {
    if bytes.get(..8)? != MAGIC || u32_at(bytes, 8)? != VERSION || u64_at(bytes, 48)? != total {
        return None;
    }
    let runs = bytes.get(HEADER_BYTES..)?;
    if runs.len() != (u64_at(bytes, 56)? as usize).checked_mul(RUN_BYTES)? {
        return None;
    }
    runs.chunks_exact(RUN_BYTES)
        .map(|run| {
            let (offset, len) = (u64_at(run, 32)?, u64_at(run, 40)?);
            let fits = offset >= bytes.len() as u64 && offset.checked_add(len)? <= total && len <= u64::from(u32::MAX);
            fits.then_some(Run {
                shard: ShardKey(u64_at(run, 0)?),
                origin: Uuid(run.get(8..24)?.try_into().ok()?),
                origin_offset: u32_at(run, 24)?,
                published: u32_at(run, 28)? == 1,
                offset,
                len,
                first: u64_at(run, 48)?,
                last: u64_at(run, 56)?,
                first_arrival_ms: u64_at(run, 64)?,
                last_arrival_ms: u64_at(run, 72)?,
            })
        })
        .collect()
}

/// One entry for each shard of an object.
pub(crate) fn summarise(segment: SegmentNumber, runs: &[Run]) -> Vec<(ShardKey, IndexEntry)> {
    let mut shards: BTreeMap<ShardKey, IndexEntry> = BTreeMap::new();
    for run in runs {
        let entry = shards.entry(run.shard).or_insert(IndexEntry {
            segment,
            kind: EntryKind::Tiered,
            offset: 0,
            len: 0,
            first: run.first,
            last: run.last,
            first_arrival_ms: run.first_arrival_ms,
            last_arrival_ms: run.last_arrival_ms,
        });
        entry.len = entry.len.saturating_add(run.len as u32);
        entry.last = run.last;
        entry.last_arrival_ms = run.last_arrival_ms;
    }
    shards.into_iter().collect()
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
    use proptest::prelude::*;

    fn run(shard: u64, first: u64) -> Run {
        Run {
            shard: ShardKey(shard),
            origin: Uuid([7; 16]),
            origin_offset: 64,
            published: first == 5,
            offset: 0,
            len: 0,
            first,
            last: first + 3,
            first_arrival_ms: first * 10,
            last_arrival_ms: first * 10 + 9,
        }
    }

    fn sample() -> (Vec<u8>, usize, Vec<Run>) {
        let runs = vec![
            (run(2, 1), vec![1; 10]),
            (run(1, 5), vec![2; 20]),
            (run(1, 1), vec![3; 30]),
        ];
        encode(SegmentNumber(3), Uuid([1; 16]), Uuid([2; 16]), runs)
    }

    #[test]
    fn layout_is_the_table() {
        let (bytes, directory_bytes, runs) = sample();
        assert_eq!(&bytes[..8], b"TMTIEROB");
        assert_eq!(bytes[8..16], [1, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!((bytes.len(), directory_bytes), (64 + 3 * 80 + 60, 64 + 3 * 80));
        assert_eq!(bytes[64..72], 1u64.to_le_bytes(), "by shard, then by counter");
        assert_eq!(bytes[64 + 48..64 + 56], 1u64.to_le_bytes());
        assert_eq!(
            directory(&bytes[..directory_bytes], bytes.len() as u64),
            Some(runs.clone())
        );
        assert_eq!(bytes[runs[1].offset as usize..][..runs[1].len as usize], [2; 20]);
        let summary = summarise(SegmentNumber(3), &runs);
        assert_eq!(summary.len(), 2);
        assert_eq!((summary[0].1.first, summary[0].1.last, summary[0].1.len), (1, 8, 50));
        assert_eq!((summary[0].1.first_arrival_ms, summary[0].1.last_arrival_ms), (10, 59));
    }

    proptest! {
        #[test]
        fn random_and_cut_bytes_are_refused(random in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..304, at in 0usize..304, flip in any::<u8>()) {
            prop_assert!(directory(&random, random.len() as u64).is_none());
            let (mut bytes, length, _) = sample();
            prop_assert!(directory(&bytes[..cut], bytes.len() as u64).is_none());
            // Whatever a flipped byte says, no run lies outside the object.
            bytes[at] ^= flip;
            for run in directory(&bytes[..length], bytes.len() as u64).unwrap_or_default() {
                prop_assert!(run.offset + run.len <= bytes.len() as u64);
            }
        }
    }
}
