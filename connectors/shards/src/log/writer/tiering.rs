//! The writer's part of tiering: it alone writes down which objects may exist, which hold records, and which are gone.

use std::sync::atomic::Ordering;

use hashbrown::HashSet;

use super::Writer;
use crate::error::StoreError;
use crate::ids::{SegmentNumber, ShardKey, Uuid};
use crate::index::EntryKind;
use crate::limits;
use crate::log::frame::frame_len;
use crate::log::names;
use crate::state::Control;
use crate::tier::{Candidates, ObjectKey, Planned, Uploaded};
use crate::view::{Effect, read, write};

impl Writer {
    /// What may be moved, and what may be deleted.
    pub(super) fn tier_candidates(&mut self) -> Result<Candidates, StoreError> {
        self.sound()?;
        let end = self.removable_end();
        let segments = self.ledger.segments().take_while(|segment| *segment < end);
        let segments = segments
            .filter(|segment| self.state.tiered_of(*segment).is_empty())
            .collect();
        let bytes = self.options.segment_bytes;
        let excess = self.options.retention.disk_bytes_max.map_or(0, |bound| {
            let wanted = self.log_bytes() + limits::TIER_SEGMENTS_FREE * bytes;
            wanted.saturating_sub(bound).div_ceil(bytes)
        });
        Ok(Candidates {
            store: self.state.store,
            segments,
            excess: excess as usize,
            marked: self.state.tier_attempt > 0,
            garbage: (self.state.tier_garbage.iter().copied())
                .take(limits::TIER_CHANGE_OBJECTS_MAX)
                .collect(),
        })
    }

    /// Writes the names down that an upload will use.
    pub(super) fn tier_plan(&mut self, segment: SegmentNumber, streams: &[Uuid]) -> Result<Planned, StoreError> {
        let attempt = self.state.tier_attempt + 1;
        let key = |stream: &Uuid| ObjectKey {
            segment,
            attempt,
            stream: *stream,
        };
        let objects: Planned = streams.iter().map(key).collect();
        self.note(&[Control::TierPlanned {
            objects: objects.clone(),
        }])?;
        Ok(objects)
    }

    /// From now on the records of a segment are read from objects.
    pub(super) fn tier_done(&mut self, uploaded: Uploaded) -> Result<(), StoreError> {
        let Uploaded {
            segment,
            mut objects,
            entries,
        } = uploaded;
        // Streams that were deleted in between, and objects that are not those planned, stay garbage.
        let streams: HashSet<Uuid> = self.state.streams.values().map(|meta| meta.id).collect();
        objects.retain(|object| streams.contains(&object.key.stream) && self.state.tier_garbage.contains(&object.key));
        let known = self.ledger.contains(segment) && self.state.tiered_of(segment).is_empty();
        if objects.is_empty() || !known {
            return Ok(());
        }
        self.note(&[Control::Tiered {
            objects: objects.clone(),
        }])?;
        self.view.tier(&objects);
        for (shard, entry) in entries {
            let Some(name) = self.view.stream_of(shard) else {
                continue;
            };
            let Ok(stream) = self.view.stream(&name) else { continue };
            let Some(shard) = stream.shard_by_key(shard) else {
                continue;
            };
            let mut index = write(&shard.index);
            index.replace(entry).iter().for_each(|entry| self.ledger.release(entry));
            index.shrink();
        }
        self.ledger.unpublish(segment);
        tracing::info!(segment = %names::segment(segment), objects = objects.len(), "moved a log segment to the object store");
        self.expire()
    }

    /// Forgets objects that are deleted.
    pub(super) fn tier_deleted(&mut self, objects: Vec<ObjectKey>) -> Result<(), StoreError> {
        self.note(&[Control::TierDeleted { objects }])?;
        if !self.state.tier_garbage.is_empty() {
            self.view.wake_keeper();
        }
        self.tell_usage();
        Ok(())
    }

    /// Drops the objects in which no live record is left.
    pub(super) fn drop_objects(&mut self, now: u64) -> Result<(), StoreError> {
        if self.state.tiered.is_empty() {
            return Ok(());
        }
        let mut needed: HashSet<(SegmentNumber, Uuid)> = HashSet::new();
        for stream in self.view.streams() {
            for shard in &stream.shards {
                let index = read(&shard.index);
                let tiered = index.entries().filter(|entry| entry.kind == EntryKind::Tiered);
                needed.extend(tiered.map(|entry| (entry.segment, stream.meta.id)));
            }
        }
        let objects = self.state.tiered.iter().map(|object| object.key);
        let dropped: Vec<ObjectKey> = objects
            .filter(|key| !needed.contains(&(key.segment, key.stream)))
            .take(limits::TIER_CHANGE_OBJECTS_MAX)
            .collect();
        if dropped.is_empty() {
            return Ok(());
        }
        // With the counters, for other objects of the segment may keep its entries on the disk.
        let floors = self.risen_floors();
        self.note(&[
            Control::Expired {
                trusted_ms: now,
                segments: Vec::new(),
                floors,
            },
            Control::TierDropped {
                objects: dropped.clone(),
            },
        ])?;
        self.view.untier(&dropped);
        let emptied: HashSet<SegmentNumber> = dropped.iter().map(|key| key.segment).collect();
        let emptied = emptied
            .into_iter()
            .filter(|segment| self.state.tiered_of(*segment).is_empty());
        self.housekeeper.unlink(emptied.map(names::tier).collect());
        self.tell_usage();
        // Deleting them is somebody else's work.
        self.view.wake_keeper();
        Ok(())
    }

    /// Writes changes of the metadata in a batch of their own. They may take the log beyond its bound by a segment, for
    /// they lead to less.
    pub(super) fn note(&mut self, controls: &[Control]) -> Result<(), StoreError> {
        self.sound()?;
        let json = |control: &Control| serde_json::to_vec(control).map_or(0, |json| json.len());
        self.reserve(controls.iter().map(|control| frame_len(json(control))).sum())?;
        for control in controls {
            self.control(control);
            if let Control::StreamChanged { name, .. } = control
                && let Some(meta) = self.state.streams.get(name)
            {
                self.effects.push(Effect::StreamChanged(Box::new(meta.clone())));
            }
        }
        self.commit()
    }

    fn sound(&self) -> Result<(), StoreError> {
        self.view.failure().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Tells how much lies in objects.
    pub(super) fn tell_tier(&self) {
        let usage = &self.view.usage;
        let bytes = self.state.tiered.iter().map(|object| object.bytes).sum();
        usage.tiered_bytes.store(bytes, Ordering::Relaxed);
        usage
            .tiered_objects
            .store(self.state.tiered.len() as u64, Ordering::Relaxed);
        usage
            .tier_garbage
            .store(self.state.tier_garbage.len() as u64, Ordering::Relaxed);
    }

    /// Counters up to which everything is gone, of the shards where the log does not say so yet.
    pub(super) fn risen_floors(&self) -> Vec<(ShardKey, u64)> {
        let known = |shard: &ShardKey| self.state.shards.get(shard).map_or(u64::MAX, |known| known.floor);
        let floors = self.floors().into_iter();
        let mut floors: Vec<(ShardKey, u64)> = floors.filter(|(shard, floor)| *floor > known(shard)).collect();
        floors.sort_unstable();
        floors
    }
}
