//! What refers to each segment of the log, kept up to date by the writer.
//!
//! | a segment is needed because | counted as |
//! |---|---|
//! | visible records lie in it | `live_bytes`: bytes of index entries that point there |
//! | it says that records of an older segment were published | `published`: per shard the last such record |
//! | it holds staged output that may still be published | `staged` |

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::ids::{SegmentNumber, ShardKey};
use crate::index::{EntryKind, IndexEntry};

/// Staged frames of one sink and checkpoint in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StagedGroup {
    /// Whose they are.
    pub(crate) sink_hash: u64,
    pub(crate) checkpoint: u64,
    /// Bytes of the frames.
    pub(crate) bytes: u64,
    /// When the last of them was written.
    pub(crate) last_ms: u64,
}

/// The staged frames of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StagedGroups(pub(crate) Vec<StagedGroup>);

impl StagedGroups {
    /// Takes note of frames.
    pub(crate) fn add(&mut self, group: StagedGroup) {
        let known = self
            .0
            .iter_mut()
            .rev()
            .find(|known| (known.sink_hash, known.checkpoint) == (group.sink_hash, group.checkpoint));
        match known {
            Some(known) => {
                known.bytes += group.bytes;
                known.last_ms = known.last_ms.max(group.last_ms);
            }
            None => self.0.push(group),
        }
    }
}

#[derive(Debug, Default)]
struct SegmentUse {
    live_bytes: u64,
    published: HashMap<ShardKey, u64>,
    staged: StagedGroups,
}

/// Why a segment is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Visible records lie in it.
    Records,
    /// It says where visible records lie.
    Published,
    /// Staged output of this age is neither published nor given up.
    Staged {
        sink_hash: u64,
        checkpoint: u64,
        age_ms: u64,
    },
}

/// What refers to each segment.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<SegmentNumber, SegmentUse>);

impl Ledger {
    /// Takes note of a segment, so that it is known even when nothing refers to it.
    pub(crate) fn know(&mut self, segment: SegmentNumber) {
        self.0.entry(segment).or_default();
    }

    /// Whether the segment exists, as far as metadata goes.
    pub(crate) fn contains(&self, segment: SegmentNumber) -> bool {
        self.0.contains_key(&segment)
    }

    /// The segments from the oldest.
    pub(crate) fn segments(&self) -> impl Iterator<Item = SegmentNumber> {
        self.0.keys().copied()
    }

    /// Takes note of a visible entry.
    pub(crate) fn add(&mut self, entry: &IndexEntry) {
        if entry.kind == EntryKind::Tiered {
            return;
        }
        self.0.entry(entry.segment).or_default().live_bytes += u64::from(entry.len.max(1));
    }

    /// Takes note that a frame of segment `home` made an entry of another segment visible.
    pub(crate) fn publish(&mut self, home: SegmentNumber, shard: ShardKey, entry: &IndexEntry) {
        if entry.kind == EntryKind::Published && entry.segment != home {
            let last = self.0.entry(home).or_default().published.entry(shard).or_default();
            *last = (*last).max(entry.last);
        }
    }

    /// Takes note that an entry is visible no more.
    pub(crate) fn release(&mut self, entry: &IndexEntry) {
        if entry.kind != EntryKind::Tiered
            && let Some(known) = self.0.get_mut(&entry.segment)
        {
            known.live_bytes = known.live_bytes.saturating_sub(u64::from(entry.len.max(1)));
        }
    }

    /// Takes note of staged frames.
    pub(crate) fn stage(&mut self, segment: SegmentNumber, group: StagedGroup) {
        self.0.entry(segment).or_default().staged.add(group);
    }

    /// The staged frames of a segment, for its index file.
    pub(crate) fn staged(&self, segment: SegmentNumber) -> StagedGroups {
        self.0
            .get(&segment)
            .map(|known| known.staged.clone())
            .unwrap_or_default()
    }

    /// The last records of other segments that frames of this one made visible, by shard.
    pub(crate) fn published(&self, segment: SegmentNumber) -> HashMap<ShardKey, u64> {
        self.0
            .get(&segment)
            .map(|known| known.published.clone())
            .unwrap_or_default()
    }

    /// What the segment tells of other segments is told by objects now.
    pub(crate) fn unpublish(&mut self, segment: SegmentNumber) {
        if let Some(known) = self.0.get_mut(&segment) {
            known.published.clear();
        }
    }

    /// The segment is gone.
    pub(crate) fn remove(&mut self, segment: SegmentNumber) {
        self.0.remove(&segment);
    }

    /// Why a segment must be kept; `None` when nothing needs it. `live` tells whether a shard's record is visible,
    /// `settled` whether a sink has published this checkpoint or a newer one.
    pub(crate) fn pin(
        &mut self,
        segment: SegmentNumber,
        live: impl Fn(ShardKey, u64) -> bool,
        settled: impl Fn(u64, u64) -> bool,
        now_ms: u64,
        staged_retention_ms: u64,
    ) -> Option<Pin> {
        let known = self.0.get_mut(&segment)?;
        if known.live_bytes > 0 {
            return Some(Pin::Records);
        }
        known.published.retain(|shard, last| live(*shard, *last));
        if !known.published.is_empty() {
            return Some(Pin::Published);
        }
        // What is given up stays so: were a group taken out here, a later look could not tell why it is not there.
        known.staged.0.iter().find_map(|group| {
            let age_ms = now_ms.saturating_sub(group.last_ms);
            let dead = settled(group.sink_hash, group.checkpoint) || age_ms > staged_retention_ms;
            (!dead).then_some(Pin::Staged {
                sink_hash: group.sink_hash,
                checkpoint: group.checkpoint,
                age_ms,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, segment: u32, last: u64) -> IndexEntry {
        IndexEntry {
            segment: SegmentNumber(segment),
            kind,
            offset: 64,
            len: 100,
            first: 1,
            last,
            first_arrival_ms: 0,
            last_arrival_ms: 0,
        }
    }

    const ONE: SegmentNumber = SegmentNumber(1);
    const TWO: SegmentNumber = SegmentNumber(2);

    fn pin(ledger: &mut Ledger, segment: SegmentNumber, floor: u64, settled: u64, now_ms: u64) -> Option<Pin> {
        ledger.pin(
            segment,
            |_, last| last > floor,
            |_, checkpoint| checkpoint <= settled,
            now_ms,
            1_000,
        )
    }

    #[test]
    fn every_reason_to_keep_a_segment() {
        let mut ledger = Ledger::default();
        ledger.know(ONE);
        assert_eq!(pin(&mut ledger, ONE, 0, 0, 0), None, "nothing refers to it");

        let records = entry(EntryKind::Records, 1, 5);
        ledger.add(&records);
        ledger.publish(ONE, ShardKey(7), &records);
        assert_eq!(pin(&mut ledger, ONE, 0, 0, 0), Some(Pin::Records));
        ledger.release(&records);
        assert_eq!(pin(&mut ledger, ONE, 0, 0, 0), None);

        // Staged in segment 1, published by a frame of segment 2.
        let group = StagedGroup {
            sink_hash: 9,
            checkpoint: 3,
            bytes: 100,
            last_ms: 50,
        };
        ledger.stage(ONE, group);
        let staged = Pin::Staged {
            sink_hash: 9,
            checkpoint: 3,
            age_ms: 1_000,
        };
        assert_eq!(pin(&mut ledger, ONE, 0, 2, 1_050), Some(staged));
        assert_eq!(pin(&mut ledger, ONE, 0, 2, 1_051), None, "too old");
        assert_eq!(
            pin(&mut ledger, ONE, 0, 3, 60),
            None,
            "published, or replaced by a newer checkpoint"
        );
        let published = entry(EntryKind::Published, 1, 8);
        ledger.add(&published);
        ledger.publish(TWO, ShardKey(7), &published);
        assert_eq!(pin(&mut ledger, ONE, 0, 3, 60), Some(Pin::Records));
        assert_eq!(pin(&mut ledger, TWO, 7, 3, 60), Some(Pin::Published));
        ledger.release(&published);
        assert_eq!(pin(&mut ledger, ONE, 8, 3, 60), None);
        assert_eq!(pin(&mut ledger, TWO, 8, 3, 60), None);
    }

    #[test]
    fn frames_of_a_sink_and_checkpoint_are_one_group() {
        let mut groups = StagedGroups::default();
        for (checkpoint, last_ms) in [(1, 10), (2, 20), (1, 5)] {
            groups.add(StagedGroup {
                sink_hash: 1,
                checkpoint,
                bytes: 8,
                last_ms,
            });
        }
        assert_eq!(groups.0.len(), 2);
        assert_eq!((groups.0[0].bytes, groups.0[0].last_ms), (16, 10));
    }
}
