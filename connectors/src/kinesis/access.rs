//! What the source needs of a stream, wherever it lies: in the embedded store or behind an endpoint.

use super::position::Place;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use tidemill_shards::{HashRange, SequenceNumber};

/// A stream that can be read.
#[async_trait::async_trait]
pub(super) trait StreamAccess: Send + Sync {
    /// Describes the stream with all shards that can be read, open and closed.
    async fn describe(&self) -> Result<StreamView, AccessError>;

    /// Turns a start into the place in a shard where it is now.
    async fn resolve(&self, stream: &StreamView, shard: &ShardView, start: &Start) -> Result<Place, AccessError>;

    /// Opens a shard at a place. Does no I/O.
    fn open(self: Arc<Self>, shard: &str, place: Place) -> Box<dyn ShardFetcher>;
}

/// Fetches the records of one shard.
#[async_trait::async_trait]
pub(super) trait ShardFetcher: Send {
    /// Waits until there are records, or the shard ends.
    async fn next(&mut self) -> Result<Fetch, AccessError>;
}

/// A stream at one moment.
#[derive(Clone, Debug)]
pub(super) struct StreamView {
    pub(super) name: String,
    pub(super) arn: String,
    /// In the order of their ids.
    pub(super) shards: Vec<ShardView>,
}

impl StreamView {
    /// Returns a shard.
    pub(super) fn shard(&self, id: &str) -> Option<&ShardView> {
        self.shards.iter().find(|shard| shard.id == id)
    }
}

/// A shard as its stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardView {
    pub(super) id: String,
    /// The one or two shards that it continues; they may have expired.
    pub(super) parents: Vec<String>,
    pub(super) range: HashRange,
    /// Tells it from shards of this id in other streams of this name.
    pub(super) identity: u64,
}

/// Where reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    TrimHorizon,
    Latest,
    /// Milliseconds since 1970.
    AtTimestamp(u64),
    AtSequenceNumber(Arc<str>),
    AfterSequenceNumber(Arc<str>),
}

/// Records of a shard.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) records: Vec<StreamRecord>,
    /// The place behind them.
    pub(super) next: Place,
    /// Nothing will ever come behind them.
    pub(super) at_end: bool,
    /// The shard's hash keys; told when a record may be an aggregated one.
    pub(super) range: Option<HashRange>,
}

/// A record.
#[derive(Debug)]
pub(super) struct StreamRecord {
    pub(super) sequence: Sequence,
    /// Milliseconds since 1970.
    pub(super) arrival_ms: u64,
    /// UTF-8.
    pub(super) partition_key: Bytes,
    pub(super) data: Bytes,
}

/// A sequence number; those of an endpoint are only compared for equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    Store(SequenceNumber),
    Endpoint(Arc<str>),
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(number) => number.fmt(f),
            Self::Endpoint(number) => f.write_str(number),
        }
    }
}

/// Why a stream could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AccessError {
    /// The shard is not there any more: it has expired, and with it what was not read.
    ShardGone,
    /// Anything else, told in a sentence.
    Failed(String),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShardGone => f.write_str("the shard has expired"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}
