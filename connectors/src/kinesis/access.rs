//! What the source needs of a stream, wherever it lies: in the embedded store or behind an endpoint.

use super::error::StreamError;
use super::position::Place;
use bytes::Bytes;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use tidemill_shards::{HashRange, SequenceNumber};

/// A stream that can be read.
#[async_trait::async_trait]
pub(super) trait StreamAccess: Send + Sync {
    /// Looks once whether the stream is there; returns its ARN.
    async fn find(&self) -> Result<String, StreamError>;

    /// Describes the stream with all shards that can be read, open and closed.
    async fn describe(&self) -> Result<StreamView, StreamError>;

    /// Turns a start into the place in a shard where it is now.
    async fn resolve(&self, stream: &StreamView, shard: &ShardView, start: &Start) -> Result<Place, StreamError>;

    /// Opens a shard at a place. Does no I/O.
    fn open(self: Arc<Self>, shard: &str, place: Place) -> Box<dyn ShardFetcher>;
}

/// Fetches the records of one shard.
#[async_trait::async_trait]
pub(super) trait ShardFetcher: Send {
    /// Waits until there are records, or the shard ends.
    async fn next(&mut self) -> Result<Fetch, StreamError>;
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
    /// Says whether this is another stream than the one that had a shard of this id and identity.
    ///
    /// Within a stream, identities never go down as ids go up. So a shard that has the id, or a lower one, and a higher
    /// identity is of a stream that was created later, also when the shard itself is not in it.
    pub(super) fn is_another(&self, id: &str, identity: u64) -> bool {
        self.shards.iter().any(|shard| match shard.id.as_str().cmp(id) {
            Ordering::Equal => shard.identity != identity,
            Ordering::Less => shard.identity > identity,
            Ordering::Greater => shard.identity < identity,
        })
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
    /// Others were in front of them, behind the place that was asked for, and have expired unread. An endpoint does not
    /// tell.
    pub(super) expired: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_shards::HashKey;

    #[test]
    fn another_stream_is_told_also_without_the_shard() {
        let view = |shards: &[(&str, u64)]| StreamView {
            name: "clicks".to_owned(),
            arn: String::new(),
            shards: shards
                .iter()
                .map(|(id, identity)| ShardView {
                    id: (*id).to_owned(),
                    parents: Vec::new(),
                    range: HashRange {
                        start: HashKey(0),
                        end: HashKey(1),
                    },
                    identity: *identity,
                })
                .collect(),
        };
        let same = view(&[("shardId-000000000003", 13), ("shardId-000000000005", 15)]);
        for (id, identity) in [("3", 13), ("4", 14), ("2", 12), ("6", 16)] {
            let id = format!("shardId-{id:0>12}");
            assert!(!same.is_another(&id, identity), "{id}");
        }
        let later = view(&[("shardId-000000000000", 20), ("shardId-000000000001", 21)]);
        for (id, identity) in [("0", 10), ("1", 11), ("5", 15)] {
            let id = format!("shardId-{id:0>12}");
            assert!(later.is_another(&id, identity), "{id}");
        }
    }
}
