//! The messages about shards: one call per method of [`tidemill_shards::ShardAccess`].
//!
//! Calls of one connection begin in the order in which they were sent, so that two puts that a sink sends one after the
//! other keep their order; they end in any order.

use serde::{Deserialize, Serialize};
use tidemill_shards::{
    CreateStream, DurablePosition, Located, Position, PublishOutcome, PublishRequest, PutEntry, PutResult, ReadBatch,
    ReadFrom, ReadLimits, ShardRef, StageRequest, StagedRef, StoreError, StreamMeta, StreamName,
};

/// A call of a job to the server's store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum StoreCall {
    /// Creates a stream.
    CreateStream(CreateStream),
    /// Describes a stream with all its shards.
    Describe(StreamName),
    /// Turns a starting point into a position.
    Resolve(ShardRef, ReadFrom),
    /// Tells where the next records lie.
    Locate(ShardRef, Position, ReadLimits),
    /// Reads the next records, when the job cannot read the segment itself.
    Read(ShardRef, Position, ReadLimits),
    /// Stores records.
    Put(StreamName, Vec<PutEntry>),
    /// Makes records durable, but not visible.
    Stage(StageRequest),
    /// Makes staged records visible.
    Publish(PublishRequest),
    /// Forgets what the job has published.
    ForgetJob(String),
}

/// The answer to a call: its variant is that of the call, or an error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum StoreReply {
    /// To `CreateStream` and `Describe`.
    Stream(StreamMeta),
    /// To `Resolve`.
    Position(Position),
    /// To `Locate`.
    Located(Located),
    /// To `Read`.
    Batch(ReadBatch),
    /// To `Put`.
    Receipts(Vec<PutResult>),
    /// To `Stage`.
    Staged(StagedRef),
    /// To `Publish`.
    Published(PublishOutcome),
    /// To `ForgetJob`.
    Done,
    /// To any.
    Error(StoreError),
}

/// News of the store.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum StoreEvent {
    /// Everything up to here is durable and visible. Positions between two events are left out.
    Durable(DurablePosition),
}
