//! Reads records from segment files, beside the writer.
//!
//! A [`SegmentReader`] needs nothing but the log's directory and the extents that `locate` told: the store's own reads
//! and a job's process use the same code. Extents that lie close together are read with one `pread`; records share that
//! buffer. Every frame's checksum is checked. What is not on the disk any more is read from objects
//! (`reader/tiered.rs`).

mod tiered;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::access::{Extent, Located, ObjectPlace, Position, ReadBatch, ReadLimits, Record, StagedExtent};
use crate::env::{Disk, DiskFile, RealDisk};
use crate::error::{Corruption, StoreError};
use crate::ids::{SegmentNumber, ShardKey, Uuid};
use crate::limits;
use crate::log::frame::{FrameHeader, FrameKind};
use crate::log::segment::{SegmentHeader, unreadable};
use crate::log::{entry, names};
use crate::tier::{ObjectTier, TierCache};

/// Reads extents of a log. Safe to share between threads.
pub struct SegmentReader {
    disk: Arc<dyn Disk>,
    /// Where objects are read; `None` in a process that has no access to them.
    tier: Option<TierCache>,
    /// Open files, the one used last at the end.
    files: Mutex<VecDeque<(Uuid, Arc<dyn DiskFile>)>>,
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader")
            .field("disk", &self.disk.describe())
            .finish_non_exhaustive()
    }
}

impl SegmentReader {
    /// Opens the log in `directory` for reading, beside the process that owns it.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Ok(Self::on(Arc::new(RealDisk::open_shared(directory)?)))
    }

    /// Reads from `disk`.
    pub fn on(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            tier: None,
            files: Mutex::default(),
        }
    }

    /// Reads what is not on the disk from `tier`.
    pub fn with_tier(mut self, tier: Arc<dyn ObjectTier>) -> Self {
        self.tier = Some(TierCache::new(tier));
        self
    }

    /// Reads the records that `located` names, up to `limits`. Blocks for the disk when the page cache does not have
    /// them.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the first record is damaged, or its object was deleted from outside;
    /// [`StoreError::TierUnavailable`] when its object cannot be had now. Records before it are given first.
    pub fn read(&self, located: &Located, limits: ReadLimits) -> Result<ReadBatch, StoreError> {
        let mut records = Records::new(located, limits);
        let mut extents = &located.extents[..];
        while !extents.is_empty() && !records.full() {
            if let Some(object) = &extents[0].object {
                match self.tiered(&extents[0], object, located, &mut records) {
                    Ok(()) => extents = &extents[1..],
                    Err(_) if !records.out.is_empty() => break,
                    Err(error) => return Err(error),
                }
                continue;
            }
            let (parts, bytes, failure) = self.fill(&mut extents, located);
            let decoded = parts.iter().try_for_each(|(start, span)| {
                span.iter().try_for_each(|extent| {
                    let at = start + (extent.offset - span[0].offset) as usize;
                    records.extent(extent, &bytes.slice(at..at + extent.len as usize))
                })
            });
            match decoded.err().or(failure) {
                None => {}
                Some(_) if !records.out.is_empty() => break,
                Some(error) => return Err(error),
            }
        }
        Ok(records.finish())
    }

    /// Checks that a staged frame is there and belongs to a sink's checkpoint.
    pub(crate) fn check_staged(&self, extent: &StagedExtent, checkpoint: u64, sink_hash: u64) -> Result<(), String> {
        self.read_staged(extent, checkpoint, sink_hash).map(drop)
    }

    /// The records of a staged frame, which must belong to a sink's checkpoint.
    pub(crate) fn read_staged(&self, extent: &StagedExtent, checkpoint: u64, sink_hash: u64) -> Result<Bytes, String> {
        let range = Extent {
            file: names::segment(extent.segment),
            segment: extent.segment,
            segment_uuid: extent.segment_uuid,
            offset: extent.offset,
            len: extent.len,
            first: 0,
            last: 0,
            first_arrival_ms: 0,
            last_arrival_ms: 0,
            staged: true,
            object: None,
        };
        let read = || {
            let file = self.checked_file(&range, extent.len as usize, &[])?;
            let mut bytes = vec![0; extent.len as usize];
            read_exactly(&*file, &mut bytes, &range, &[]).map(|()| bytes)
        };
        let bytes = Bytes::from(read().map_err(|error: StoreError| error.to_string())?);
        let place = format!(
            "bytes {}..{} of {}",
            extent.offset,
            u64::from(extent.offset) + u64::from(extent.len),
            range.file
        );
        let (header, payload) = FrameHeader::open(&bytes, extent.segment_uuid, u64::from(extent.offset))
            .map_err(|fault| format!("{place}: {}", fault.reason()))?;
        let matches = header.kind == FrameKind::Staged
            && header.shard == extent.shard
            && header.first == checkpoint
            && header.before == sink_hash
            && header.count == extent.records
            && header.frame_len() == extent.len as usize;
        if matches {
            Ok(bytes.slice_ref(payload))
        } else {
            Err(format!(
                "{place} hold something else than its output of checkpoint {checkpoint}"
            ))
        }
    }

    /// Reads as many of the first extents as go into one buffer: one allocation of megabytes costs far fewer page
    /// faults than many small ones. Returns where each span starts in it. After an error the spans before it are good.
    fn fill<'a>(
        &self,
        extents: &mut &'a [Extent],
        located: &Located,
    ) -> (Vec<(usize, &'a [Extent])>, Bytes, Option<StoreError>) {
        let shards = [format!("{}/{}", located.stream, located.shard.id)];
        let (mut parts, mut files, mut total, mut failure) = (Vec::new(), Vec::new(), 0, None);
        while !extents.is_empty() && extents[0].object.is_none() {
            let (span, rest) = extents.split_at(span(extents));
            let last = &span[span.len() - 1];
            let length = (last.offset - span[0].offset) as usize + last.len as usize;
            if total > 0 && total + length > limits::READ_SPAN_BYTES_MAX as usize {
                break;
            }
            match self.checked_file(&span[0], length, &shards) {
                Ok(file) => files.push((file, length)),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
            parts.push((total, span));
            total += length;
            *extents = rest;
        }
        let mut bytes = vec![0; total];
        for (index, (file, length)) in files.iter().enumerate() {
            let (start, span) = parts[index];
            if let Err(error) = read_exactly(&**file, &mut bytes[start..start + length], &span[0], &shards) {
                failure = Some(error);
                parts.truncate(index);
                break;
            }
        }
        (parts, bytes.into(), failure)
    }

    /// Opens the file of an extent. A declared length beyond the file is refused before anything is allocated for it.
    fn checked_file(&self, extent: &Extent, length: usize, shards: &[String]) -> Result<Arc<dyn DiskFile>, StoreError> {
        let damaged = |reason: String| corrupt(extent, length, shards.to_vec(), reason);
        let file = self.file(extent.segment, extent.segment_uuid, &damaged)?;
        let end = u64::from(extent.offset) + length as u64;
        let known = file
            .length()
            .map_err(|error| StoreError::io("read log segment", &extent.file, &error))?;
        if end > known {
            Err(damaged("the file is shorter".to_owned()))
        } else {
            Ok(file)
        }
    }

    fn file(
        &self,
        segment: SegmentNumber,
        uuid: Uuid,
        damaged: &dyn Fn(String) -> StoreError,
    ) -> Result<Arc<dyn DiskFile>, StoreError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = files.iter().position(|(known, _)| *known == uuid)
            && let Some((uuid, file)) = files.remove(at)
        {
            files.push_back((uuid, file.clone()));
            return Ok(file);
        }
        let name = names::segment(segment);
        let file = self.disk.open(&name).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                damaged("the segment's file is missing".to_owned())
            } else {
                StoreError::io("open log segment", &name, &error)
            }
        })?;
        let header = SegmentHeader::read(&name, &*file).map_err(|error| match error {
            StoreError::Corrupt(corruption) => damaged(corruption.reason),
            other => other,
        })?;
        if header.uuid != uuid {
            return Err(damaged(format!("the file is segment {} and not {uuid}", header.uuid)));
        }
        if files.len() >= limits::READER_FILES_MAX {
            files.pop_front();
        }
        files.push_back((uuid, file.clone()));
        Ok(file)
    }
}

fn read_exactly(file: &dyn DiskFile, bytes: &mut [u8], extent: &Extent, shards: &[String]) -> Result<(), StoreError> {
    let done = file
        .read_at(bytes, u64::from(extent.offset))
        .map_err(|error| match unreadable(&error) {
            Some(reason) => corrupt(extent, bytes.len(), shards.to_vec(), reason),
            None => StoreError::io("read log segment", &extent.file, &error),
        })?;
    if done < bytes.len() {
        return Err(corrupt(
            extent,
            bytes.len(),
            shards.to_vec(),
            "the file is shorter".to_owned(),
        ));
    }
    Ok(())
}

/// How many of the first extents are read with one call.
fn span(extents: &[Extent]) -> usize {
    let first = &extents[0];
    let mut end = u64::from(first.offset) + u64::from(first.len);
    1 + extents[1..]
        .iter()
        .take_while(|next| {
            let start = u64::from(next.offset);
            let next_end = start + u64::from(next.len);
            let near = next.object.is_none()
                && next.segment_uuid == first.segment_uuid
                && start >= end
                && start - end <= limits::READ_GAP_BYTES_MAX
                && next_end - u64::from(first.offset) <= limits::READ_SPAN_BYTES_MAX;
            end = next_end;
            near
        })
        .count()
}

fn corrupt(extent: &Extent, length: usize, shards: Vec<String>, reason: String) -> StoreError {
    StoreError::Corrupt(Corruption {
        file: extent.file.clone(),
        offset: u64::from(extent.offset),
        len: length as u64,
        shards,
        reason,
    })
}

/// Collects records up to the limits.
struct Records<'a> {
    located: &'a Located,
    limits: ReadLimits,
    out: Vec<Record>,
    bytes: usize,
    next: u64,
    full: bool,
    expired: bool,
}

impl<'a> Records<'a> {
    fn new(located: &'a Located, limits: ReadLimits) -> Self {
        let known: u64 = located
            .extents
            .iter()
            .map(|extent| extent.last.saturating_sub(extent.first) + 1)
            .sum();
        let capacity = (known as usize).min(limits.records_max).min(limits::GET_RECORDS_MAX);
        let out = Vec::with_capacity(capacity);
        Self {
            located,
            limits,
            out,
            bytes: 0,
            next: located.from.counter,
            full: false,
            expired: located.expired,
        }
    }

    fn full(&self) -> bool {
        self.full
    }

    /// Takes the records of an extent, whose bytes are all there.
    fn extent(&mut self, extent: &Extent, bytes: &Bytes) -> Result<(), StoreError> {
        let mut at = 0;
        let shard = || vec![format!("{}/{}", self.located.stream, self.located.shard.id)];
        while at < bytes.len() && !self.full {
            let offset = u64::from(extent.offset) + at as u64;
            let opened = FrameHeader::open(&bytes[at..], extent.segment_uuid, offset);
            let bad = |reason: &str| {
                let place = Extent {
                    offset: offset as u32,
                    ..extent.clone()
                };
                corrupt(&place, bytes.len() - at, shard(), reason.to_owned())
            };
            let (header, payload) = opened.map_err(|fault| bad(fault.reason()))?;
            let expected = if extent.staged {
                FrameKind::Staged
            } else {
                FrameKind::Records
            };
            if header.kind != expected || header.shard != self.located.shard.key {
                return Err(bad("a frame of another shard lies there"));
            }
            let (first, arrival_ms) = if extent.staged {
                (extent.first, extent.last_arrival_ms)
            } else {
                (header.first, header.time_ms)
            };
            let payload = bytes.slice_ref(payload);
            if self.frame(first, header.count, arrival_ms, &payload).is_none() {
                return Err(bad("the payload of a frame is no list of records"));
            }
            at += header.frame_len();
        }
        Ok(())
    }

    fn frame(&mut self, first: u64, count: u32, arrival_ms: u64, payload: &Bytes) -> Option<()> {
        if arrival_ms < self.located.trim_before_ms {
            let end = first + u64::from(count);
            self.expired |= self.located.from.counter > 0 && end > self.next;
            self.next = self.next.max(end);
            return Some(());
        }
        let mut at = 0;
        for counter in first..first + u64::from(count) {
            if counter < self.next {
                at += entry::length_at(payload, at)?;
                continue;
            }
            let (entry, next) = entry::decode(payload, at)?;
            let size = entry.key.len() + entry.data.len();
            if self.out.len() >= self.limits.records_max
                || (!self.out.is_empty() && self.bytes + size > self.limits.bytes_max)
            {
                self.full = true;
                return Some(());
            }
            self.bytes += size;
            self.out.push(Record {
                sequence: self.located.shard.sequence(counter, arrival_ms),
                arrival_ms,
                partition_key: entry.key,
                explicit_hash_key: entry.hash_key,
                data: entry.data,
            });
            self.next = counter + 1;
            at = next;
        }
        Some(())
    }

    fn finish(self) -> ReadBatch {
        let latest = self.located.latest.counter;
        // Without extents there is nothing between the position and the end: numbers may be left out.
        let next = if self.located.extents.is_empty() {
            self.next.max(latest)
        } else {
            self.next
        };
        let caught_up = next >= latest;
        let millis_behind_latest = match self.out.last() {
            _ if caught_up => 0,
            Some(last) => self.located.now_ms.saturating_sub(last.arrival_ms).max(1),
            None => self.located.extents.first().map_or(1, |next| {
                self.located.now_ms.saturating_sub(next.first_arrival_ms).max(1)
            }),
        };
        ReadBatch {
            next: Position {
                shard: self.located.shard.key,
                counter: next,
            },
            records: self.out,
            millis_behind_latest,
            at_end: caught_up && self.located.closed,
            expired: self.expired,
        }
    }
}

/// The counter of the first record of `located` that arrived at `time_ms` or later.
pub(crate) fn first_at(reader: &SegmentReader, located: &Located, time_ms: u64) -> Result<Option<u64>, StoreError> {
    let everything = ReadLimits {
        records_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    let batch = reader.read(located, everything)?;
    Ok(batch
        .records
        .iter()
        .find(|record| record.arrival_ms >= time_ms)
        .map(|record| record.sequence.counter))
}

/// The hash in a staged frame that tells whose it is.
pub(crate) fn sink_hash(job: &str, sink: &str) -> u64 {
    let mut bytes = Vec::with_capacity(job.len() + sink.len() + 1);
    bytes.extend_from_slice(job.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(sink.as_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// The extent of an index entry.
pub(crate) fn extent_of(entry: &crate::index::IndexEntry, uuid: Uuid, object: Option<ObjectPlace>) -> Extent {
    Extent {
        file: names::segment(entry.segment),
        segment: entry.segment,
        segment_uuid: uuid,
        offset: entry.offset,
        len: entry.len,
        first: entry.first,
        last: entry.last,
        first_arrival_ms: entry.first_arrival_ms,
        last_arrival_ms: entry.last_arrival_ms,
        staged: entry.kind == crate::index::EntryKind::Published,
        object,
    }
}

/// The error for reading an entry that is known to be damaged.
pub(crate) fn damaged(entry: &crate::index::IndexEntry, stream: &str, shard: ShardKey, id: &str) -> StoreError {
    StoreError::Corrupt(Corruption {
        file: names::segment(entry.segment),
        offset: u64::from(entry.offset),
        len: u64::from(entry.len),
        shards: vec![format!("{stream}/{id}")],
        reason: format!("records {} to {} of {shard} cannot be read", entry.first, entry.last),
    })
}
