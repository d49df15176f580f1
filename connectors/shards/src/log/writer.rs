//! The writer: the one thread that appends to the log.
//!
//! ```text
//!  wait for a command ─▶ take what else is queued ─▶ encode ─▶ one write ─▶ one fdatasync ─▶ index, answers ─┐
//!        ▲                                                                                                   │
//!        └───────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Batches grow by themselves while a sync runs; there is no timer. The writer alone gives counters and arrival times
//! and decides on publishes, so these decisions need no lock. So it does on what has expired.
//!
//! | file | |
//! |---|---|
//! | `consumers.rs` | consumers are registered and deregistered |
//! | `metadata.rs` | streams are created, changed and deleted |
//! | `producers.rs` | requests of producers, which are stored once |
//! | `reroute.rs` | records whose shard was closed while they waited |
//! | `expiry.rs` | what has expired leaves; the bound of the disk use |
//! | `tiering.rs` | which objects may exist, which hold records, which are gone |

mod consumers;
mod expiry;
mod metadata;
mod producers;
mod reroute;
mod tiering;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use hashbrown::{HashMap, HashSet};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::draft::{Draft, header};
use super::entry;
use super::frame::{FrameKind, frame_len};
use super::housekeeping::{Housekeeper, Housekeeping};
use super::index_file::IndexFile;
use super::names;
use super::recovery::{Active, Recovered};
use super::refusals::{Refusals, lies_within};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::access::{DurablePosition, PublishOutcome, PutEntry, StagedExtent};
use crate::account::AccountSettings;
use crate::consumers::{ConsumerChange, ConsumerMeta};
use crate::env::Environment;
use crate::error::StoreError;
use crate::ids::{SegmentNumber, ShardKey, StreamName, Uuid};
use crate::index::{EntryKind, IndexEntry};
use crate::limits;
use crate::producers::{Numbered, ProducerId, PutOnceOutcome};
use crate::publications::{Decision, Publication, decide};
use crate::retention::{Ledger, RetentionOptions, StagedGroup};
use crate::state::{Control, PublishedFrame, SealedAt, State};
use crate::stream::{CreateStream, StreamMeta};
use crate::tier::{Candidates, ObjectKey, Planned, Uploaded};
use crate::update::{StreamUpdate, StreamUpdated};
use crate::view::{Effect, View};

pub(crate) use reroute::hash_key;

/// What a record was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The shard that took it: not the one it was sent to when that was closed meanwhile.
    pub(crate) shard: ShardKey,
    pub(crate) counter: u64,
    pub(crate) arrival_ms: u64,
}

/// A record on its way to a shard.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) shard: ShardKey,
    pub(crate) entry: PutEntry,
}

/// Per record: an error is boxed, because there is one for each record and hardly ever any.
pub(crate) type AssignedEach = Vec<Result<Assigned, Box<StoreError>>>;

/// What an append is answered.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) each: AssignedEach,
    /// Whether that was now; means nothing for requests without a producer.
    pub(crate) outcome: PutOnceOutcome,
}

/// Records of one request.
pub(crate) struct Append {
    pub(crate) records: Vec<Routed>,
    /// Which request of which producer it is.
    pub(crate) numbered: Option<Box<Numbered>>,
    pub(crate) reply: Reply<Appended>,
}

/// Records of one shard to stage.
#[derive(Debug)]
pub(crate) struct StagedPayload {
    pub(crate) shard: ShardKey,
    pub(crate) records: u32,
    pub(crate) payload: Vec<u8>,
}

/// Staged frames that a publish makes visible, each with its stream's id and name.
pub(crate) type Staged = Vec<(Uuid, StreamName, StagedExtent)>;

/// What a publish command is answered.
#[derive(Debug)]
pub(crate) enum Publishing {
    Done(PublishOutcome),
    /// Nothing has happened: some frames are of shards that are closed, so their records have to be staged again.
    Moved(Staged),
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer can be asked.
pub(crate) enum Command {
    Append(Append),
    Stage {
        checkpoint: u64,
        sink_hash: u64,
        frames: Vec<StagedPayload>,
        reply: Reply<Vec<StagedExtent>>,
    },
    Publish(Box<PublishCommand>),
    Create {
        request: Box<CreateStream>,
        reply: Reply<StreamMeta>,
    },
    Update {
        stream: StreamName,
        update: Box<StreamUpdate>,
        /// Bytes that the change may take in the log.
        room: usize,
        reply: Reply<StreamUpdated>,
    },
    Delete {
        stream: StreamName,
        reply: Reply<()>,
    },
    /// Makes or withdraws the account's commitment.
    Commit {
        enabled: bool,
        reply: Reply<AccountSettings>,
    },
    Forget {
        job: String,
        reply: Reply<()>,
    },
    Consumer {
        stream: StreamName,
        /// Not one that took its name.
        id: Uuid,
        change: Box<ConsumerChange>,
        reply: Reply<ConsumerMeta>,
    },
    /// Lets go of what has expired.
    Expire {
        reply: Reply<()>,
    },
    TierCandidates {
        reply: Reply<Candidates>,
    },
    TierPlan {
        segment: SegmentNumber,
        streams: Vec<Uuid>,
        reply: Reply<Planned>,
    },
    TierDone {
        uploaded: Box<Uploaded>,
        reply: Reply<()>,
    },
    TierDeleted {
        objects: Vec<ObjectKey>,
        reply: Reply<()>,
    },
}

/// A publish request whose staged frames have been checked.
pub(crate) struct PublishCommand {
    pub(crate) job: String,
    pub(crate) sink: String,
    pub(crate) publication: Publication,
    /// An error only counts when the request is no replay.
    pub(crate) staged: Result<Staged, StoreError>,
    pub(crate) reply: Reply<Publishing>,
}

/// A command with its share of the queue.
pub(crate) struct Queued {
    pub(crate) command: Command,
    /// Bytes that it will take in the log, at most.
    pub(crate) bytes: usize,
    /// Permits of the queue's room, given back when the command is answered.
    pub(crate) permits: u32,
}

// There are hundreds of thousands a second, and each is moved several times.
const _: () = assert!(size_of::<Queued>() <= 96);

/// The room of the queue. Nobody waits for it any more when the writer has ended, however that was.
struct Room(Arc<Semaphore>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Command {
    /// Whether it is about files and objects, not records and streams.
    fn is_upkeep(&self) -> bool {
        matches!(
            self,
            Self::Expire { .. }
                | Self::TierCandidates { .. }
                | Self::TierPlan { .. }
                | Self::TierDone { .. }
                | Self::TierDeleted { .. }
        )
    }

    fn refuse(self, error: StoreError) {
        // Whoever asked may be gone.
        match self {
            Self::Append(append) => drop(append.reply.send(Err(error))),
            Self::Stage { reply, .. } => drop(reply.send(Err(error))),
            Self::Publish(publish) => drop(publish.reply.send(Err(error))),
            Self::Create { reply, .. } => drop(reply.send(Err(error))),
            Self::Consumer { reply, .. } => drop(reply.send(Err(error))),
            Self::Update { reply, .. } => drop(reply.send(Err(error))),
            Self::Commit { reply, .. } => drop(reply.send(Err(error))),
            Self::Delete { reply, .. }
            | Self::Forget { reply, .. }
            | Self::Expire { reply }
            | Self::TierDone { reply, .. }
            | Self::TierDeleted { reply, .. } => drop(reply.send(Err(error))),
            Self::TierCandidates { reply } => drop(reply.send(Err(error))),
            Self::TierPlan { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// An answer that waits for the sync.
enum Answer {
    Append(Reply<Appended>, Result<Appended, StoreError>),
    Stage(Reply<Vec<StagedExtent>>, Result<Vec<StagedExtent>, StoreError>),
    Publish(Reply<Publishing>, Result<Publishing, StoreError>),
    Create(Reply<StreamMeta>, Result<Box<StreamMeta>, StoreError>),
    Consumer(Reply<ConsumerMeta>, Result<Box<ConsumerMeta>, StoreError>),
    Update(Reply<StreamUpdated>, Result<Box<StreamUpdated>, StoreError>),
    Account(Reply<AccountSettings>, AccountSettings),
    Done(Reply<()>, Result<(), StoreError>),
}

impl Answer {
    fn send(self, failure: Option<&StoreError>) {
        fn result<T>(result: Result<T, StoreError>, failure: Option<&StoreError>) -> Result<T, StoreError> {
            match (result, failure) {
                (Ok(_), Some(failure)) => Err(failure.clone()),
                (result, _) => result,
            }
        }
        // Whoever asked may be gone.
        match self {
            Self::Append(reply, outcome) => drop(reply.send(result(outcome, failure))),
            Self::Stage(reply, outcome) => drop(reply.send(result(outcome, failure))),
            Self::Publish(reply, outcome) => drop(reply.send(result(outcome, failure))),
            Self::Create(reply, outcome) => drop(reply.send(result(outcome.map(|meta| *meta), failure))),
            Self::Consumer(reply, outcome) => drop(reply.send(result(outcome.map(|meta| *meta), failure))),
            Self::Update(reply, outcome) => drop(reply.send(result(outcome.map(|updated| *updated), failure))),
            Self::Account(reply, settings) => drop(reply.send(result(Ok(settings), failure))),
            Self::Done(reply, outcome) => drop(reply.send(result(outcome, failure))),
        }
    }
}

/// What the writer is told at start.
#[derive(Debug, Clone)]
pub(crate) struct WriterOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) housekeeping: Housekeeping,
    pub(crate) region: String,
    pub(crate) account: String,
    pub(crate) shards_max: u32,
    pub(crate) lifecycle_delay_ms: u64,
    /// The store has a tier.
    pub(crate) tiered: bool,
    pub(crate) retention: RetentionOptions,
}

/// The log's writing end.
pub(crate) struct Writer {
    environment: Environment,
    options: WriterOptions,
    state: State,
    view: Arc<View>,
    active: Option<Active>,
    prepared: VecDeque<Segment>,
    housekeeper: Housekeeper,
    /// Why there was no next segment, and when that was: a full disk is not asked again for each batch.
    no_segment: Option<(StoreError, u64)>,
    refusals: Refusals,
    /// Names of streams that are gone, with the newest second in their sequence numbers, while that is not over.
    taken_s: HashMap<StreamName, u64>,
    draft: Draft,
    effects: Vec<Effect>,
    /// Producers whose request is in the batch and not encoded yet.
    deciding: HashSet<(Uuid, ProducerId)>,
    /// Frames of the batch that are staged.
    staged: Vec<StagedGroup>,
    ledger: Ledger,
    expiry: expiry::Progress,
    /// Staged extents and index entries name a place; until the batch is placed it counts from the batch's start.
    answers: Vec<Answer>,
}

impl Writer {
    /// Opens the log for writing: the first thing that it appends says so.
    pub(crate) fn open(
        environment: Environment,
        options: WriterOptions,
        recovered: Recovered,
    ) -> Result<(Self, Arc<View>), StoreError> {
        let Recovered {
            state,
            shards,
            segments,
            active,
            prepared,
            torn,
            ledger,
            ..
        } = recovered;
        let clock = expiry::trusted_clock(&state, &environment, &options.retention);
        let view = Arc::new(View::new(&state, shards, segments, clock));
        let housekeeper = Housekeeper::start(options.housekeeping, &environment, state.store, &view)?;
        let mut writer = Self {
            environment,
            options,
            state,
            view: view.clone(),
            active,
            prepared,
            housekeeper,
            no_segment: None,
            refusals: Refusals::default(),
            taken_s: HashMap::new(),
            draft: Draft::default(),
            effects: Vec::new(),
            deciding: HashSet::new(),
            staged: Vec::new(),
            ledger,
            expiry: expiry::Progress::default(),
            answers: Vec::new(),
        };
        writer.take_stock();
        let opened = Control::Opened {
            epoch: writer.state.epoch + 1,
            at_ms: writer.environment.clock.now_ms(),
            counter_skip: if torn { limits::COUNTER_SKIP } else { 0 },
        };
        let gone = writer.gone_streams();
        writer.reserve(frame_len(256) + gone.len() * limits::SWEEP_BYTES)?;
        writer.control(&opened);
        writer.sweep(gone);
        writer.commit()?;
        Ok((writer, view))
    }

    /// The secret that authenticates tokens.
    pub(crate) fn secret(&self) -> [u8; 32] {
        self.state.secret
    }

    /// Starts the thread. It ends when all senders are gone and the queue is empty.
    pub(crate) fn spawn(
        self,
        queue: mpsc::UnboundedReceiver<Queued>,
        room: Arc<Semaphore>,
    ) -> Result<JoinHandle<()>, StoreError> {
        let room = Room(room);
        std::thread::Builder::new()
            .name("shards-writer".to_owned())
            .spawn(move || self.run(queue, &room))
            .map_err(|error| StoreError::io("start", "the log's writer thread", &error))
    }

    fn run(mut self, mut queue: mpsc::UnboundedReceiver<Queued>, room: &Room) {
        let mut batch = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let (mut bytes, mut permits) = (first.bytes, first.permits as usize);
            batch.push(first);
            while bytes < limits::BATCH_BYTES_MAX && batch.len() < limits::BATCH_COMMANDS_MAX {
                let Ok(next) = queue.try_recv() else { break };
                bytes += next.bytes;
                permits += next.permits as usize;
                batch.push(next);
            }
            self.batch(&mut batch, bytes);
            room.0.add_permits(permits);
        }
    }

    /// One group commit.
    fn batch(&mut self, batch: &mut Vec<Queued>, bytes: usize) {
        let mut upkeep = Vec::new();
        if batch.iter().any(|queued| queued.command.is_upkeep()) {
            // By itself, behind the others: it changes files, and needs another kind of room.
            (upkeep, *batch) = std::mem::take(batch)
                .into_iter()
                .partition(|queued| queued.command.is_upkeep());
        }
        self.records(batch, bytes);
        for queued in upkeep {
            self.upkeep(queued.command);
        }
    }

    fn upkeep(&mut self, command: Command) {
        // Whoever asked may be gone.
        match command {
            Command::Expire { reply } => drop(reply.send(self.expire())),
            Command::TierCandidates { reply } => drop(reply.send(self.tier_candidates())),
            Command::TierPlan {
                segment,
                streams,
                reply,
            } => drop(reply.send(self.tier_plan(segment, &streams))),
            Command::TierDone { uploaded, reply } => drop(reply.send(self.tier_done(*uploaded))),
            Command::TierDeleted { objects, reply } => drop(reply.send(self.tier_deleted(objects))),
            _ => {}
        }
    }

    /// Tells that requests are refused: at once, and then every now and then.
    fn tell_refused(&mut self, requests: usize, error: &StoreError) {
        if let Some(requests) = self.refusals.add(requests, self.environment.clock.now_ms()) {
            tracing::error!(requests, %error, "the log refuses appends");
        }
    }

    /// Writes what changes records and metadata.
    fn records(&mut self, batch: &mut Vec<Queued>, bytes: usize) {
        if batch.is_empty() {
            return;
        }
        let ready = self.view.failure().cloned().map_or(Ok(()), Err);
        let room = match ready.and_then(|()| self.make_room(bytes)) {
            // What gives room is let through.
            Err(error @ StoreError::StoreFull { .. }) => {
                let gives = |queued: &Queued| matches!(queued.command, Command::Delete { .. } | Command::Forget { .. });
                let refused: Vec<Queued>;
                (*batch, refused) = std::mem::take(batch).into_iter().partition(gives);
                if !refused.is_empty() {
                    self.tell_refused(refused.len(), &error);
                }
                refused
                    .into_iter()
                    .for_each(|queued| queued.command.refuse(error.clone()));
                if batch.is_empty() {
                    return;
                }
                Ok(())
            }
            other => other,
        };
        if let Err(error) = room.and_then(|()| self.reserve(bytes)) {
            // Nothing has been written or decided: the log is as before.
            self.tell_refused(batch.len(), &error);
            batch.drain(..).for_each(|queued| queued.command.refuse(error.clone()));
            return;
        }
        let mut appends = Vec::with_capacity(batch.len());
        for queued in batch.drain(..) {
            match queued.command {
                Command::Append(append) => self.admit(&mut appends, append),
                other => {
                    self.append(&mut appends);
                    self.other(other);
                }
            }
        }
        self.append(&mut appends);
        let failure = self.commit().err();
        for answer in self.answers.drain(..) {
            answer.send(failure.as_ref());
        }
    }

    /// Encodes the records of several requests: those of one shard go into common frames.
    fn append(&mut self, appends: &mut Vec<Append>) {
        self.reroute(appends);
        let first_frame = self.draft.frames();
        let now = self.environment.clock.now_ms();
        let mut by_shard: HashMap<ShardKey, Vec<(usize, usize)>> = HashMap::new();
        let mut order = Vec::new();
        let mut outcomes: Vec<AssignedEach> = Vec::with_capacity(appends.len());
        for (request, append) in appends.iter().enumerate() {
            for (record, routed) in append.records.iter().enumerate() {
                let places = by_shard.entry(routed.shard).or_default();
                if places.is_empty() {
                    order.push(routed.shard);
                }
                places.push((request, record));
            }
            outcomes.push(vec![
                Ok(Assigned {
                    shard: ShardKey(0),
                    counter: 0,
                    arrival_ms: 0
                });
                append.records.len()
            ]);
        }
        for shard in order {
            let places = &by_shard[&shard];
            if let Err(error) = self.writable(shard) {
                for &(request, record) in places {
                    outcomes[request][record] = Err(Box::new(error.clone()));
                }
                continue;
            }
            let mut rest = &places[..];
            while !rest.is_empty() {
                let entry = |&(request, record): &(usize, usize)| &appends[request].records[record].entry;
                let mut size = 0;
                let count = rest
                    .iter()
                    .take_while(|&place| {
                        let fits = size == 0 || size < limits::FRAME_SPLIT_BYTES;
                        size += encoded_len(entry(place));
                        fits
                    })
                    .count();
                let (frame, later) = rest.split_at(count);
                rest = later;
                let Some(known) = self.state.shards.get_mut(&shard) else {
                    continue;
                };
                let arrival_ms = known.arrival_ms.max(now);
                let mut head = header(FrameKind::Records, shard, count as u32, known.next, arrival_ms);
                head.before = known.last;
                known.advance(head.last(), arrival_ms);
                for (place, counter) in frame.iter().zip(head.first..) {
                    outcomes[place.0][place.1] = Ok(Assigned {
                        shard,
                        counter,
                        arrival_ms,
                    });
                }
                let (first, last) = (head.first, head.last());
                let (offset, len) = self.draft.frame(head, |payload| {
                    for place in frame {
                        let entry = entry(place);
                        entry::encode(payload, &entry.partition_key, entry.explicit_hash_key, &entry.data);
                    }
                });
                self.effects.push(Effect::Records(
                    shard,
                    IndexEntry {
                        segment: SegmentNumber(0),
                        kind: EntryKind::Records,
                        offset: offset as u32,
                        len: len as u32,
                        first,
                        last,
                        first_arrival_ms: arrival_ms,
                        last_arrival_ms: arrival_ms,
                    },
                ));
            }
        }
        if appends.iter().any(|append| append.numbered.is_some()) {
            Self::complete(appends, &mut outcomes);
            self.remember(first_frame, appends, &outcomes);
        }
        for (append, each) in appends.drain(..).zip(outcomes) {
            let outcome = if each.iter().any(Result::is_ok) {
                PutOnceOutcome::Stored
            } else {
                PutOnceOutcome::Nothing
            };
            let appended = Appended { each, outcome };
            self.answers.push(Answer::Append(append.reply, Ok(appended)));
        }
    }

    /// Whether a shard takes records.
    fn writable(&self, shard: ShardKey) -> Result<(), StoreError> {
        match self.state.shards.get(&shard) {
            None => Err(StoreError::Invalid(
                "the shard was deleted with its stream meanwhile: look it up again".to_owned(),
            )),
            Some(known) if known.closed => Err(StoreError::Invalid(format!(
                "{} was split or merged meanwhile: look up its children",
                self.state.shard_name(shard)
            ))),
            Some(known) if known.quarantined => Err(StoreError::Limit(format!(
                "{} is read-only, because part of its records are damaged: restore them, or split or merge the shard, so \
                 that its children take records",
                self.state.shard_name(shard)
            ))),
            Some(known) if known.next > limits::COUNTER_MAX - limits::COUNTER_SKIP => Err(StoreError::Limit(format!(
                "{} has no sequence numbers left: split or merge it",
                self.state.shard_name(shard)
            ))),
            Some(_) => Ok(()),
        }
    }

    fn other(&mut self, command: Command) {
        match command {
            Command::Append(_) => {}
            Command::Stage {
                checkpoint,
                sink_hash,
                frames,
                reply,
            } => {
                let staged = self.stage(checkpoint, sink_hash, frames);
                self.answers.push(Answer::Stage(reply, staged));
            }
            Command::Publish(publish) => {
                let PublishCommand {
                    job,
                    sink,
                    publication,
                    staged,
                    reply,
                } = *publish;
                let outcome = self.publish(job, sink, publication, staged);
                self.answers.push(Answer::Publish(reply, outcome));
            }
            Command::Create { request, reply } => {
                let created = self.create(*request);
                self.answers.push(Answer::Create(reply, created.map(Box::new)));
            }
            Command::Update {
                stream,
                update,
                room,
                reply,
            } => {
                let updated = self.update(&stream, &update, room);
                self.answers.push(Answer::Update(reply, updated.map(Box::new)));
            }
            Command::Delete { stream, reply } => {
                let deleted = self.delete(&stream);
                self.answers.push(Answer::Done(reply, deleted));
            }
            Command::Consumer {
                stream,
                id,
                change,
                reply,
            } => {
                let consumer = self.change_consumer(&stream, id, *change);
                self.answers.push(Answer::Consumer(reply, consumer.map(Box::new)));
            }
            Command::Commit { enabled, reply } => {
                let settings = self.commitment(enabled);
                self.answers.push(Answer::Account(reply, settings));
            }
            Command::Forget { job, reply } => {
                if self.state.publications.contains_key(&job) {
                    self.control(&Control::JobForgotten { job });
                }
                self.answers.push(Answer::Done(reply, Ok(())));
            }
            upkeep => self.upkeep(upkeep),
        }
    }

    fn stage(
        &mut self,
        checkpoint: u64,
        sink_hash: u64,
        frames: Vec<StagedPayload>,
    ) -> Result<Vec<StagedExtent>, StoreError> {
        let now = self.environment.clock.now_ms();
        for frame in &frames {
            // A closed shard's frame is as good as any: publishing stages its records again, for the children.
            if self.state.shards.get(&frame.shard).is_none_or(|shard| !shard.closed) {
                self.writable(frame.shard)?;
            }
        }
        Ok(frames
            .into_iter()
            .map(|frame| {
                let mut head = header(FrameKind::Staged, frame.shard, frame.records, checkpoint, now);
                head.before = sink_hash;
                let (offset, len) = self
                    .draft
                    .frame(head, |payload| payload.extend_from_slice(&frame.payload));
                self.staged.push(StagedGroup {
                    sink_hash,
                    checkpoint,
                    bytes: len as u64,
                    last_ms: now,
                });
                StagedExtent {
                    shard: frame.shard,
                    segment: SegmentNumber(0),
                    segment_uuid: Uuid([0; 16]),
                    offset: offset as u32,
                    len: len as u32,
                    records: frame.records,
                }
            })
            .collect())
    }

    fn publish(
        &mut self,
        job: String,
        sink: String,
        publication: Publication,
        staged: Result<Staged, StoreError>,
    ) -> Result<Publishing, StoreError> {
        let last = self.state.publication(&job, &sink);
        let decision = decide(self.state.retired(&job), last.as_ref(), &publication);
        if let Some(refusal) = decision.refusal(&job, &sink, &publication) {
            return Err(refusal);
        }
        match decision {
            Decision::Replay => Ok(Publishing::Done(PublishOutcome::Replayed)),
            Decision::ReplayAndFence => {
                self.control(&Control::Published {
                    job,
                    sink,
                    publication,
                    frames: Vec::new(),
                });
                Ok(Publishing::Done(PublishOutcome::Replayed))
            }
            _ => {
                let staged = staged?;
                let known: usize = self
                    .state
                    .publications
                    .values()
                    .map(std::collections::BTreeMap::len)
                    .sum();
                if known >= limits::PUBLICATIONS_MAX && self.state.publication(&job, &sink).is_none() {
                    return Err(StoreError::Limit(format!(
                        "{known} sinks have published already, the limit: forget jobs that are gone"
                    )));
                }
                for (stream_id, stream, extent) in &staged {
                    if self.state.streams.get(stream).is_none_or(|meta| meta.id != *stream_id) {
                        return Err(StoreError::StreamNotFound(stream.clone()));
                    }
                    // A shard that is not known was closed so long ago that it is forgotten.
                    if self.state.shards.get(&extent.shard).is_none_or(|shard| shard.closed) {
                        return Ok(Publishing::Moved(staged));
                    }
                    self.writable(extent.shard)?;
                    if !self.ledger.contains(extent.segment) {
                        return Err(StoreError::StagedMismatch {
                            job,
                            sink,
                            reason: format!(
                                "segment {} that held it is gone: it was staged longer ago than staged output is kept",
                                extent.segment
                            ),
                        });
                    }
                }
                let records = staged.iter().map(|(_, _, extent)| u64::from(extent.records)).sum();
                let frames = self.number(staged);
                for frame in &frames {
                    self.effects.push(Effect::Records(
                        frame.shard,
                        IndexEntry {
                            segment: frame.segment,
                            kind: EntryKind::Published,
                            offset: frame.offset,
                            len: frame.len,
                            first: frame.first,
                            last: frame.first + u64::from(frame.records) - 1,
                            first_arrival_ms: frame.arrival_ms,
                            last_arrival_ms: frame.arrival_ms,
                        },
                    ));
                }
                self.control(&Control::Published {
                    job,
                    sink,
                    publication,
                    frames,
                });
                Ok(Publishing::Done(PublishOutcome::Published { records }))
            }
        }
    }

    /// Gives staged records their sequence numbers and arrival time.
    fn number(&self, staged: Staged) -> Vec<PublishedFrame> {
        let now = self.environment.clock.now_ms();
        let mut shards: HashMap<ShardKey, crate::state::ShardState> = HashMap::new();
        staged
            .into_iter()
            .filter(|(_, _, extent)| extent.records > 0)
            .map(|(_, _, extent)| {
                let shard = shards
                    .entry(extent.shard)
                    .or_insert_with(|| self.state.shards[&extent.shard]);
                let frame = PublishedFrame {
                    shard: extent.shard,
                    segment: extent.segment,
                    offset: extent.offset,
                    len: extent.len,
                    records: extent.records,
                    first: shard.next,
                    before: shard.last,
                    arrival_ms: shard.arrival_ms.max(now),
                };
                shard.advance(frame.first + u64::from(frame.records) - 1, frame.arrival_ms);
                frame
            })
            .collect()
    }

    fn control(&mut self, control: &Control) {
        let json = serde_json::to_vec(control).expect("strings, numbers and lists serialise");
        self.draft.control(&json, self.environment.clock.now_ms());
        self.state.apply(control);
    }

    /// Makes room for `bytes` more, in the next segment when this one is full.
    fn reserve(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.draft.clear();
        self.effects.clear();
        self.staged.clear();
        let bytes = bytes as u64;
        if let Some(active) = &self.active
            && active.offset > SEGMENT_HEADER_BYTES
            && active.offset + bytes <= active.segment.capacity
        {
            return Ok(());
        }
        let now = self.environment.clock.now_ms();
        if let Some((error, at_ms)) = &self.no_segment
            && lies_within(*at_ms, now, limits::ROOM_RETRY_MS)
        {
            return Err(error.clone());
        }
        let begun = self.next_segment(bytes, now);
        self.no_segment = begun.as_ref().err().map(|error| (error.clone(), now));
        if begun.is_ok()
            && let Some(requests) = self.refusals.end()
        {
            tracing::info!(requests, "the log takes appends again; so many requests were refused");
        }
        begun
    }

    /// Goes on in the next segment, with room for `bytes` behind the snapshot. After an error the log is as before.
    fn next_segment(&mut self, bytes: u64, now: u64) -> Result<(), StoreError> {
        if let Some(active) = self
            .active
            .as_mut()
            .filter(|active| active.offset == SEGMENT_HEADER_BYTES)
        {
            // Its first batch was torn, so it has no snapshot yet.
            self.state.before = None;
            self.draft.snapshot(&self.state, now);
            let need = SEGMENT_HEADER_BYTES + self.draft.len() as u64 + bytes;
            return active.segment.extend(&*self.environment.disk, need);
        }
        let before = self.active.as_ref().map(|active| SealedAt {
            segment: active.segment.header.number,
            uuid: active.segment.header.uuid,
            end: active.offset,
        });
        self.state.before = before;
        self.draft.snapshot(&self.state, now);
        let need = SEGMENT_HEADER_BYTES + self.draft.len() as u64 + bytes;
        let number = before.map_or(SegmentNumber(1), |before| before.segment.next());
        if self.prepared.is_empty() {
            let capacity = self.options.segment_bytes;
            self.prepared.push_back(self.housekeeper.take(number, capacity)?);
        }
        // A segment that could not be extended stays prepared.
        self.prepared[0].extend(&*self.environment.disk, need)?;
        let Some(next) = self.prepared.pop_front() else {
            return Err(StoreError::Closed);
        };
        self.effects.push(Effect::SegmentStarted(number, next.header.uuid));
        if let Some(old) = self.active.replace(Active::empty(next)) {
            tracing::debug!(segment = %names::segment(number), "the log goes on in a new segment");
            self.housekeeper.seal(IndexFile {
                segment: old.segment.header.number,
                uuid: old.segment.header.uuid,
                end: old.offset,
                entries: old.entries,
                staged: self.ledger.staged(old.segment.header.number),
            });
        }
        self.ledger.know(number);
        self.count_segment(number);
        if self.prepared.is_empty() && self.may_prepare() {
            self.housekeeper.request(number.next(), self.options.segment_bytes);
        }
        Ok(())
    }

    /// Writes and syncs the batch, then makes it visible. After an error nothing is acknowledged any more.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.draft.is_empty() {
            return Ok(());
        }
        let Some(active) = &mut self.active else {
            return Err(StoreError::Closed);
        };
        let Segment { header, file, .. } = &active.segment;
        let (number, uuid, offset) = (header.number, header.uuid, active.offset);
        active.previous = self.draft.seal(uuid, offset, active.previous);
        if let Err(error) = file
            .write_at(self.draft.bytes(), offset)
            .and_then(|()| file.sync_data())
        {
            let failure = StoreError::Poisoned {
                reason: format!(
                    "{} in {}: {error}",
                    names::segment(number),
                    self.environment.disk.describe()
                ),
            };
            tracing::error!(%failure, "the log is poisoned");
            // That was the line about these.
            self.refusals.add(self.answers.len(), self.environment.clock.now_ms());
            self.view.fail(failure.clone());
            return Err(failure);
        }
        active.offset += self.draft.len() as u64;
        let end = active.offset;
        for effect in &mut self.effects {
            if let Effect::Records(shard, entry) = effect {
                if entry.kind == EntryKind::Records {
                    entry.segment = number;
                    entry.offset += offset as u32;
                }
                active.entries.push(*shard, *entry);
                // A stream that was deleted in this very batch is not visible any more, nor is a shard forgotten in it.
                if self.state.shards.contains_key(shard) {
                    self.ledger.add(entry);
                    self.ledger.publish(number, *shard, entry);
                }
            }
        }
        for group in self.staged.drain(..) {
            self.ledger.stage(number, group);
        }
        self.release_gone();
        for answer in &mut self.answers {
            if let Answer::Stage(_, Ok(extents)) = answer {
                for extent in extents {
                    extent.segment = number;
                    extent.segment_uuid = uuid;
                    extent.offset += offset as u32;
                }
            }
        }
        let durable = DurablePosition(u64::from(number.0) << 32 | end);
        self.view.publish(self.effects.drain(..), durable);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when the thread panicked: nobody may wait for an answer that never comes.
        self.view.fail(StoreError::Closed);
    }
}

fn encoded_len(entry: &PutEntry) -> usize {
    entry::encoded_len(&entry.partition_key, entry.explicit_hash_key, &entry.data)
}
