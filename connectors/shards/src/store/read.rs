//! Reading: from a starting point to a position, from a position to extents, from extents to records.

use std::sync::Arc;

use super::ShardStore;
use crate::access::{Located, Position, ReadBatch, ReadFrom, ReadLimits, ShardRef};
use crate::error::StoreError;
use crate::index::{EntryKind, IndexEntry};
use crate::limits;
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
                let horizon_ms = stream.meta.trim_horizon_ms(self.now_ms());
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

    /// Tells where the next records lie: committed ranges only. Never waits.
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
        let now_ms = self.now_ms();
        let trim_before_ms = stream.meta.trim_horizon_ms(now_ms);
        let mut entries: Vec<IndexEntry> = Vec::new();
        let (end, expired) = {
            let index = read(&view.index);
            let expired = from.counter > 0 && index.has_expired(from.counter, trim_before_ms);
            let (mut records, mut bytes) = (0u64, 0usize);
            for entry in index.live(from.counter, trim_before_ms) {
                if entry.kind == EntryKind::Damaged {
                    if entries.is_empty() {
                        let id = shard.shard.to_string();
                        return Err(damaged(entry, shard.stream.as_str(), view.meta.key, &id));
                    }
                    break;
                }
                entries.push(*entry);
                // Only what lies behind the position counts; of the first extent at least one record.
                let first = entry.first.max(from.counter);
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
            .iter()
            .map(|entry| {
                let uuid = self.view().segment(entry.segment).ok_or(StoreError::Closed)?;
                Ok(extent_of(entry, uuid))
            })
            .collect::<Result<_, StoreError>>()?;
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
            now_ms,
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
            counter: view.first_live(stream.meta.trim_horizon_ms(self.now_ms())),
        })
    }

    /// Reads the next records. May wait for the disk; never for the writer.
    ///
    /// # Errors
    /// As [`Self::locate`].
    pub fn read(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<ReadBatch, StoreError> {
        self.0.reader.read(&self.locate(shard, from, limits)?, limits)
    }

    fn at_time(&self, shard: &ShardRef, view: &Arc<ShardView>, time_ms: u64) -> Result<u64, StoreError> {
        let (entry, end) = {
            let index = read(&view.index);
            (index.at_time(time_ms).copied(), index.end())
        };
        let Some(entry) = entry else { return Ok(end) };
        if entry.first_arrival_ms >= time_ms || entry.kind != EntryKind::Records {
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
