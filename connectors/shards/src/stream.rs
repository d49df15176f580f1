//! Streams and shards as the store knows them.
//!
//! They are stored as JSON and cross sockets in codecs that do not name fields: new fields get `serde(default)`, and none
//! is left out when it is written.

use serde::{Deserialize, Serialize};

use crate::hashkey::{HashKey, HashRange};
use crate::ids::{ShardId, ShardKey, StreamName, Uuid};
use crate::lifecycle::{StreamStatus, Transition};
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

/// How records find their shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RecordDistribution {
    /// By the hash of their partition key, which keeps the order of each key.
    #[default]
    UserPartitionKey,
    /// Spread evenly; keys may be left out and decide on nothing.
    Auto,
}

impl RecordDistribution {
    /// As the service writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserPartitionKey => "USER_PARTITION_KEY",
            Self::Auto => "AUTO",
        }
    }
}

/// A measurement of each shard that a stream can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the service's and say it")]
pub enum ShardMetric {
    IncomingBytes,
    IncomingRecords,
    OutgoingBytes,
    OutgoingRecords,
    WriteProvisionedThroughputExceeded,
    ReadProvisionedThroughputExceeded,
    IteratorAgeMilliseconds,
}

impl ShardMetric {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::IncomingBytes,
        Self::IncomingRecords,
        Self::OutgoingBytes,
        Self::OutgoingRecords,
        Self::WriteProvisionedThroughputExceeded,
        Self::ReadProvisionedThroughputExceeded,
        Self::IteratorAgeMilliseconds,
    ];

    /// As the service writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IncomingBytes => "IncomingBytes",
            Self::IncomingRecords => "IncomingRecords",
            Self::OutgoingBytes => "OutgoingBytes",
            Self::OutgoingRecords => "OutgoingRecords",
            Self::WriteProvisionedThroughputExceeded => "WriteProvisionedThroughputExceeded",
            Self::ReadProvisionedThroughputExceeded => "ReadProvisionedThroughputExceeded",
            Self::IteratorAgeMilliseconds => "IteratorAgeMilliseconds",
        }
    }
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
    /// The creation time in its sequence numbers, seconds since 1970, when that is not `created_ms`: a child's numbers
    /// are greater than its parents', also when both were created within one second; and those of a stream that took the
    /// name of one that was deleted within the second are others.
    #[serde(default)]
    pub sequence_created_s: Option<u64>,
}

impl ShardMeta {
    /// The creation time in its sequence numbers, seconds since 1970.
    pub fn sequence_created_s(&self) -> u64 {
        self.sequence_created_s.unwrap_or(self.created_ms / 1000)
    }

    /// The sequence number of the record with `counter` that arrived at `arrival_ms`.
    pub fn sequence(&self, counter: u64, arrival_ms: u64) -> SequenceNumber {
        SequenceNumber::new(self.sequence_created_s(), self.id.0, counter, arrival_ms / 1000)
    }

    /// Whether it takes records.
    pub fn is_open(&self) -> bool {
        self.closed_ms.is_none()
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
    /// A state that passes by itself; see [`StreamMeta::status`].
    #[serde(default)]
    pub transition: Option<Transition>,
    /// How records find their shard.
    #[serde(default)]
    pub distribution: RecordDistribution,
    /// Measurements of each shard that were asked for, in their order.
    #[serde(default)]
    pub metrics: Vec<ShardMetric>,
    /// The key that the stream is said to be encrypted with. Records are **not** encrypted at rest yet.
    #[serde(default)]
    pub encryption_key: Option<String>,
    /// The resource policy, JSON. Stored, not enforced.
    #[serde(default)]
    pub policy: Option<String>,
    /// MiB/s that were asked for in advance.
    #[serde(default)]
    pub warm_throughput_mibps: Option<u32>,
}

impl StreamMeta {
    /// What clients are told at `now_ms`.
    pub fn status(&self, now_ms: u64) -> StreamStatus {
        self.transition
            .filter(|transition| transition.lasts(now_ms))
            .map_or(StreamStatus::Active, |transition| transition.status)
    }

    /// Whether it was deleted and the time for that is over: it is to be treated as if it did not exist.
    pub fn is_gone(&self, now_ms: u64) -> bool {
        self.transition
            .is_some_and(|transition| transition.status == StreamStatus::Deleting && !transition.lasts(now_ms))
    }

    /// Records that arrived before this moment are not readable any more, milliseconds since 1970.
    pub fn trim_horizon_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(u64::from(self.retention_hours) * 3_600_000)
    }

    /// Whether a shard is closed and all its records are older than the retention: it is not listed any more. Closing
    /// comes after the last arrival.
    pub fn is_expired(&self, shard: &ShardMeta, now_ms: u64) -> bool {
        shard
            .closed_ms
            .is_some_and(|closed| closed < self.trim_horizon_ms(now_ms))
    }

    /// The open shards, in the order of their ids.
    pub fn open_shards(&self) -> impl Iterator<Item = &ShardMeta> {
        self.shards.iter().filter(|shard| shard.is_open())
    }

    /// Everything but the shards, of which there may be thousands.
    pub fn without_shards(&self) -> Self {
        Self {
            name: self.name.clone(),
            arn: self.arn.clone(),
            shards: Vec::new(),
            tags: self.tags.clone(),
            metrics: self.metrics.clone(),
            encryption_key: self.encryption_key.clone(),
            policy: self.policy.clone(),
            ..*self
        }
    }

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
            .find(|shard| shard.is_open() && shard.hash_range.contains(key))
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
    /// How records find their shard.
    pub distribution: RecordDistribution,
    /// MiB/s asked for in advance; on-demand streams only.
    pub warm_throughput_mibps: Option<u32>,
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
            distribution: RecordDistribution::default(),
            warm_throughput_mibps: None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stream with this many shards, created at the fifth second of 1970.
    pub(crate) fn stream(count: u32) -> StreamMeta {
        StreamMeta {
            name: StreamName::new("s").expect("a good name"),
            id: Uuid([1; 16]),
            arn: "arn:aws:kinesis:us-east-1:000000000000:stream/s".to_owned(),
            created_ms: 5_000,
            mode: StreamMode::Provisioned,
            retention_hours: 24,
            record_kib_max: 1024,
            shards: HashRange::tiles(count)
                .zip(0..)
                .map(|(hash_range, index)| ShardMeta {
                    key: ShardKey(u64::from(index) + 1),
                    id: ShardId(index),
                    hash_range,
                    created_ms: 5_000,
                    parent: None,
                    adjacent_parent: None,
                    closed_ms: None,
                    sequence_created_s: None,
                })
                .collect(),
            tags: Vec::new(),
            transition: None,
            distribution: RecordDistribution::default(),
            metrics: Vec::new(),
            encryption_key: None,
            policy: None,
            warm_throughput_mibps: None,
        }
    }

    #[test]
    fn streams_of_the_first_release_are_understood() {
        let old = r#"{"name":"s","id":"01010101-0101-0101-0101-010101010101","arn":"arn:aws:kinesis:us-east-1:000000000000:stream/s",
            "created_ms":5000,"mode":"PROVISIONED","retention_hours":24,"record_kib_max":1024,"shards":[{"key":1,
            "id":"shardId-000000000000","hash_range":{"start":"0","end":"340282366920938463463374607431768211455"},
            "created_ms":5000,"parent":null,"adjacent_parent":null,"closed_ms":null}],"tags":[]}"#;
        assert_eq!(serde_json::from_str::<StreamMeta>(old).unwrap(), stream(1));
    }

    #[test]
    fn closed_shards_expire_when_their_last_record_could_have() {
        let mut meta = stream(2);
        let day = 24 * 3_600_000;
        meta.shards[0].closed_ms = Some(10_000);
        for (now, expired) in [(0, false), (10_000 + day, false), (10_001 + day, true)] {
            assert_eq!(meta.is_expired(&meta.shards[0], now), expired, "{now}");
            assert!(!meta.is_expired(&meta.shards[1], now));
        }
        meta.retention_hours = 48;
        assert!(!meta.is_expired(&meta.shards[0], 10_001 + day));
    }
}
