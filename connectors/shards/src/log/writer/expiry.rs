//! The writer's part of retention: what has expired leaves the index, segments that nothing refers to are removed, and
//! the log stays within its bound.
//!
//! ```text
//!   trusted time ─▶ entries out of the index ─▶ segments without a pin ─▶ control frame, synced ─▶ unlink
//! ```
//! It is done in the writer's thread, because publishes are: no publish can come between a decision and its frame.

use std::sync::atomic::Ordering;

use hashbrown::{HashMap, HashSet};

use super::Writer;
use crate::env::Environment;
use crate::error::StoreError;
use crate::ids::{SegmentNumber, ShardKey};
use crate::index::IndexEntry;
use crate::limits;
use crate::log::frame::frame_len;
use crate::log::names;
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::reader::sink_hash;
use crate::retention::{Pin, RetentionOptions, TrustedClock, WhenFull};
use crate::state::{Control, State};
use crate::stream::ShardMeta;
use crate::update::StreamChange;
use crate::view::{Effect, read, write};

/// What expiry remembers from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When a full log was last searched for something to remove, by the monotonic clock.
    searched_ms: Option<u64>,
    /// Bytes of the segment files, by number.
    sizes: HashMap<SegmentNumber, u64>,
    /// Staged output that a warning was given for.
    warned: HashSet<(u64, u64)>,
}

/// The least time between two searches of a full log.
const SEARCH_INTERVAL_MS: u64 = 1_000;

/// The clock of a store that was just opened.
pub(super) fn trusted_clock(state: &State, environment: &Environment, options: &RetentionOptions) -> TrustedClock {
    let clock = &*environment.clock;
    // A log of a release that did not write it down: the newest record is the best there is.
    let newest = state.shards.values().map(|shard| shard.arrival_ms).max();
    let recorded = Some(state.trusted_ms).filter(|&recorded| recorded > 0).or(newest);
    TrustedClock::new(recorded, clock.now_ms(), clock.monotonic_ms(), options.clock_confirm_ms)
}

impl Writer {
    /// Takes stock of what recovery found.
    pub(super) fn take_stock(&mut self) {
        for stream in self.view.streams() {
            for shard in &stream.shards {
                read(&shard.index).entries().for_each(|entry| self.ledger.add(entry));
            }
        }
        let segments: Vec<SegmentNumber> = self.ledger.segments().collect();
        for segment in segments {
            self.count_segment(segment);
        }
        self.tell_usage();
    }

    /// Takes note of a segment file's size.
    pub(super) fn count_segment(&mut self, segment: SegmentNumber) {
        let active = self.active.as_ref().map(|active| &active.segment);
        let bytes = match active.filter(|active| active.header.number == segment) {
            Some(active) => active.capacity,
            // A file that cannot be opened is told of when it is read.
            None => self
                .environment
                .disk
                .open(&names::segment(segment))
                .and_then(|file| file.length())
                .unwrap_or(0),
        };
        self.expiry.sizes.insert(segment, bytes);
        if !self.within_bound(limits::TIER_SEGMENTS_FREE * self.options.segment_bytes) {
            self.view.wake_keeper();
        }
        self.tell_usage();
    }

    /// Bytes of all segment files, those prepared included.
    pub(super) fn log_bytes(&self) -> u64 {
        let prepared: u64 = self.prepared.iter().map(|segment| segment.capacity).sum();
        let preparing = u64::from(self.housekeeper.is_preparing()) * self.options.segment_bytes;
        self.expiry.sizes.values().sum::<u64>() + prepared + preparing
    }

    pub(super) fn tell_usage(&self) {
        let usage = &self.view.usage;
        usage.log_bytes.store(self.log_bytes(), Ordering::Relaxed);
        let files = self.expiry.sizes.len() + self.prepared.len() + usize::from(self.housekeeper.is_preparing());
        usage.segments.store(files as u64, Ordering::Relaxed);
        self.tell_tier();
    }

    fn within_bound(&self, more: u64) -> bool {
        let bound = self.options.retention.disk_bytes_max;
        bound.is_none_or(|bound| self.log_bytes() + more <= bound)
    }

    /// Whether a segment may be prepared ahead of its use.
    pub(super) fn may_prepare(&self) -> bool {
        self.within_bound(self.options.segment_bytes)
    }

    /// Whether `bytes` more need another segment file that is not there yet.
    fn needs_file(&self, bytes: u64) -> bool {
        let fits = self.active.as_ref().is_some_and(|active| {
            active.offset == SEGMENT_HEADER_BYTES || active.offset + bytes <= active.segment.capacity
        });
        !fits && self.prepared.is_empty() && !self.housekeeper.is_preparing()
    }

    /// Sees to it that `bytes` more do not take the log beyond its bound.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), StoreError> {
        let full = |writer: &Self| {
            writer.needs_file(bytes as u64) && !writer.within_bound(writer.options.segment_bytes.max(bytes as u64))
        };
        if !full(self) {
            return Ok(());
        }
        let now = self.environment.clock.monotonic_ms();
        let searched = self.expiry.searched_ms;
        if searched.is_none_or(|searched| now.saturating_sub(searched) >= SEARCH_INTERVAL_MS) {
            self.expire()?;
            while full(self) && self.options.retention.when_full == WhenFull::DropOldest && self.drop_oldest()? {}
            if full(self) {
                self.expiry.searched_ms = Some(now);
                self.view.wake_keeper();
            }
        }
        match self.options.retention.disk_bytes_max {
            Some(limit) if full(self) => Err(StoreError::StoreFull {
                bytes: self.log_bytes(),
                limit,
                tiered: self.options.tiered,
            }),
            _ => Ok(()),
        }
    }

    /// Lets go of what has expired: out of the index, and the files that nothing needs any more.
    pub(super) fn expire(&mut self) -> Result<(), StoreError> {
        if let Some(failure) = self.view.failure() {
            return Err(failure.clone());
        }
        self.expiry.searched_ms = None;
        let now = self.view.trusted_ms(&*self.environment.clock);
        for stream in self.view.streams() {
            let horizon_ms = stream.meta.trim_horizon_ms(now);
            for shard in &stream.shards {
                let due = |entry: &IndexEntry| entry.last_arrival_ms < horizon_ms;
                if !read(&shard.index).oldest().is_some_and(due) {
                    continue;
                }
                let mut index = write(&shard.index);
                index.expire(horizon_ms).for_each(|entry| self.ledger.release(&entry));
                index.shrink();
            }
        }
        self.forget_shards(now)?;
        self.drop_objects(now)?;
        let segments = self.removable(now);
        self.remove(now, segments)
    }

    /// Forgets shards that were closed so long ago that nobody can have a place in them.
    fn forget_shards(&mut self, now: u64) -> Result<(), StoreError> {
        for meta in self.state.streams.values() {
            let before = meta.trim_horizon_ms(now).saturating_sub(limits::FORGET_SHARDS_AFTER_MS);
            let long_closed = |shard: &&ShardMeta| shard.closed_ms.is_some_and(|closed| closed < before);
            let forgotten: Vec<ShardKey> = (meta.shards.iter().filter(long_closed).map(|shard| shard.key))
                .take(limits::FORGET_SHARDS_MAX)
                .collect();
            if forgotten.is_empty() {
                continue;
            }
            tracing::debug!(stream = %meta.name, shards = forgotten.len(), "forgetting shards that were closed long ago");
            let control = Control::StreamChanged {
                name: meta.name.clone(),
                id: meta.id,
                change: StreamChange {
                    forgotten,
                    ..StreamChange::default()
                },
            };
            // One stream at a time, and only where it takes no more disk: the next look is not far.
            let bytes = serde_json::to_vec(&control).map_or(0, |json| json.len());
            if self.needs_file(frame_len(bytes) as u64) {
                return Ok(());
            }
            return self.note(&[control]);
        }
        Ok(())
    }

    /// The last segment that may go: the active one and the one before are what the next start reads.
    pub(super) fn removable_end(&self) -> SegmentNumber {
        let active = self.active.as_ref().map_or(0, |active| active.segment.header.number.0);
        SegmentNumber(active.saturating_sub(1))
    }

    /// The last counter that is gone, of each shard.
    pub(super) fn floors(&self) -> HashMap<ShardKey, u64> {
        let streams = self.view.streams();
        let shards = streams.iter().flat_map(|stream| &stream.shards);
        shards
            .map(|shard| (shard.meta.key, read(&shard.index).floor()))
            .collect()
    }

    fn removable(&mut self, now: u64) -> Vec<SegmentNumber> {
        let end = self.removable_end();
        let floors = self.floors();
        let mut settled: HashMap<u64, u64> = HashMap::new();
        for (job, sinks) in &self.state.publications {
            for (sink, publication) in sinks {
                settled.insert(sink_hash(job, sink), publication.checkpoint);
            }
        }
        let limit = self.options.retention.staged_retention_ms;
        let candidates: Vec<SegmentNumber> = self.ledger.segments().take_while(|segment| *segment < end).collect();
        let mut removable = Vec::new();
        let mut staged = 0;
        for segment in candidates {
            let pin = self.ledger.pin(
                segment,
                |shard, last| floors.get(&shard).is_some_and(|floor| last > *floor),
                |hash, checkpoint| settled.get(&hash).is_some_and(|published| *published >= checkpoint),
                now,
                limit,
            );
            match pin {
                None => removable.push(segment),
                Some(Pin::Records | Pin::Published) => {}
                Some(Pin::Staged {
                    sink_hash,
                    checkpoint,
                    age_ms,
                }) => {
                    staged += 1;
                    if age_ms > limit / 2 && self.expiry.warned.insert((sink_hash, checkpoint)) {
                        tracing::warn!(
                            segment = %names::segment(segment),
                            checkpoint,
                            hours = age_ms / 3_600_000,
                            hours_max = limit / 3_600_000,
                            "a sink's output was staged and not published: start its job again, or delete the job; \
                             otherwise it is given up after the time that staged output is kept"
                        );
                    }
                }
            }
        }
        self.view.usage.segments_staged.store(staged, Ordering::Relaxed);
        removable
    }

    /// Writes down that segments are gone, then removes them. Also writes down the time, now and then.
    fn remove(&mut self, now: u64, segments: Vec<SegmentNumber>) -> Result<(), StoreError> {
        let clock_due = now.abs_diff(self.state.trusted_ms) >= limits::CLOCK_RECORD_MS;
        if segments.is_empty() && (!clock_due || self.needs_file(frame_len(256) as u64)) {
            return Ok(());
        }
        let floors = if segments.is_empty() {
            Vec::new()
        } else {
            self.risen_floors()
        };
        // Removing gives back at least the segment that saying so may take.
        self.note(&[Control::Expired {
            trusted_ms: now,
            segments: segments.clone(),
            floors,
        }])?;
        if segments.is_empty() {
            return Ok(());
        }
        tracing::info!(
            first = %names::segment(segments[0]),
            count = segments.len(),
            "removing log segments that nothing needs any more"
        );
        for segment in &segments {
            self.ledger.remove(*segment);
            self.expiry.sizes.remove(segment);
            self.view.forget_segment(*segment);
        }
        let removed = &self.view.usage.segments_removed;
        removed.fetch_add(segments.len() as u64, Ordering::Relaxed);
        let files = segments
            .iter()
            .flat_map(|&segment| [names::segment(segment), names::index(segment)]);
        self.housekeeper.unlink(files.collect());
        self.tell_usage();
        Ok(())
    }

    /// Drops the oldest segment with its records, which have not expired. False when there is none to drop.
    fn drop_oldest(&mut self) -> Result<bool, StoreError> {
        let now = self.view.trusted_ms(&*self.environment.clock);
        let end = self.removable_end();
        let candidates: Vec<SegmentNumber> = self.ledger.segments().take_while(|segment| *segment < end).collect();
        for segment in candidates {
            let published = self.ledger.published(segment);
            let mut dropped = 0;
            for stream in self.view.streams() {
                for shard in &stream.shards {
                    let mut index = write(&shard.index);
                    let through = published.get(&shard.meta.key).copied().unwrap_or(0);
                    let mut entries: Vec<IndexEntry> = index.drop_through(segment).collect();
                    entries.extend(index.drop_to(through));
                    for entry in entries {
                        dropped += entry.last - entry.first + 1;
                        self.ledger.release(&entry);
                    }
                }
            }
            if dropped > 0 {
                tracing::warn!(
                    segment = %names::segment(segment),
                    records = dropped,
                    "the log is full: dropped records before their retention was over, as its options say"
                );
                self.view.usage.records_dropped.fetch_add(dropped, Ordering::Relaxed);
            }
            let segments = self.removable(now);
            if !segments.is_empty() {
                self.remove(now, segments)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the records of streams and shards that this batch deleted or forgot out of the account.
    pub(super) fn release_gone(&mut self) {
        let touched = self.effects.iter().filter_map(|effect| match effect {
            Effect::StreamDeleted(name) => Some(name),
            Effect::StreamChanged(meta) => Some(&meta.name),
            _ => None,
        });
        // A second stream of a name that was created in this batch is not visible yet, and no record of it was counted.
        for name in touched.collect::<HashSet<_>>() {
            let Ok(stream) = self.view.stream(name) else { continue };
            for shard in &stream.shards {
                if self.state.shards.contains_key(&shard.meta.key) {
                    continue;
                }
                read(&shard.index)
                    .entries()
                    .for_each(|entry| self.ledger.release(entry));
            }
        }
    }
}
