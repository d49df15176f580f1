//! What can go wrong in the store, and who must act.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::hashkey::{HashKey, HashRange};
use crate::ids::{ShardId, StreamName, Uuid};
use crate::lifecycle::StreamStatus;
use crate::producers::ProducerId;

/// Who must act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The caller must change the request.
    User,
    /// The same request may succeed later; nothing was written.
    Retry,
    /// Somebody else did it first.
    Conflict,
    /// A newer owner exists; this one must stop.
    Fenced,
    /// Stored bytes are damaged; an operator must look.
    Corrupt,
    /// The store is broken or was stopped; whether the request took effect is unknown.
    Internal,
}

/// A damaged range of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corruption {
    /// File name of the segment (or of the index).
    pub file: String,
    /// First damaged byte.
    pub offset: u64,
    /// Number of damaged bytes.
    pub len: u64,
    /// The shards whose records lie there, as `stream/shardId-…`; empty when they are not known.
    pub shards: Vec<String>,
    /// What is wrong with the bytes.
    pub reason: String,
}

impl Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shards = if self.shards.is_empty() {
            "unknown".to_owned()
        } else {
            self.shards.join(", ")
        };
        write!(
            f,
            "{} is damaged at bytes {}..{} (shards: {shards}): {}",
            self.file,
            self.offset,
            self.offset + self.len,
            self.reason
        )
    }
}

/// Any error of the store. It crosses process boundaries, so it holds text and no system error values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The data directory belongs to another process.
    #[error(
        "the data directory {directory} is in use by another process: stop it, or choose another directory with --data-dir"
    )]
    Locked {
        /// The directory.
        directory: String,
    },
    /// A name, number or request is not acceptable.
    #[error("{0}")]
    Invalid(String),
    /// No such stream.
    #[error("stream {0} does not exist: create it first, or check the name")]
    StreamNotFound(StreamName),
    /// The name is taken.
    #[error("stream {0} already exists: choose another name, or delete it first")]
    StreamExists(StreamName),
    /// The stream has no such shard.
    #[error("stream {stream} has no shard {shard}")]
    ShardNotFound {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
    },
    /// A position or sequence number was given for another shard, or for a stream of the same name that was deleted.
    #[error("the position does not belong to {stream}/{shard}: {reason}")]
    ForeignPosition {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
        /// How it can be told.
        reason: String,
    },
    /// More shards than the store's limit.
    #[error(
        "{requested} more shards would exceed the store's limit of {limit} (now {current}): raise the shard limit, or delete streams"
    )]
    ShardLimit {
        /// Shards that exist.
        current: u32,
        /// The limit.
        limit: u32,
        /// Shards asked for.
        requested: u32,
    },
    /// Another limit of the store.
    #[error("{0}")]
    Limit(String),
    /// A change is under way, or the stream is not there yet or not any more.
    #[error("stream {stream} is {status}: wait until it is ACTIVE")]
    StreamBusy {
        /// The stream.
        stream: StreamName,
        /// Its state.
        status: StreamStatus,
    },
    /// A closed shard cannot be split or merged again.
    #[error("shard {shard} of stream {stream} is closed: split or merge open shards, its children among them")]
    ShardClosed {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
    },
    /// Only neighbours can be merged.
    #[error("shards {shard} and {adjacent} of stream {stream} are not neighbours: their hash keys must adjoin")]
    NotAdjacent {
        /// The stream.
        stream: StreamName,
        /// The one shard.
        shard: ShardId,
        /// The other shard.
        adjacent: ShardId,
    },
    /// A shard cannot be split there.
    #[error(
        "shard {shard} of stream {stream} cannot be split at hash key {at}: choose one greater than {} and less than {}",
        range.start.0.saturating_add(1), range.end
    )]
    SplitPoint {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
        /// Where the second child was to start.
        at: HashKey,
        /// The shard's range.
        range: HashRange,
    },
    /// A producer goes on with a sequence, and nothing is known of it.
    #[error(
        "producer {producer} is not known to stream {stream}, so whether its request {sequence} is stored is not known either: it \
         was forgotten because many others wrote since, or the stream was created again; begin a new epoch with sequence 0, after \
         looking what is stored when that matters"
    )]
    ProducerUnknown {
        /// The stream.
        stream: StreamName,
        /// The producer.
        producer: ProducerId,
        /// The sequence that was to be stored.
        sequence: u64,
    },
    /// A newer run of the producer has stored something.
    #[error(
        "producer {producer} of stream {stream}: epoch {epoch} is fenced by epoch {newest}: another process writes under this id \
         since; stop this one, or give it another id"
    )]
    ProducerFenced {
        /// The stream.
        stream: StreamName,
        /// The producer.
        producer: ProducerId,
        /// The epoch that asked.
        epoch: u64,
        /// The newest one known.
        newest: u64,
    },
    /// A sequence was left out.
    #[error(
        "producer {producer} of stream {stream}: sequence {sequence} was refused, {expected} is the next: sequences of an epoch \
         begin with 0 and leave none out; send {expected} first, then this one again"
    )]
    SequenceGap {
        /// The stream.
        stream: StreamName,
        /// The producer.
        producer: ProducerId,
        /// The sequence that came.
        sequence: u64,
        /// The one that is next.
        expected: u64,
    },
    /// The sequence was stored so long ago that its outcome is not remembered, or a shard that has its records is forgotten.
    #[error(
        "producer {producer} of stream {stream}: sequence {sequence} was stored, and its outcome is not remembered any more: do not \
         send it again"
    )]
    SequenceForgotten {
        /// The stream.
        stream: StreamName,
        /// The producer.
        producer: ProducerId,
        /// The sequence that came.
        sequence: u64,
    },
    /// The sequence was stored with other records.
    #[error(
        "producer {producer} of stream {stream}: sequence {sequence} was stored with other records: a retry must bring the same \
         records in the same order, and new records the next sequence"
    )]
    SequenceReused {
        /// The stream.
        stream: StreamName,
        /// The producer.
        producer: ProducerId,
        /// The sequence.
        sequence: u64,
    },
    /// The checkpoint is older than the last published one of this job and sink.
    #[error(
        "{job}/{sink}: checkpoint {checkpoint} is older than {published}, which is already published: the job's checkpoints were put \
         back from an older copy; start the job with a restore of the checkpoint or savepoint that you want, or under another name"
    )]
    StaleCheckpoint {
        /// The job.
        job: String,
        /// The sink.
        sink: String,
        /// The checkpoint that was to be published.
        checkpoint: u64,
        /// The last one published.
        published: u64,
    },
    /// The generation is older than one that has published.
    #[error("{job}/{sink}: generation {generation} is fenced by generation {newest}: this job process must stop")]
    StaleGeneration {
        /// The job.
        job: String,
        /// The sink.
        sink: String,
        /// The generation that asked.
        generation: u64,
        /// The newest one known.
        newest: u64,
    },
    /// Another run under the job's name, which does not continue from this one's checkpoints, has published since.
    #[error(
        "{job}/{sink}: checkpoint {checkpoint} is refused: another run of {job}, with checkpoints of its own, has published since this \
         run (lineage {lineage}) last did; stop one of the two, or give it another name; to go on from this run's checkpoints all the \
         same, start the job with a restore of one of them that was published"
    )]
    RetiredLineage {
        /// The job.
        job: String,
        /// The sink.
        sink: String,
        /// The checkpoint that was to be published.
        checkpoint: u64,
        /// The lineage that is over.
        lineage: Uuid,
    },
    /// The checkpoint is published, with other content.
    #[error(
        "{job}/{sink}: checkpoint {checkpoint} was published before with other content: the job's checkpoints were put back from a \
         copy, or two processes run from copies of them; start the job with a restore of the checkpoint or savepoint that you want, \
         or under another name"
    )]
    RepeatedCheckpoint {
        /// The job.
        job: String,
        /// The sink.
        sink: String,
        /// The checkpoint.
        checkpoint: u64,
    },
    /// A staged reference does not fit the publish request or the log.
    #[error("staged output of {job}/{sink} cannot be published: {reason}")]
    StagedMismatch {
        /// The job.
        job: String,
        /// The sink.
        sink: String,
        /// What does not fit.
        reason: String,
    },
    /// Part of the log is damaged.
    #[error(
        "{0}; nothing was skipped or deleted: restore the file from a copy, or read the shard from behind the range"
    )]
    Corrupt(Corruption),
    /// The log was written by a newer release.
    #[error("{file} has format version {found}, this release reads up to {supported}: use the newer release")]
    NewerFormat {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// What is understood.
        supported: u32,
    },
    /// The disk refused before anything was written.
    #[error("cannot {action} {object}: {reason}")]
    Io {
        /// What was tried.
        action: String,
        /// On what.
        object: String,
        /// What the system said.
        reason: String,
    },
    /// The disk has no room for another segment; nothing was written.
    #[error("no space for another log segment in {directory}: free disk space; appends go on by themselves then")]
    NoSpace {
        /// The directory.
        directory: String,
    },
    /// The stream has the service's limits, and the shard has had its share of this second.
    #[error(
        "rate exceeded for {shard} of stream {stream}: try again in a moment, add shards, or take the limits away with the \
         tag {}=unlimited",
        crate::capacity::Capacity::TAG
    )]
    RateExceeded {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
    },
    /// A write or sync failed, so nothing more is acknowledged.
    #[error(
        "the log is poisoned by a failed write ({reason}): whether this append is stored is unknown, and nothing more is \
         taken; look at the disk, then start again, which reads back what is stored"
    )]
    Poisoned {
        /// The failure.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The stream has a consumer of this name.
    #[error("stream {stream} has a consumer {consumer} already: choose another name, or deregister it first")]
    ConsumerExists {
        /// The stream.
        stream: StreamName,
        /// The name.
        consumer: String,
    },
    /// The stream has no such consumer.
    #[error("stream {stream} has no consumer {consumer}: register it first, or check the name")]
    ConsumerNotFound {
        /// The stream.
        stream: StreamName,
        /// The name.
        consumer: String,
    },
    /// The stream has as many consumers as it can.
    #[error("stream {stream} has {limit} consumers, the limit: deregister one first")]
    ConsumerLimit {
        /// The stream.
        stream: StreamName,
        /// The limit.
        limit: usize,
    },
    /// The log has reached the bound that was set for it; nothing was written.
    #[error(
        "the log takes {bytes} bytes, its limit is {limit}, and nothing in it has expired{}: raise the limit, shorten the \
         retention of a stream, or delete streams; appends go on by themselves then",
        if *tiered { " or could be moved to the object store (is it reachable?)" } else { "" }
    )]
    StoreFull {
        /// Bytes of the log.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// Segments could be moved, if the object store took them.
        tiered: bool,
    },
    /// Records are in an object, which cannot be had now.
    #[error("object {object} in the store's tier cannot be used: {reason}; it is tried again")]
    TierUnavailable {
        /// The object.
        object: String,
        /// Why.
        reason: String,
    },
}

impl StoreError {
    /// Wraps a system error.
    pub fn io(action: &str, object: impl Display, error: &std::io::Error) -> Self {
        Self::Io {
            action: action.to_owned(),
            object: object.to_string(),
            reason: error.to_string(),
        }
    }

    /// Who must act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_)
            | Self::StreamNotFound(_)
            | Self::ShardNotFound { .. }
            | Self::ForeignPosition { .. }
            | Self::ShardLimit { .. }
            | Self::Limit(_)
            | Self::ConsumerNotFound { .. }
            | Self::ConsumerLimit { .. }
            | Self::ShardClosed { .. }
            | Self::NotAdjacent { .. }
            | Self::SplitPoint { .. }
            | Self::ProducerUnknown { .. }
            | Self::SequenceGap { .. }
            | Self::SequenceForgotten { .. }
            | Self::SequenceReused { .. }
            | Self::StagedMismatch { .. } => ErrorKind::User,
            Self::StreamExists(_) | Self::StreamBusy { .. } | Self::ConsumerExists { .. } | Self::Locked { .. } => {
                ErrorKind::Conflict
            }
            Self::ProducerFenced { .. }
            | Self::StaleCheckpoint { .. }
            | Self::StaleGeneration { .. }
            | Self::RetiredLineage { .. }
            | Self::RepeatedCheckpoint { .. } => ErrorKind::Fenced,
            Self::NoSpace { .. }
            | Self::RateExceeded { .. }
            | Self::StoreFull { .. }
            | Self::TierUnavailable { .. } => ErrorKind::Retry,
            Self::Corrupt(_) | Self::NewerFormat { .. } => ErrorKind::Corrupt,
            Self::Io { .. } | Self::Poisoned { .. } | Self::Closed => ErrorKind::Internal,
        }
    }
}
