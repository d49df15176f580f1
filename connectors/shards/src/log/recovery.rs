//! Opening a log: from files to a state, an index and a place to write on.
//!
//! ```text
//!   1.log  2.log  3.log  4.log  5.log
//!   └index file┘  └base  last┘  └prepared, empty
//! ```
//! *last* is the last segment with sound frames, *base* the last one with a sound snapshot: usually the same. Segments
//! before the base are not read, only their index files (rebuilt when missing); from the base on every frame is read.
//! Segments that the log says are removed are not looked for; their files, should a crash have left some, are unlinked.
//! A segment that is missing without that is damage.
//! A torn tail of *last* is overwritten with zeros. Damage is put into the index, so that reading there answers with an
//! error, and its shard takes no more appends; when damage may hide metadata, the store does not open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::frame::{CONTROL_KEY, FrameFault, FrameHeader, FrameKind, PRODUCERS_KEY, SNAPSHOT_KEY, STAGED_BIT};
use super::index_file::IndexFile;
use super::names;
use super::scan::{End, Piece, Tail, scan};
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, fill_with_zeros};
use crate::env::{Disk, DiskFile, Environment};
use crate::error::{Corruption, StoreError};
use crate::ids::{SegmentNumber, ShardKey, Uuid};
use crate::index::{EntryKind, IndexEntry, SegmentEntries, ShardIndex};
use crate::producers::memory::Produced;
use crate::retention::{Ledger, StagedGroup, StagedGroups};
use crate::state::{Control, State};
use crate::tier::{ObjectTier, entries_of};

/// The segment that is being appended to.
pub(crate) struct Active {
    pub(crate) segment: Segment,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// Length and shard of the last frame.
    pub(crate) previous: (u32, ShardKey),
    pub(crate) entries: SegmentEntries,
}

impl Active {
    /// A segment without frames.
    pub(crate) fn empty(segment: Segment) -> Self {
        Self {
            segment,
            offset: SEGMENT_HEADER_BYTES,
            previous: (0, CONTROL_KEY),
            entries: SegmentEntries::default(),
        }
    }
}

/// What the files of a log hold.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) shards: HashMap<ShardKey, ShardIndex>,
    pub(crate) segments: BTreeMap<SegmentNumber, Uuid>,
    /// `None` when the log is new.
    pub(crate) active: Option<Active>,
    /// Empty segments behind the active one.
    pub(crate) prepared: VecDeque<Segment>,
    /// A torn tail was cut.
    pub(crate) torn: bool,
    /// What refers to each segment, but for visible records.
    pub(crate) ledger: Ledger,
    /// Ranges that cannot be read.
    pub(crate) damage: Vec<Corruption>,
}

/// Reads the log on the environment's disk.
pub(crate) fn recover(environment: &Environment, tier: Option<&dyn ObjectTier>) -> Result<Recovered, StoreError> {
    let disk = &*environment.disk;
    let names = disk
        .list()
        .map_err(|error| StoreError::io("list the files in", disk.describe(), &error))?;
    let numbers: BTreeSet<SegmentNumber> = names.iter().filter_map(|name| names::parse_segment(name)).collect();
    // Where a new log starts. In an old one this number may be among those removed.
    let first = SegmentNumber(1);
    let Some(&last) = numbers.last() else {
        if let Some(index) = names.iter().find(|name| name.ends_with(".index")) {
            return Err(missing(&index.replace(".index", ".log")));
        }
        let mut store = [0; 16];
        fill(environment, &mut store)?;
        return fresh(environment, Uuid(store), VecDeque::new());
    };

    let mut files = Files {
        disk,
        open: BTreeMap::new(),
    };
    let mut prepared = VecDeque::new();
    let mut number = last;
    let mut torn = false;
    // From the end: segments without a sound frame are prepared ones, or hold nothing but a torn first batch.
    let last = loop {
        let (segment, bytes) = match files.open(number) {
            Err(StoreError::Corrupt(corruption)) if number != first && files.is_blank(number) => {
                tracing::warn!(%corruption, "a segment that was prepared and never used is damaged; it will be prepared again");
                // The ones behind it would not be next; they are prepared again, too.
                prepared.clear();
                number = SegmentNumber(number.0 - 1);
                continue;
            }
            opened => opened?,
        };
        if has_sound_frame(&bytes, segment.header.uuid) {
            break number;
        }
        torn |= cut(disk, &segment, SEGMENT_HEADER_BYTES, written(&bytes))?;
        prepared.push_front(segment);
        files.open.remove(&number);
        if number == first {
            let store = prepared[0].header.store;
            return fresh(environment, store, prepared);
        }
        number = SegmentNumber(number.0 - 1);
    };
    let mut base = last;
    let mut state = loop {
        let (segment, bytes) = files.open(base)?;
        if let Some(state) = snapshot(&bytes, segment.header.uuid) {
            break state;
        }
        if base == first {
            return Err(corrupt(
                base,
                0,
                bytes.len() as u64,
                "no segment holds a sound snapshot of the metadata",
            ));
        }
        tracing::warn!(segment = %names::segment(base), "no sound snapshot; reading from the segment before");
        base = SegmentNumber(base.0 - 1);
    };

    let ahead = ahead(&mut files, base, last, &state)?;
    let begins = ahead.shards.iter().filter(|(_, shard)| shard.floor > 0);
    let mut builder = Builder {
        shards: begins
            .map(|(key, shard)| (*key, ShardIndex::above(shard.floor)))
            .collect(),
        tiered: ahead.tiered.iter().map(|object| object.key.segment).collect(),
        segments: BTreeMap::new(),
        ledger: Ledger::default(),
        damage: Vec::new(),
    };
    let mut active = None;
    for number in (first.0..=last.0).map(SegmentNumber) {
        builder.tiered(disk, tier, number, &ahead)?;
        if ahead.removed.contains(number) {
            continue;
        }
        builder.ledger.know(number);
        if number < base {
            builder.sealed(&mut files, number, state.store)?;
            continue;
        }
        let (segment, bytes) = files.open(number)?;
        if segment.header.store != state.store {
            return Err(corrupt(
                number,
                0,
                SEGMENT_HEADER_BYTES,
                "the segment belongs to another store",
            ));
        }
        builder.segments.insert(number, segment.header.uuid);
        let tail = tail_of(&mut files, number, last)?;
        let mut entries = SegmentEntries::default();
        let mut previous = (0, CONTROL_KEY);
        let mut pending = HashMap::new();
        let end = scan(&bytes, segment.header.uuid, tail, |piece| {
            if let Piece::Frame { header, .. } = &piece {
                previous = (header.frame_len() as u32, previous_key(header));
            }
            builder.replay(number, piece, &mut state, &mut entries, &mut pending)
        })?;
        builder.settle(number, pending, &mut state, &mut entries);
        files.open.remove(&number);
        if number == last {
            torn |= cut(disk, &segment, end.offset, end.offset + end.torn)?;
            let mut segment = segment;
            // Only after somebody cut the file short, within the padding of its last frame.
            segment.extend(disk, end.offset)?;
            active = Some(Active {
                segment,
                offset: end.offset,
                previous,
                entries,
            });
        } else {
            seal(disk, &segment.header, end, entries, builder.ledger.staged(number));
        }
    }
    for segment in &prepared {
        builder.segments.insert(segment.header.number, segment.header.uuid);
    }
    builder.complete(last, &mut state);
    unlink_removed(disk, &names, &state)?;
    Ok(Recovered {
        state,
        shards: builder.shards,
        segments: builder.segments,
        active,
        prepared,
        torn,
        ledger: builder.ledger,
        damage: builder.damage,
    })
}

/// What is known about the end of a segment from the base on.
fn tail_of(files: &mut Files<'_>, number: SegmentNumber, last: SegmentNumber) -> Result<Tail, StoreError> {
    if number == last {
        return Ok(Tail::Open);
    }
    let (next, bytes) = files.open(number.next())?;
    Ok(Tail::Sealed(
        snapshot(&bytes, next.header.uuid)
            .and_then(|state| state.before)
            .map(|before| before.end),
    ))
}

/// The metadata at the end of the log: what is removed, what is tiered, and where shards begin. What a torn batch says does
/// not count, as it does not for anything else.
fn ahead(files: &mut Files<'_>, base: SegmentNumber, last: SegmentNumber, state: &State) -> Result<State, StoreError> {
    let mut ahead = state.clone();
    for number in (base.0..=last.0).map(SegmentNumber) {
        let (segment, bytes) = files.open(number)?;
        let tail = tail_of(files, number, last)?;
        scan(&bytes, segment.header.uuid, tail, |piece| {
            if let Piece::Frame {
                offset,
                header,
                payload,
            } = piece
                && header.kind == FrameKind::Control
            {
                ahead.apply(&control(number, offset, &payload)?);
            }
            Ok::<_, StoreError>(())
        })?;
    }
    Ok(ahead)
}

/// Removes the files of segments that the log says are removed: a crash came in between.
fn unlink_removed(disk: &dyn Disk, names: &[String], state: &State) -> Result<(), StoreError> {
    let leftover = |name: &&String| {
        names::parse_segment(name)
            .or_else(|| names::parse_index(name))
            .or_else(|| names::parse_tier(name).filter(|number| state.tiered_of(*number).is_empty()))
            .is_some_and(|number| state.removed.contains(number))
    };
    let mut any = false;
    for name in names.iter().filter(leftover) {
        tracing::info!(file = %name, "removing a file of a segment that had expired");
        any = true;
        disk.unlink(name)
            .map_err(|error| StoreError::io("remove expired log segment", name, &error))?;
    }
    if any {
        disk.sync_dir()
            .map_err(|error| StoreError::io("sync the directory", disk.describe(), &error))?;
    }
    Ok(())
}

/// What the frame behind `header` says about it.
pub(crate) fn previous_key(header: &FrameHeader) -> ShardKey {
    if header.kind == FrameKind::Staged {
        ShardKey(header.shard.0 | STAGED_BIT)
    } else {
        header.shard
    }
}

fn fresh(environment: &Environment, store: Uuid, prepared: VecDeque<Segment>) -> Result<Recovered, StoreError> {
    let mut secret = [0; 32];
    fill(environment, &mut secret)?;
    Ok(Recovered {
        state: State::new(store, secret),
        shards: HashMap::new(),
        segments: prepared
            .iter()
            .map(|segment| (segment.header.number, segment.header.uuid))
            .collect(),
        active: None,
        prepared,
        torn: false,
        ledger: Ledger::default(),
        damage: Vec::new(),
    })
}

fn fill(environment: &Environment, bytes: &mut [u8]) -> Result<(), StoreError> {
    environment
        .entropy
        .fill(bytes)
        .map_err(|error| StoreError::io("get random bytes for", "a new store", &error))
}

fn corrupt(number: SegmentNumber, offset: u64, len: u64, reason: &str) -> StoreError {
    StoreError::Corrupt(Corruption {
        file: names::segment(number),
        offset,
        len,
        shards: Vec::new(),
        reason: reason.to_owned(),
    })
}

fn missing(file: &str) -> StoreError {
    StoreError::Corrupt(Corruption {
        file: file.to_owned(),
        offset: 0,
        len: 0,
        shards: Vec::new(),
        reason: "the segment's file is missing".to_owned(),
    })
}

/// Segments that are being read, so that none is read twice.
struct Files<'a> {
    disk: &'a dyn Disk,
    open: BTreeMap<SegmentNumber, (Segment, Bytes)>,
}

impl Files<'_> {
    fn open(&mut self, number: SegmentNumber) -> Result<(Segment, Bytes), StoreError> {
        if let Some((segment, bytes)) = self.open.get(&number) {
            return Ok((segment.clone(), bytes.clone()));
        }
        let name = names::segment(number);
        let file = self.file(&name)?;
        let failed = |error: std::io::Error| StoreError::io("read log segment", &name, &error);
        let mut bytes = vec![0; file.length().map_err(failed)? as usize];
        let length = file.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(length);
        let header = SegmentHeader::decode(&name, &bytes)?;
        let segment = Segment {
            header,
            file,
            capacity: bytes.len() as u64,
        };
        let bytes = Bytes::from(bytes);
        self.open.insert(number, (segment.clone(), bytes.clone()));
        Ok((segment, bytes))
    }
}

impl Files<'_> {
    fn file(&self, name: &str) -> Result<Arc<dyn DiskFile>, StoreError> {
        self.disk.open(name).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                missing(name)
            } else {
                StoreError::io("open log segment", name, &error)
            }
        })
    }

    /// The header of a segment that need not be read as a whole.
    fn header(&self, number: SegmentNumber) -> Result<SegmentHeader, StoreError> {
        if let Some((segment, _)) = self.open.get(&number) {
            return Ok(segment.header);
        }
        let name = names::segment(number);
        SegmentHeader::read(&name, &*self.file(&name)?)
    }

    /// Whether a segment, whatever its header says, has nothing behind it: there was never a frame.
    fn is_blank(&self, number: SegmentNumber) -> bool {
        let contents = || {
            let file = self.disk.open(&names::segment(number))?;
            let mut bytes = vec![0; file.length()? as usize];
            let length = file.read_at(&mut bytes, 0)?;
            bytes.truncate(length);
            Ok::<_, std::io::Error>(bytes)
        };
        // A header of zeros would mean that the file was wiped.
        contents().is_ok_and(|bytes| (1..=SEGMENT_HEADER_BYTES).contains(&written(&bytes)))
    }
}

fn written(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last as u64 + 1)
}

fn has_sound_frame(bytes: &Bytes, uuid: Uuid) -> bool {
    if written(bytes) <= SEGMENT_HEADER_BYTES {
        return false;
    }
    // As sealed, the scan does not stop at a bad frame.
    scan(bytes, uuid, Tail::Sealed(None), |piece| {
        if matches!(piece, Piece::Frame { .. }) {
            Err(())
        } else {
            Ok(())
        }
    })
    .is_err()
}

/// The state at the start of a segment, when all its chunks are sound.
fn snapshot(bytes: &[u8], uuid: Uuid) -> Option<State> {
    let mut at = SEGMENT_HEADER_BYTES as usize;
    let mut json = Vec::new();
    let mut chunk = 0;
    loop {
        let (header, payload) = FrameHeader::open(bytes.get(at..)?, uuid, at as u64).ok()?;
        if header.kind != FrameKind::Snapshot || header.first != chunk {
            return None;
        }
        json.extend_from_slice(payload);
        chunk += 1;
        if chunk == u64::from(header.count) {
            return serde_json::from_slice(&json).ok();
        }
        at += header.frame_len();
    }
}

/// Overwrites what lies between `start` and `end` with zeros. Tells whether there was anything.
fn cut(disk: &dyn Disk, segment: &Segment, start: u64, end: u64) -> Result<bool, StoreError> {
    if end <= start {
        return Ok(false);
    }
    let name = names::segment(segment.header.number);
    tracing::warn!(segment = %name, offset = start, bytes = end - start, "cut the torn tail of the log");
    fill_with_zeros(&*segment.file, start, end)
        .and_then(|()| segment.file.sync_data())
        .map_err(|error| StoreError::io("cut the torn tail of", format!("{name} in {}", disk.describe()), &error))?;
    Ok(true)
}

fn seal(disk: &dyn Disk, header: &SegmentHeader, end: End, entries: SegmentEntries, staged: StagedGroups) {
    let index = IndexFile {
        segment: header.number,
        uuid: header.uuid,
        end: end.offset,
        entries,
        staged,
    };
    if IndexFile::read(disk, header.number).is_some_and(|old| old.encode() == index.encode()) {
        return;
    }
    if let Err(error) = index.write(disk) {
        tracing::warn!(segment = %names::segment(header.number), %error, "could not write the index of a segment");
    }
}

/// Records that are known to be damaged, but not up to where.
struct Pending {
    first: u64,
    offset: u64,
    len: u64,
}

struct Builder {
    shards: HashMap<ShardKey, ShardIndex>,
    /// Segments whose records are in objects: what their frames say of records is not needed.
    tiered: BTreeSet<SegmentNumber>,
    segments: BTreeMap<SegmentNumber, Uuid>,
    ledger: Ledger,
    damage: Vec<Corruption>,
}

impl Builder {
    /// Takes the entries of a tiered segment from its local index, or from its objects when that is lost.
    fn tiered(
        &mut self,
        disk: &dyn Disk,
        tier: Option<&dyn ObjectTier>,
        number: SegmentNumber,
        ahead: &State,
    ) -> Result<(), StoreError> {
        let objects = ahead.tiered_of(number);
        if objects.is_empty() {
            return Ok(());
        }
        let name = names::tier(number);
        let entries = match (IndexFile::read_as(disk, number, &name), tier) {
            (Some(index), _) => index.entries.0,
            (None, Some(tier)) => {
                tracing::warn!(file = %name, "the index of a tiered segment is missing; reading it from its objects");
                let entries = entries_of(tier, ahead.store, objects)?;
                let index = IndexFile {
                    segment: number,
                    uuid: Uuid([0; 16]),
                    end: 0,
                    entries: SegmentEntries(entries.clone()),
                    staged: StagedGroups::default(),
                };
                if let Err(error) = index.write_as(disk, &name) {
                    tracing::warn!(file = %name, %error, "could not write the index of a tiered segment");
                }
                entries
            }
            (None, None) => {
                return Err(StoreError::TierUnavailable {
                    object: objects[0].key.name(ahead.store),
                    reason: format!("{name} is missing, and the store was opened without its object store"),
                });
            }
        };
        let streams: HashMap<ShardKey, Uuid> = ahead
            .streams
            .values()
            .flat_map(|meta| meta.shards.iter().map(|shard| (shard.key, meta.id)))
            .collect();
        for (shard, entry) in entries {
            let stream = streams.get(&shard);
            if objects.iter().any(|object| Some(&object.key.stream) == stream) {
                self.shards.entry(shard).or_default().push(entry);
            }
        }
        Ok(())
    }

    /// Takes a segment from before the base from its index, or rebuilds that.
    fn sealed(&mut self, files: &mut Files<'_>, number: SegmentNumber, store: Uuid) -> Result<(), StoreError> {
        // An index that tells of damage is not taken: the file may have been put back since.
        let index = IndexFile::read(files.disk, number).filter(|index| !index.entries.tell_of_damage());
        let header = match files.header(number) {
            Err(error @ StoreError::Io { .. }) if index.is_none() => return Err(error),
            Err(error @ StoreError::NewerFormat { .. }) => return Err(error),
            // Whoever reads there is told.
            header => header.ok(),
        };
        if let Some(index) = &index
            && header.as_ref().is_none_or(|header| header.uuid == index.uuid)
        {
            self.take(number, index);
            return Ok(());
        }
        // The snapshot behind it knows which segment that was, where it ended, and what it held of every shard.
        let after = files
            .open(number.next())
            .ok()
            .and_then(|(next, bytes)| snapshot(&bytes, next.header.uuid));
        let sealed = after
            .as_ref()
            .and_then(|state| state.before)
            .filter(|sealed| sealed.segment == number);
        let fits = |uuid: Uuid| sealed.is_none_or(|sealed| sealed.uuid == uuid);
        let own = header.filter(|header| header.store == store && fits(header.uuid));
        if own.is_none() {
            if let Some(index) = index.filter(|index| fits(index.uuid)) {
                self.take(number, &index);
                return Ok(());
            }
            // Nothing is written about it, so that the records are back when the file is.
            tracing::error!(
                segment = %names::segment(number),
                "a log segment is missing, damaged or foreign, and so is its index: its records cannot be read until it is put back"
            );
            let range = [(0, sealed.map_or(0, |sealed| sealed.end))];
            let mut entries = SegmentEntries::default();
            for (shard, known) in after.iter().flat_map(|state| &state.shards) {
                self.gap(*shard, known.last, number, &range, &mut entries);
            }
            return Ok(());
        }
        tracing::warn!(segment = %names::segment(number), "rebuilding the index of a segment from the log");
        let (segment, bytes) = files.open(number)?;
        files.open.remove(&number);
        self.segments.insert(number, segment.header.uuid);
        let mut entries = SegmentEntries::default();
        let mut ranges = Vec::new();
        let end = scan(
            &bytes,
            segment.header.uuid,
            Tail::Sealed(sealed.map(|sealed| sealed.end)),
            |piece| {
                match piece {
                    Piece::Frame {
                        offset,
                        header,
                        payload,
                    } => {
                        self.stage(number, &header);
                        for (shard, before, entry) in visible(number, offset, &header, &payload)? {
                            self.gap(shard, before, number, &ranges, &mut entries);
                            self.push(number, shard, entry, &mut entries);
                        }
                    }
                    Piece::DamagedPayload { offset, header } if header.kind == FrameKind::Records => {
                        self.push(
                            number,
                            header.shard,
                            entry(number, EntryKind::Damaged, offset, &header),
                            &mut entries,
                        );
                    }
                    Piece::DamagedPayload { offset, header } => ranges.push((offset, header.frame_len() as u64)),
                    Piece::DamagedRange { offset, len, .. } => ranges.push((offset, len)),
                }
                Ok(())
            },
        )?;
        for (shard, known) in after.iter().flat_map(|state| &state.shards) {
            self.gap(*shard, known.last, number, &ranges, &mut entries);
        }
        seal(files.disk, &segment.header, end, entries, self.ledger.staged(number));
        Ok(())
    }

    fn take(&mut self, number: SegmentNumber, index: &IndexFile) {
        self.segments.insert(number, index.uuid);
        for group in &index.staged.0 {
            self.ledger.stage(number, *group);
        }
        if self.tiered.contains(&number) {
            return;
        }
        for (shard, entry) in &index.entries.0 {
            self.ledger.publish(number, *shard, entry);
            self.shards.entry(*shard).or_default().push(*entry);
        }
    }

    /// Takes a piece from the base or behind it.
    fn replay(
        &mut self,
        number: SegmentNumber,
        piece: Piece,
        state: &mut State,
        entries: &mut SegmentEntries,
        pending: &mut HashMap<ShardKey, Pending>,
    ) -> Result<(), StoreError> {
        match piece {
            Piece::Frame {
                offset,
                header,
                payload,
            } => {
                self.stage(number, &header);
                for (shard, before, entry) in visible(number, offset, &header, &payload)? {
                    if let Some(lost) = pending.remove(&shard) {
                        let offset = (lost.offset, lost.len);
                        self.damaged(
                            shard,
                            lost.first..=before.max(lost.first),
                            number,
                            offset,
                            state,
                            entries,
                        );
                    } else if let Some(known) = state.shards.get(&shard)
                        && before > known.last
                    {
                        let lost = known.last + 1..=before;
                        self.damaged(shard, lost, number, (offset, 0), state, entries);
                    }
                    self.push(number, shard, entry, entries);
                    if let Some(shard) = state.shards.get_mut(&shard) {
                        shard.advance(entry.last, entry.last_arrival_ms);
                    }
                }
                if header.kind == FrameKind::Control {
                    state.apply(&control(number, offset, &payload)?);
                }
                if header.kind == FrameKind::Producers {
                    state.remember(produced(number, offset, &payload)?);
                }
            }
            Piece::DamagedPayload { offset, header } => {
                let len = header.frame_len() as u64;
                match header.kind {
                    FrameKind::Records => {
                        let lost = header.first..=header.last();
                        self.damaged(header.shard, lost, number, (offset, len), state, entries);
                        if let Some(shard) = state.shards.get_mut(&header.shard) {
                            shard.advance(header.last(), header.time_ms);
                        }
                    }
                    FrameKind::Control => {
                        return Err(corrupt(number, offset, len, "a change of the metadata is damaged"));
                    }
                    FrameKind::Producers => forget_producers(state, number, offset, len),
                    // Publishing it, or reading the snapshot, notices by itself.
                    FrameKind::Staged | FrameKind::Snapshot => {}
                }
            }
            Piece::DamagedRange { offset, len, next } => {
                let single = next.as_ref().filter(|next| u64::from(next.previous_len) == len);
                match single.map(|next| next.previous_shard) {
                    Some(SNAPSHOT_KEY) => {}
                    Some(PRODUCERS_KEY) => forget_producers(state, number, offset, len),
                    Some(key) if key != CONTROL_KEY && key.0 & STAGED_BIT != 0 => {}
                    Some(key) if key != CONTROL_KEY => {
                        let first = state.shards.get(&key).map_or(1, |shard| shard.last + 1);
                        pending.insert(key, Pending { first, offset, len });
                    }
                    _ => {
                        let reason = format!("{}, and metadata may be among them", FrameFault::Header.reason());
                        return Err(corrupt(number, offset, len, &reason));
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks damage whose end no later frame has told.
    fn settle(
        &mut self,
        number: SegmentNumber,
        pending: HashMap<ShardKey, Pending>,
        state: &mut State,
        entries: &mut SegmentEntries,
    ) {
        for (shard, lost) in pending {
            // A record takes at least eight bytes: no more counters than this can have been given.
            let last = lost.first + lost.len / 8;
            self.damaged(
                shard,
                lost.first..=last,
                number,
                (lost.offset, lost.len),
                state,
                entries,
            );
            if let Some(shard) = state.shards.get_mut(&shard) {
                shard.advance(last, 0);
            }
        }
    }

    /// Every record that the state knows of must be in the index.
    fn complete(&mut self, last: SegmentNumber, state: &mut State) {
        let lost: Vec<_> = state
            .shards
            .iter()
            .filter_map(|(key, shard)| {
                let end = self.shards.get(key).map_or(1, ShardIndex::end);
                (end <= shard.last).then_some((*key, end..=shard.last))
            })
            .collect();
        for (shard, lost) in lost {
            self.damaged(shard, lost, last, (0, 0), state, &mut SegmentEntries::default());
        }
        for (key, index) in &mut self.shards {
            if let Some(shard) = state.shards.get(key) {
                index.settle_time(shard.arrival_ms);
            }
        }
    }

    fn damaged(
        &mut self,
        shard: ShardKey,
        lost: std::ops::RangeInclusive<u64>,
        number: SegmentNumber,
        (offset, len): (u64, u64),
        state: &mut State,
        entries: &mut SegmentEntries,
    ) {
        let Some(known) = state.shards.get_mut(&shard) else {
            return;
        };
        known.quarantined = true;
        let arrival_ms = known.arrival_ms;
        let corruption = Corruption {
            file: names::segment(number),
            offset,
            len,
            shards: vec![state.shard_name(shard)],
            reason: format!("records {} to {} of the shard cannot be read", lost.start(), lost.end()),
        };
        tracing::error!(%corruption, "quarantined a shard: it can be read around the damage, and takes no more records");
        self.damage.push(corruption);
        let entry = IndexEntry {
            segment: number,
            kind: EntryKind::Damaged,
            offset: offset as u32,
            len: len as u32,
            first: *lost.start(),
            last: *lost.end(),
            first_arrival_ms: arrival_ms,
            last_arrival_ms: arrival_ms,
        };
        self.push(number, shard, entry, entries);
    }

    /// Fills a hole before the records behind `before`.
    fn gap(
        &mut self,
        shard: ShardKey,
        before: u64,
        number: SegmentNumber,
        ranges: &[(u64, u64)],
        entries: &mut SegmentEntries,
    ) {
        let end = self.shards.get(&shard).map_or(1, ShardIndex::end);
        if before >= end {
            let (offset, len) = ranges.last().copied().unwrap_or((0, 0));
            let entry = IndexEntry {
                segment: number,
                kind: EntryKind::Damaged,
                offset: offset as u32,
                len: len as u32,
                first: end,
                last: before,
                first_arrival_ms: 0,
                last_arrival_ms: 0,
            };
            self.push(number, shard, entry, entries);
        }
    }

    /// Takes note of a staged frame.
    fn stage(&mut self, number: SegmentNumber, header: &FrameHeader) {
        if header.kind == FrameKind::Staged {
            let group = StagedGroup {
                sink_hash: header.before,
                checkpoint: header.first,
                bytes: header.frame_len() as u64,
                last_ms: header.time_ms,
            };
            self.ledger.stage(number, group);
        }
    }

    /// Takes an entry that a frame of segment `home` made visible.
    fn push(&mut self, home: SegmentNumber, shard: ShardKey, entry: IndexEntry, entries: &mut SegmentEntries) {
        if !self.tiered.contains(&home) {
            self.ledger.publish(home, shard, &entry);
            self.shards.entry(shard).or_default().push(entry);
        }
        entries.push(shard, entry);
    }
}

fn control(number: SegmentNumber, offset: u64, payload: &[u8]) -> Result<Control, StoreError> {
    serde_json::from_slice(payload).map_err(|error| {
        corrupt(
            number,
            offset,
            payload.len() as u64,
            &format!("a change of the metadata is not understood: {error}"),
        )
    })
}

fn produced(number: SegmentNumber, offset: u64, payload: &[u8]) -> Result<Vec<Produced>, StoreError> {
    serde_json::from_slice(payload).map_err(|error| {
        let reason = format!("what became of requests of producers is not understood: {error}");
        corrupt(number, offset, payload.len() as u64, &reason)
    })
}

/// It is not known whose requests were lost. Producers that are not known are refused, so nothing is stored twice.
fn forget_producers(state: &mut State, number: SegmentNumber, offset: u64, len: u64) {
    tracing::error!(
        segment = %names::segment(number), offset, bytes = len,
        "what became of requests of producers is damaged: all producers are forgotten, and have to begin a new epoch"
    );
    state.producers.forget_all();
}

fn entry(number: SegmentNumber, kind: EntryKind, offset: u64, header: &FrameHeader) -> IndexEntry {
    IndexEntry {
        segment: number,
        kind,
        offset: offset as u32,
        len: header.frame_len() as u32,
        first: header.first,
        last: header.last(),
        first_arrival_ms: header.time_ms,
        last_arrival_ms: header.time_ms,
    }
}

/// The records that a frame makes visible, each with the shard's last counter before.
fn visible(
    number: SegmentNumber,
    offset: u64,
    header: &FrameHeader,
    payload: &[u8],
) -> Result<Vec<(ShardKey, u64, IndexEntry)>, StoreError> {
    Ok(match header.kind {
        FrameKind::Records => vec![(
            header.shard,
            header.before,
            entry(number, EntryKind::Records, offset, header),
        )],
        FrameKind::Control => match control(number, offset, payload)? {
            Control::Published { frames, .. } => frames
                .iter()
                .map(|frame| {
                    let entry = IndexEntry {
                        segment: frame.segment,
                        kind: EntryKind::Published,
                        offset: frame.offset,
                        len: frame.len,
                        first: frame.first,
                        last: frame.first + u64::from(frame.records) - 1,
                        first_arrival_ms: frame.arrival_ms,
                        last_arrival_ms: frame.arrival_ms,
                    };
                    (frame.shard, frame.before, entry)
                })
                .collect(),
            _ => Vec::new(),
        },
        FrameKind::Staged | FrameKind::Snapshot | FrameKind::Producers => Vec::new(),
    })
}
