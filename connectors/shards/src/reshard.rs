//! Splitting and merging: pure decisions on the open shards of a stream.
//!
//! ```text
//!   0 ────────────── A ──────────────▶ end          split A at x         A closed, children B and C
//!   0 ───── B ─────▶ x ────── C ─────▶ end          merge B with C       B and C closed, child D
//! ```
//! A [`Reshard`] collects any number of such steps; the result is one [`ShardChange`], which takes effect as a whole. The
//! steps of one change happen at one moment, so a shard between two steps is created and closed at that moment and never
//! holds a record; it is there because every shard has at most two parents.
//!
//! Invariants
//! - The open shards tile the hash space, before and after.
//! - Ids and keys rise, so children have greater ones than their parents.
//! - A parent is closed when, and not before, its children are created, and not before its last record arrived.
//! - The sequence numbers of children are greater than those of their parents.

use std::collections::BTreeMap;

use crate::error::StoreError;
use crate::hashkey::{HashKey, HashRange};
use crate::ids::{ShardId, ShardKey};
use crate::stream::{ShardMeta, StreamMeta};

/// Shards that are closed and created at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardChange {
    /// Shards that were open, in the order of their ids.
    pub(crate) closed: Vec<ShardKey>,
    /// New shards in the order of their ids; some are closed already.
    pub(crate) created: Vec<ShardMeta>,
}

/// Collects splits and merges.
#[derive(Debug)]
pub(crate) struct Reshard<'a> {
    stream: &'a StreamMeta,
    at_ms: u64,
    next_key: ShardKey,
    first_id: u32,
    /// Open shards by the start of their range.
    open: BTreeMap<HashKey, ShardMeta>,
    closed: Vec<ShardKey>,
    created: Vec<ShardMeta>,
}

impl<'a> Reshard<'a> {
    /// Begins a change of `stream` at `at_ms`, which is not before the last arrival in the shards that it closes.
    /// `next_key` is the store's next shard key.
    pub(crate) fn new(stream: &'a StreamMeta, at_ms: u64, next_key: ShardKey) -> Self {
        Self {
            stream,
            at_ms,
            next_key,
            // The newest shard is always there: it is open, for only a newer one closes it.
            first_id: stream.shards.last().map_or(0, |shard| shard.id.0 + 1),
            open: stream
                .open_shards()
                .map(|shard| (shard.hash_range.start, shard.clone()))
                .collect(),
            closed: Vec::new(),
            created: Vec::new(),
        }
    }

    /// What it comes to.
    pub(crate) fn finish(mut self) -> ShardChange {
        self.closed.sort_unstable();
        ShardChange {
            closed: self.closed,
            created: self.created,
        }
    }

    /// Number of open shards now.
    pub(crate) fn open_shards(&self) -> u32 {
        self.open.len() as u32
    }

    /// Splits a shard as a user asks for it.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::ShardClosed`], [`StoreError::SplitPoint`].
    pub(crate) fn split(&mut self, shard: ShardId, at: HashKey) -> Result<(), StoreError> {
        let range = self.open_shard(shard)?.hash_range;
        // The service's own rule; a child of one hash key at the start is refused too.
        if at.0 <= range.start.0.saturating_add(1) || at >= range.end {
            return Err(StoreError::SplitPoint {
                stream: self.stream.name.clone(),
                shard,
                at,
                range,
            });
        }
        self.cut(range.start, at);
        Ok(())
    }

    /// Merges two neighbours as a user asks for it.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::ShardClosed`], [`StoreError::NotAdjacent`].
    pub(crate) fn merge(&mut self, shard: ShardId, adjacent: ShardId) -> Result<(), StoreError> {
        let one = self.open_shard(shard)?.hash_range;
        let other = self.open_shard(adjacent)?.hash_range;
        let adjoin = |left: HashRange, right: HashRange| left.end.0.checked_add(1) == Some(right.start.0);
        if !adjoin(one, other) && !adjoin(other, one) {
            return Err(StoreError::NotAdjacent {
                stream: self.stream.name.clone(),
                shard,
                adjacent,
            });
        }
        self.join(one.start, other.start);
        Ok(())
    }

    /// Brings the stream to `count` shards of equal size: first every missing boundary is made by a split, then what
    /// lies between two boundaries is merged.
    pub(crate) fn scale(&mut self, count: u32) {
        let tiles: Vec<HashRange> = HashRange::tiles(count.max(1)).collect();
        for tile in &tiles {
            let holder = self.open.range(..=tile.start).next_back();
            if let Some((&start, _)) = holder.filter(|(start, _)| **start != tile.start) {
                self.cut(start, tile.start);
            }
        }
        for tile in &tiles {
            while let Some(first) = self
                .open
                .get(&tile.start)
                .filter(|first| first.hash_range.end < tile.end)
            {
                let next = HashKey(first.hash_range.end.0 + 1);
                self.join(tile.start, next);
            }
        }
    }

    fn open_shard(&self, id: ShardId) -> Result<&ShardMeta, StoreError> {
        let stream = || self.stream.name.clone();
        let Some(shard) = self.stream.shard(id) else {
            return Err(StoreError::ShardNotFound {
                stream: stream(),
                shard: id,
            });
        };
        self.open
            .get(&shard.hash_range.start)
            .filter(|open| open.id == id)
            .ok_or_else(|| StoreError::ShardClosed {
                stream: stream(),
                shard: id,
            })
    }

    /// Replaces the shard that starts at `start` by two, the second of which starts at `at`.
    fn cut(&mut self, start: HashKey, at: HashKey) {
        let Some(parent) = self.close(start) else { return };
        let HashRange { start, end } = parent.hash_range;
        let left = HashRange {
            start,
            end: HashKey(at.0 - 1),
        };
        self.create(left, &parent, None);
        self.create(HashRange { start: at, end }, &parent, None);
    }

    /// Replaces two neighbours by one. `first` is the one whose name the child's ParentShardId gets.
    fn join(&mut self, first: HashKey, second: HashKey) {
        let (Some(parent), Some(adjacent)) = (self.close(first), self.close(second)) else {
            return;
        };
        let range = HashRange {
            start: parent.hash_range.start.min(adjacent.hash_range.start),
            end: parent.hash_range.end.max(adjacent.hash_range.end),
        };
        self.create(range, &parent, Some(&adjacent));
    }

    fn close(&mut self, start: HashKey) -> Option<ShardMeta> {
        let shard = self.open.remove(&start)?;
        match shard.id.0.checked_sub(self.first_id) {
            // Created by this change.
            Some(index) => self.created[index as usize].closed_ms = Some(self.at_ms),
            None => self.closed.push(shard.key),
        }
        Some(shard)
    }

    fn create(&mut self, hash_range: HashRange, parent: &ShardMeta, adjacent: Option<&ShardMeta>) {
        let index = self.created.len() as u32;
        let newest = adjacent.map_or(0, ShardMeta::sequence_created_s);
        let created_s = parent.sequence_created_s().max(newest) + 1;
        let shard = ShardMeta {
            key: ShardKey(self.next_key.0 + u64::from(index)),
            id: ShardId(self.first_id + index),
            hash_range,
            created_ms: self.at_ms,
            parent: Some(parent.id),
            adjacent_parent: adjacent.map(|shard| shard.id),
            closed_ms: None,
            sequence_created_s: (created_s > self.at_ms / 1000).then_some(created_s),
        };
        self.open.insert(hash_range.start, shard.clone());
        self.created.push(shard);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stream::tests::stream;

    const AT_MS: u64 = 9_000_000;

    /// Applies a change to a stream, and checks what must hold for every change.
    fn applied(stream: &StreamMeta, change: &ShardChange) -> StreamMeta {
        let mut after = stream.clone();
        for key in &change.closed {
            let shard = after.shards.iter_mut().find(|shard| shard.key == *key).unwrap();
            assert!(shard.is_open());
            shard.closed_ms = Some(AT_MS);
        }
        after.shards.extend(change.created.iter().cloned());
        let mut open: Vec<HashRange> = after.open_shards().map(|shard| shard.hash_range).collect();
        open.sort_by_key(|range| range.start);
        assert_eq!(open[0].start.0, 0);
        assert_eq!(open.last().unwrap().end.0, u128::MAX);
        assert!(open.windows(2).all(|pair| pair[0].end.0 + 1 == pair[1].start.0));
        assert!(
            after
                .shards
                .windows(2)
                .all(|pair| pair[0].id < pair[1].id && pair[0].key < pair[1].key)
        );
        for child in &change.created {
            let parents: Vec<&ShardMeta> = child
                .parent
                .iter()
                .chain(&child.adjacent_parent)
                .map(|id| after.shard(*id).unwrap())
                .collect();
            assert!(!parents.is_empty());
            for parent in &parents {
                assert_eq!(parent.closed_ms, Some(AT_MS));
                assert!(parent.ending_sequence().unwrap() < child.starting_sequence());
            }
            let covered = |key: HashKey| parents.iter().any(|parent| parent.hash_range.contains(key));
            assert!(covered(child.hash_range.start) && covered(child.hash_range.end));
        }
        after
    }

    fn reshard(stream: &StreamMeta, work: impl FnOnce(&mut Reshard<'_>)) -> StreamMeta {
        let next_key = ShardKey(stream.shards.last().unwrap().key.0 + 1);
        let mut reshard = Reshard::new(stream, AT_MS, next_key);
        work(&mut reshard);
        applied(stream, &reshard.finish())
    }

    fn describe(stream: &StreamMeta) -> Vec<String> {
        let text = |shard: &ShardMeta| {
            let parents: Vec<String> = shard
                .parent
                .iter()
                .chain(&shard.adjacent_parent)
                .map(|id| id.0.to_string())
                .collect();
            let state = if shard.is_open() { "open" } else { "closed" };
            format!(
                "{} {state} from {:x} of [{}]",
                shard.id.0,
                shard.hash_range.start.0 >> 124,
                parents.join(",")
            )
        };
        stream.shards.iter().map(text).collect()
    }

    #[test]
    fn split_closes_the_parent_and_creates_two_children() {
        let before = stream(2);
        let after = reshard(&before, |reshard| {
            reshard.split(ShardId(1), HashKey(0xc << 124)).unwrap();
            assert_eq!(reshard.open_shards(), 3);
        });
        assert_eq!(
            describe(&after),
            [
                "0 open from 0 of []",
                "1 closed from 8 of []",
                "2 open from 8 of [1]",
                "3 open from c of [1]"
            ]
        );
    }

    #[test]
    fn merge_names_both_parents_in_the_order_of_the_request() {
        let before = stream(4);
        let after = reshard(&before, |reshard| reshard.merge(ShardId(2), ShardId(1)).unwrap());
        assert_eq!(after.shards[4].parent, Some(ShardId(2)));
        assert_eq!(after.shards[4].adjacent_parent, Some(ShardId(1)));
        assert_eq!(after.shards[4].hash_range.start, before.shards[1].hash_range.start);
        assert_eq!(after.shards[4].hash_range.end, before.shards[2].hash_range.end);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let before = stream(3);
        let mut reshard = Reshard::new(&before, AT_MS, ShardKey(50));
        let range = before.shards[1].hash_range;
        for at in [0, range.start.0, range.start.0 + 1, range.end.0, u128::MAX] {
            let error = reshard.split(ShardId(1), HashKey(at)).unwrap_err();
            assert!(matches!(error, StoreError::SplitPoint { .. }), "{at}");
        }
        for (one, other) in [(0, 2), (1, 1), (2, 0)] {
            let error = reshard.merge(ShardId(one), ShardId(other)).unwrap_err();
            assert!(matches!(error, StoreError::NotAdjacent { .. }), "{one} {other}");
        }
        assert!(matches!(
            reshard.merge(ShardId(0), ShardId(9)),
            Err(StoreError::ShardNotFound { .. })
        ));
        assert_eq!(
            reshard.finish(),
            ShardChange {
                closed: Vec::new(),
                created: Vec::new()
            }
        );
        let after = self::reshard(&before, |reshard| reshard.split(ShardId(0), HashKey(2)).unwrap());
        let mut reshard = Reshard::new(&after, AT_MS, ShardKey(50));
        assert!(matches!(
            reshard.split(ShardId(0), HashKey(5)),
            Err(StoreError::ShardClosed { .. })
        ));
        assert!(matches!(
            reshard.merge(ShardId(0), ShardId(1)),
            Err(StoreError::ShardClosed { .. })
        ));
    }

    #[test]
    fn scaling_splits_where_a_boundary_is_missing_and_merges_the_rest() {
        let doubled = reshard(&stream(1), |reshard| reshard.scale(2));
        assert_eq!(
            describe(&doubled),
            ["0 closed from 0 of []", "1 open from 0 of [0]", "2 open from 8 of [0]"]
        );
        let halved = reshard(&doubled, |reshard| reshard.scale(1));
        assert_eq!(describe(&halved)[3], "3 open from 0 of [1,2]");
        let three = reshard(&stream(2), |reshard| reshard.scale(3));
        assert_eq!(
            describe(&three),
            [
                "0 closed from 0 of []",
                "1 closed from 8 of []",
                "2 open from 0 of [0]",
                "3 closed from 5 of [0]",
                "4 closed from 8 of [1]",
                "5 open from a of [1]",
                "6 open from 5 of [3,4]",
            ]
        );
        let same = reshard(&stream(5), |reshard| reshard.scale(5));
        assert_eq!(same, stream(5));
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_the_invariants(count in 1u32..6, steps in prop::collection::vec((0u8..3, any::<u32>(), any::<u128>()), 1..12)) {
            let mut current = stream(count);
            for (kind, pick, at) in steps {
                let open: Vec<ShardId> = {
                    let mut open: Vec<&ShardMeta> = current.open_shards().collect();
                    open.sort_by_key(|shard| shard.hash_range.start);
                    open.iter().map(|shard| shard.id).collect()
                };
                let at_index = pick as usize % open.len();
                current = reshard(&current, |reshard| match kind {
                    0 => drop(reshard.split(open[at_index], HashKey(at))),
                    1 if at_index + 1 < open.len() => reshard.merge(open[at_index], open[at_index + 1]).unwrap(),
                    _ => {
                        let target = pick % 8 + 1;
                        reshard.scale(target);
                        assert_eq!(reshard.open_shards(), target);
                    }
                });
            }
        }
    }
}
