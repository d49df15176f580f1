//! Plans, uploads and deletes objects, one segment after the other, in a thread that may wait for the network.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::object::{Run, encode, summarise};
use super::objects::TierError;
use super::{MARK, ObjectKey, ObjectTier, TieredObject, UNMARKED, Uploaded, mark};
use crate::env::Environment;
use crate::error::StoreError;
use crate::ids::{SegmentNumber, ShardKey, Uuid};
use crate::index::{EntryKind, IndexEntry, SegmentEntries};
use crate::limits;
use crate::log::frame::{FrameHeader, FrameKind};
use crate::log::index_file::IndexFile;
use crate::log::names;
use crate::log::writer::{Command, Queued};
use crate::retention::StagedGroups;
use crate::view::{View, read};

/// What the writer knows of segments and objects.
#[derive(Debug)]
pub(crate) struct Candidates {
    pub(crate) store: Uuid,
    /// Sealed segments that are not tiered, from the oldest.
    pub(crate) segments: Vec<SegmentNumber>,
    /// How many of them should go, whatever their age, to stay within the bound of the disk.
    pub(crate) excess: usize,
    /// Objects that nothing needs.
    pub(crate) garbage: Vec<ObjectKey>,
    /// Some object was planned before, so the store's mark is there.
    pub(crate) marked: bool,
}

/// Names that were written down for an upload.
pub(crate) type Planned = Vec<ObjectKey>;

/// Talks to the writer, from a thread that may block.
pub(crate) struct Port(pub(crate) mpsc::UnboundedSender<Queued>);

impl Port {
    pub(crate) fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queued = Queued {
            command: command(reply),
            bytes: 0,
            permits: 0,
        };
        self.0.send(queued).map_err(|_| StoreError::Closed)?;
        answer.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

/// What one round works with.
pub(crate) struct Round<'a> {
    pub(crate) port: &'a Port,
    pub(crate) environment: &'a Environment,
    pub(crate) view: &'a View,
    pub(crate) tier: &'a dyn ObjectTier,
    pub(crate) local_retention_ms: u64,
    /// Segments with damaged records: they stay where they are.
    pub(crate) damaged: &'a mut HashSet<SegmentNumber>,
}

/// Why a segment was not uploaded.
enum Failure {
    /// Nothing can be done about it.
    Damaged(String),
    Error(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

/// Deletes objects that nothing needs and uploads the segments that are due. Returns the first error; what was done
/// before it is done.
pub(crate) fn round(round: Round<'_>) -> Result<(), StoreError> {
    let candidates = round.port.ask(|reply| Command::TierCandidates { reply })?;
    let mut marked = false;
    if !candidates.garbage.is_empty() {
        round.mark(&candidates, &mut marked)?;
    }
    let collected = round.collect(&candidates);
    let mut excess = candidates.excess;
    for &segment in &candidates.segments {
        if round.damaged.contains(&segment) {
            continue;
        }
        // An index that is not there yet will be at the next round, or after the next start.
        let Some(index) = IndexFile::read(&*round.environment.disk, segment) else {
            continue;
        };
        let live = round.live(&index);
        let Some(newest) = live.iter().map(|(_, _, entry)| entry.last_arrival_ms).max() else {
            continue;
        };
        let due = round.view.trusted_ms(&*round.environment.clock) >= newest.saturating_add(round.local_retention_ms);
        if !due && excess == 0 {
            continue;
        }
        round.mark(&candidates, &mut marked)?;
        excess = excess.saturating_sub(1);
        match round.upload(&candidates, &index, live) {
            Ok(()) => {}
            Err(Failure::Error(error)) => return Err(error),
            Err(Failure::Damaged(reason)) => {
                tracing::error!(
                    segment = %names::segment(segment),
                    reason,
                    "a segment with damaged records is not moved to the object store; it stays on the disk"
                );
                round.damaged.insert(segment);
            }
        }
    }
    collected
}

impl Round<'_> {
    /// Looks for the store's mark, or leaves it where no object was before. Once a round.
    fn mark(&self, candidates: &Candidates, marked: &mut bool) -> Result<(), StoreError> {
        if std::mem::replace(marked, true) {
            return Ok(());
        }
        let name = mark(candidates.store);
        let outcome = if candidates.marked {
            self.tier.read(&name, 0..MARK.len() as u64).map(drop)
        } else {
            self.tier.create(&name, Bytes::from_static(MARK))
        };
        outcome.map_err(|error| match error {
            TierError::NotFound => unavailable(name, UNMARKED.to_owned()),
            TierError::Unavailable(reason) => unavailable(name, reason),
        })
    }

    fn collect(&self, candidates: &Candidates) -> Result<(), StoreError> {
        let mut deleted = Vec::new();
        let mut outcome = Ok(());
        for key in &candidates.garbage {
            let name = key.name(candidates.store);
            if let Err(error) = self.tier.delete(&name) {
                outcome = Err(unavailable(name, error.to_string()));
                break;
            }
            deleted.push(*key);
        }
        if !deleted.is_empty() {
            self.port.ask(|reply| Command::TierDeleted {
                objects: deleted,
                reply,
            })?;
        }
        outcome
    }

    /// The entries of a segment that are live, with their stream's id.
    fn live(&self, index: &IndexFile) -> Vec<(Uuid, ShardKey, IndexEntry)> {
        let mut shards: HashMap<ShardKey, (Uuid, u64)> = HashMap::new();
        for stream in self.view.streams() {
            for shard in &stream.shards {
                shards.insert(shard.meta.key, (stream.meta.id, read(&shard.index).floor()));
            }
        }
        let entries = index.entries.0.iter();
        entries
            .filter_map(|(shard, entry)| {
                let (stream, floor) = shards.get(shard)?;
                (entry.last > *floor).then_some((*stream, *shard, *entry))
            })
            .collect()
    }

    fn upload(
        &self,
        candidates: &Candidates,
        index: &IndexFile,
        live: Vec<(Uuid, ShardKey, IndexEntry)>,
    ) -> Result<(), Failure> {
        let mut streams: BTreeMap<Uuid, Vec<(Run, Vec<u8>)>> = BTreeMap::new();
        let mut files = HashMap::new();
        for (stream, shard, entry) in live {
            let file = match files.entry(entry.segment) {
                std::collections::hash_map::Entry::Occupied(file) => file.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    let name = names::segment(entry.segment);
                    let file = self.environment.disk.open(&name);
                    let file = file.map_err(|error| StoreError::io("open log segment", &name, &error))?;
                    let uuid = self.view.segment(entry.segment).ok_or(StoreError::Closed)?;
                    place.insert((file, uuid))
                }
            };
            let mut frames = vec![0; entry.len as usize];
            let length = file
                .0
                .read_at(&mut frames, u64::from(entry.offset))
                .map_err(|error| StoreError::io("read log segment", names::segment(entry.segment), &error))?;
            frames.truncate(length);
            let run = check(shard, &entry, file.1, &frames).map_err(Failure::Damaged)?;
            streams.entry(stream).or_default().push((run, frames));
        }
        let planned = self.port.ask(|reply| Command::TierPlan {
            segment: index.segment,
            streams: streams.keys().copied().collect(),
            reply,
        })?;
        let mut uploaded = Uploaded {
            segment: index.segment,
            objects: Vec::new(),
            entries: Vec::new(),
        };
        for (key, (stream, runs)) in planned.into_iter().zip(streams) {
            debug_assert_eq!(key.stream, stream);
            let (bytes, directory, runs) = encode(index.segment, candidates.store, stream, runs);
            uploaded.objects.push(TieredObject {
                key,
                bytes: bytes.len() as u64,
                directory_bytes: directory as u64,
                directory_crc: crc32c::crc32c(&bytes[..directory]),
            });
            uploaded.entries.extend(summarise(index.segment, &runs));
            self.store(key.name(candidates.store), bytes.into())?;
        }
        // The next start finds the shards' entries here, and not in the object store.
        let entries = IndexFile {
            segment: index.segment,
            uuid: index.uuid,
            end: index.end,
            entries: SegmentEntries(uploaded.entries.clone()),
            staged: StagedGroups::default(),
        };
        let name = names::tier(index.segment);
        entries
            .write_as(&*self.environment.disk, &name)
            .map_err(|error| StoreError::io("write", &name, &error))?;
        self.port.ask(|reply| Command::TierDone {
            uploaded: Box::new(uploaded),
            reply,
        })?;
        Ok(())
    }

    /// Stores an object and reads it back: the local copy goes after this.
    fn store(&self, name: String, bytes: Bytes) -> Result<(), StoreError> {
        let outcome = self
            .tier
            .create(&name, bytes.clone())
            .and_then(|()| self.tier.read(&name, 0..bytes.len() as u64 + 1));
        match outcome {
            Ok(found) if found == bytes => Ok(()),
            Ok(_) => Err(unavailable(
                name,
                "what was read back is not what was stored".to_owned(),
            )),
            Err(error) => Err(unavailable(name, error.to_string())),
        }
    }
}

fn unavailable(object: String, reason: String) -> StoreError {
    StoreError::TierUnavailable { object, reason }
}

/// Checks the frames of an entry, and makes a run of them.
fn check(shard: ShardKey, entry: &IndexEntry, uuid: Uuid, frames: &[u8]) -> Result<Run, String> {
    let published = match entry.kind {
        EntryKind::Records => false,
        EntryKind::Published => true,
        EntryKind::Damaged | EntryKind::Tiered => {
            return Err(format!("records {} to {} are damaged", entry.first, entry.last));
        }
    };
    let expected = if published {
        FrameKind::Staged
    } else {
        FrameKind::Records
    };
    let mut at = 0;
    while at < entry.len as usize {
        let offset = u64::from(entry.offset) + at as u64;
        let (header, _) = FrameHeader::open(frames.get(at..).unwrap_or_default(), uuid, offset)
            .map_err(|fault| format!("at byte {offset}: {}", fault.reason()))?;
        if header.kind != expected || header.shard != shard {
            return Err(format!("at byte {offset}: a frame of another shard"));
        }
        at += header.frame_len();
    }
    Ok(Run {
        shard,
        origin: uuid,
        origin_offset: entry.offset,
        published,
        offset: 0,
        len: 0,
        first: entry.first,
        last: entry.last,
        first_arrival_ms: entry.first_arrival_ms,
        last_arrival_ms: entry.last_arrival_ms,
    })
}

/// Reads the entries of a tiered segment from its objects, when the local file that has them is lost.
pub(crate) fn entries_of(
    tier: &dyn ObjectTier,
    store: Uuid,
    objects: &[TieredObject],
) -> Result<Vec<(ShardKey, IndexEntry)>, StoreError> {
    let mut entries = Vec::new();
    for object in objects {
        let name = object.key.name(store);
        let failed = |reason: String| unavailable(name.clone(), reason);
        if object.directory_bytes > limits::TIER_DIRECTORY_BYTES_MAX {
            return Err(failed("its directory is larger than any can be".to_owned()));
        }
        let bytes = tier
            .read(&name, 0..object.directory_bytes)
            .map_err(|error| failed(error.to_string()))?;
        let runs = Some(&bytes)
            .filter(|bytes| crc32c::crc32c(bytes) == object.directory_crc)
            .and_then(|bytes| super::directory(bytes, object.bytes))
            .ok_or_else(|| failed("its directory does not match what the log says of it".to_owned()))?;
        entries.extend(summarise(object.key.segment, &runs));
    }
    Ok(entries)
}
