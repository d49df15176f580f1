//! Streams and shards as the store knows them.
//!
//! They are stored as JSON and cross sockets in codecs that do not name fields: new fields get `serde(default)`, and none
//! is left out when it is written.

use serde::{Deserialize, Serialize};

use crate::hashkey::{HashKey, HashRange};
use crate::ids::{ShardId, ShardKey, StreamName, Uuid};
use crate::limits;
use crate::sequence::SequenceNumber;

/// Who decides on the number of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StreamMode {
    /// The user.
    Provisioned,
    /// The store.
    OnDemand,
}

/// A shard's description, and what its sequence numbers are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// Its number in the whole store.
    pub key: ShardKey,
    /// Its number in the stream.
    pub id: ShardId,
    /// The hash keys it takes.
    pub hash_range: HashRange,
    /// Creation, milliseconds since 1970.
    pub created_ms: u64,
    /// The shard it was split from, or the first of the two it was merged from.
    #[serde(default)]
    pub parent: Option<ShardId>,
    /// The second of the two it was merged from.
    #[serde(default)]
    pub adjacent_parent: Option<ShardId>,
    /// When it was closed, milliseconds since 1970; `None` while it is open.
    #[serde(default)]
    pub closed_ms: Option<u64>,
}

impl ShardMeta {
    /// The sequence number of the record with `counter` that arrived at `arrival_ms`.
    pub fn sequence(&self, counter: u64, arrival_ms: u64) -> SequenceNumber {
        SequenceNumber::new(self.created_ms / 1000, self.id.0, counter, arrival_ms / 1000)
    }

    /// The number before the shard's first record.
    pub fn starting_sequence(&self) -> SequenceNumber {
        self.sequence(0, self.created_ms)
    }

    /// The number behind the last record of a closed shard.
    pub fn ending_sequence(&self) -> Option<SequenceNumber> {
        self.closed_ms
            .map(|closed| self.sequence(limits::COUNTER_MAX + 1, closed))
    }
}

/// A stream's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamMeta {
    /// The name.
    pub name: StreamName,
    /// Tells it from other streams of that name, before and after.
    pub id: Uuid,
    /// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`
    pub arn: String,
    /// Creation, milliseconds since 1970.
    pub created_ms: u64,
    /// The capacity mode.
    pub mode: StreamMode,
    /// Hours that records are kept.
    pub retention_hours: u32,
    /// KiB of the largest record, data and key.
    pub record_kib_max: u32,
    /// The shards in the order of their ids, open and closed.
    pub shards: Vec<ShardMeta>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
}

impl StreamMeta {
    /// The shard with this id.
    pub fn shard(&self, id: ShardId) -> Option<&ShardMeta> {
        self.shards
            .binary_search_by_key(&id, |shard| shard.id)
            .ok()
            .map(|at| &self.shards[at])
    }

    /// The open shard that takes `key`. The open shards tile the space, so there is one.
    pub fn route(&self, key: HashKey) -> Option<&ShardMeta> {
        self.shards
            .iter()
            .find(|shard| shard.closed_ms.is_none() && shard.hash_range.contains(key))
    }
}

/// What a new stream is to be like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateStream {
    /// The name.
    pub name: StreamName,
    /// Provisioned with this many shards; `None` is on-demand, which starts with 4.
    pub shards: Option<u32>,
    /// Hours that records are kept.
    pub retention_hours: u32,
    /// KiB of the largest record, data and key: 1,024 to 10,240.
    pub record_kib_max: u32,
    /// Tags, at most 50.
    pub tags: Vec<(String, String)>,
}

impl CreateStream {
    /// A provisioned stream with the service's defaults.
    pub fn provisioned(name: StreamName, shards: u32) -> Self {
        Self {
            shards: Some(shards),
            ..Self::on_demand(name)
        }
    }

    /// An on-demand stream with the service's defaults.
    pub fn on_demand(name: StreamName) -> Self {
        Self {
            name,
            shards: None,
            retention_hours: limits::RETENTION_HOURS,
            record_kib_max: limits::RECORD_KIB,
            tags: Vec::new(),
        }
    }
}
