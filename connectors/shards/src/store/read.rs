//! Reading: from a starting point to a position, from a position to extents, from extents to records.

use std::sync::Arc;

use super::ShardStore;
use crate::access::{Located, ObjectPlace, Position, ReadBatch, ReadFrom, ReadLimits, ShardRef};
use crate::error::StoreError;
use crate::ids::Uuid;
use crate::index::{EntryKind, IndexEntry};
use crate::limits::{self, RELOCATE_MAX};
use crate::reader::{damaged, extent_of, first_at};
use crate::sequence::SequenceNumber;
use crate::view::{ShardView, read};

impl ShardStore {
    /// Turns a starting point into a position. `AtTimestamp` may wait for the disk.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`], [`StoreError::ShardNotFound`]; [`StoreError::ForeignPosition`] when a sequence
    /// number is of another shard.
    pub fn resolve(&self, shard: &ShardRef, from: ReadFrom) -> Result<Position, StoreError> {
        let stream = self.stream(&shard.stream)?;
        let view = stream.shard(shard.shard)?;
        let counter = match from {
            ReadFrom::TrimHorizon => 0,
            ReadFrom::Latest => read(&view.index).end(),
            ReadFrom::AtTimestamp(time_ms) => {
                let horizon_ms = stream.meta.trim_horizon_ms(self.trusted_ms());
                self.at_time(shard, view, time_ms.max(horizon_ms))?
            }
            ReadFrom::At(sequence) => own(shard, view, sequence)?.counter,
            ReadFrom::After(sequence) => own(shard, view, sequence)?.counter + 1,
        };
        Ok(Position {
            shard: view.meta.key,
            counter,
        })
    }

    /// Tells where the next records lie: committed ranges only, and nothing that has expired. Never waits.
    ///
    /// The files of extents may be removed once their records have expired: whoever finds one missing asks again.
    ///
    /// # Errors
    /// As [`Self::resolve`], and [`StoreError::Corrupt`] when the next record is known to be damaged.
    pub fn locate(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<Located, StoreError> {
        let stream = self.stream(&shard.stream)?;
        let view = stream.shard(shard.shard)?;
        if view.meta.key != from.shard {
            return Err(StoreError::ForeignPosition {
                stream: shard.stream.clone(),
                shard: shard.shard,
                reason: format!(
                    "it is of {}, this is {}; a stream of this name was deleted",
                    from.shard, view.meta.key
                ),
            });
        }
        let trim_before_ms = stream.meta.trim_horizon_ms(self.trusted_ms());
        let mut entries: Vec<(IndexEntry, Uuid, Option<ObjectPlace>)> = Vec::new();
        let (end, expired) = {
            let index = read(&view.index);
            let removed = from.counter <= index.floor();
            let expired = from.counter > 0 && (removed || index.has_expired(from.counter, trim_before_ms));
            let (mut records, mut bytes) = (0u64, 0usize);
            let begin = from.counter.max(index.floor() + 1);
            for entry in index.live(begin, trim_before_ms) {
                if entry.kind == EntryKind::Damaged {
                    if entries.is_empty() {
                        let id = shard.shard.to_string();
                        return Err(damaged(entry, shard.stream.as_str(), view.meta.key, &id));
                    }
                    break;
                }
                // Under the lock: what is in the index has a segment.
                let (uuid, object) = if entry.kind == EntryKind::Tiered {
                    let object = self.view().object(entry.segment, stream.meta.id);
                    (Uuid([0; 16]), Some(object.ok_or(StoreError::Closed)?))
                } else {
                    (self.view().segment(entry.segment).ok_or(StoreError::Closed)?, None)
                };
                entries.push((*entry, uuid, object));
                // Only what lies behind the position counts; of the first extent at least one record.
                let first = entry.first.max(begin);
                records += entry.last - first + 1;
                bytes += if first == entry.first { entry.len as usize } else { 0 };
                let enough = records >= limits.records_max as u64 || bytes >= limits.bytes_max;
                if enough || entries.len() >= limits::LOCATE_EXTENTS_MAX {
                    break;
                }
            }
            (index.end(), expired)
        };
        let extents = entries
            .into_iter()
            .map(|(entry, uuid, object)| extent_of(&entry, uuid, object))
            .collect();
        Ok(Located {
            shard: view.meta.clone(),
            stream: shard.stream.clone(),
            from,
            extents,
            latest: Position {
                shard: view.meta.key,
                counter: end,
            },
            trim_before_ms,
            expired,
            closed: !view.meta.is_open(),
            now_ms: self.now_ms(),
        })
    }

    /// The first position of a shard that can still be read: everything before is older than the stream's retention, and
    /// may be removed. It names the first record of an extent, so a few records from there on may be older too.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`], [`StoreError::ShardNotFound`].
    pub fn trim_horizon(&self, shard: &ShardRef) -> Result<Position, StoreError> {
        let stream = self.stream(&shard.stream)?;
        let view = stream.shard(shard.shard)?;
        Ok(Position {
            shard: view.meta.key,
            counter: view.first_live(stream.meta.trim_horizon_ms(self.trusted_ms())),
        })
    }

    /// Reads the next records. May wait for the disk; never for the writer.
    ///
    /// # Errors
    /// As [`Self::locate`].
    pub fn read(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<ReadBatch, StoreError> {
        let mut tries = 0;
        loop {
            let located = self.locate(shard, from, limits)?;
            match self.0.reader.read(&located, limits) {
                // Its segment expired and was removed in between.
                Err(_) if tries < RELOCATE_MAX && self.is_outdated(&located) => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// Whether an extent lies in a segment that has been removed since.
    fn is_outdated(&self, located: &Located) -> bool {
        let mut extents = located.extents.iter();
        extents.any(|extent| match &extent.object {
            Some(object) => !self.view().has_object(extent.segment, &object.name),
            None => self.view().segment(extent.segment) != Some(extent.segment_uuid),
        })
    }

    /// The time by which records expire.
    pub(crate) fn trusted_ms(&self) -> u64 {
        self.view().trusted_ms(&*self.0.environment.clock)
    }

    /// The first record of a tiered extent that arrived at `time_ms` or later, without reading all of the extent.
    fn at_time_tiered(&self, mut located: Located, time_ms: u64) -> Result<u64, StoreError> {
        let Some(extent) = located.extents.first().cloned() else {
            return Ok(located.latest.counter);
        };
        let Some(first) = self.0.reader.run_at(&extent, &located, time_ms)? else {
            return Ok(extent.last + 1);
        };
        located.from.counter = first;
        while located.from.counter <= extent.last {
            let some = ReadLimits {
                records_max: limits::GET_RECORDS_MAX,
                bytes_max: limits::TIER_READ_BYTES_MIN as usize,
            };
            let batch = self.0.reader.read(&located, some)?;
            if let Some(found) = batch.records.iter().find(|record| record.arrival_ms >= time_ms) {
                return Ok(found.sequence.counter);
            }
            if batch.next <= located.from {
                break;
            }
            located.from = batch.next;
        }
        Ok(extent.last + 1)
    }

    fn at_time(&self, shard: &ShardRef, view: &Arc<ShardView>, time_ms: u64) -> Result<u64, StoreError> {
        let (entry, end) = {
            let index = read(&view.index);
            (index.at_time(time_ms).copied(), index.end())
        };
        let Some(entry) = entry else { return Ok(end) };
        let spans = matches!(entry.kind, EntryKind::Records | EntryKind::Tiered);
        if entry.first_arrival_ms >= time_ms || !spans {
            return Ok(entry.first);
        }
        let from = Position {
            shard: view.meta.key,
            counter: entry.first,
        };
        let mut located = self.locate(
            shard,
            from,
            ReadLimits {
                records_max: 1,
                bytes_max: 1,
            },
        )?;
        located.extents.truncate(1);
        if entry.kind == EntryKind::Tiered {
            return self.at_time_tiered(located, time_ms);
        }
        Ok(first_at(&self.0.reader, &located, time_ms)?.unwrap_or(entry.last + 1))
    }
}

/// Checks that a sequence number is of this shard.
fn own(shard: &ShardRef, view: &ShardView, sequence: SequenceNumber) -> Result<SequenceNumber, StoreError> {
    let start = view.meta.starting_sequence();
    let foreign = |reason: String| StoreError::ForeignPosition {
        stream: shard.stream.clone(),
        shard: shard.shard,
        reason,
    };
    if sequence.shard_index != start.shard_index {
        return Err(foreign(format!(
            "it encodes {}",
            crate::ids::ShardId(sequence.shard_index)
        )));
    }
    if sequence.shard_created_s != start.shard_created_s {
        return Err(foreign("it did not come from this stream".to_owned()));
    }
    Ok(sequence)
}
