//! What connectors need of a shard store, wherever it lives.
//!
//! [`ShardAccess`] is implemented by [`crate::ShardStore`] and, in a job's process, by a client of the server's socket;
//! so every request and answer derives serde. Bytes need not move through the socket: [`ShardAccess::locate`] tells
//! where records lie in the log, and a [`crate::SegmentReader`] of the job's own reads them there.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::StoreError;
use crate::hashkey::HashKey;
use crate::ids::{SegmentNumber, ShardId, ShardKey, StreamName, Uuid};
use crate::sequence::SequenceNumber;
use crate::stream::{CreateStream, ShardMeta, StreamMeta};

/// A shard of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardRef {
    /// The stream.
    pub stream: StreamName,
    /// The shard.
    pub shard: ShardId,
}

impl ShardRef {
    /// Names a shard.
    pub fn new(stream: StreamName, shard: ShardId) -> Self {
        Self { stream, shard }
    }
}

impl fmt::Display for ShardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.shard)
    }
}

/// A record to put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutEntry {
    /// 1 to 256 characters; its MD5 decides on the shard.
    pub partition_key: String,
    /// Decides on the shard instead of the partition key.
    pub explicit_hash_key: Option<HashKey>,
    /// The data; with the key at most the stream's `record_kib_max`.
    #[serde(with = "serde_bytes")]
    pub data: Bytes,
}

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReceipt {
    /// The shard.
    pub shard: ShardId,
    /// The place in it.
    pub sequence: SequenceNumber,
}

/// Outcome of one record of a put.
pub type PutResult = Result<PutReceipt, StoreError>;

/// Where reading is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadFrom {
    /// At the oldest record.
    TrimHorizon,
    /// Behind the newest record.
    Latest,
    /// At the first record that arrived at this time, milliseconds since 1970, or later.
    AtTimestamp(u64),
    /// At the record with this number.
    At(SequenceNumber),
    /// Behind the record with this number.
    After(SequenceNumber),
}

/// The next record to read of one shard. Stays valid over restarts; belongs in checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The shard: a position of a deleted stream does not fit one that took its name.
    pub shard: ShardKey,
    /// The counter of the next record, or any number up to it.
    pub counter: u64,
}

/// How far the log is durable. Grows with every group commit; only good for comparing and waking up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DurablePosition(pub u64);

/// How much to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLimits {
    /// Records, at least 1.
    pub records_max: usize,
    /// Bytes of data and keys. One record is read even when it is larger.
    pub bytes_max: usize,
}

/// An object that holds records of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectPlace {
    /// Its name in the tier.
    pub name: String,
    /// Bytes of the object.
    pub bytes: u64,
    /// Bytes of the directory in front.
    pub directory_bytes: u64,
    /// Checksum of the directory.
    pub directory_crc: u32,
}

/// A range of a segment file that holds records of one shard; or records of one shard in an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Name of the file in the log's directory.
    pub file: String,
    /// Number of the segment.
    pub segment: SegmentNumber,
    /// The segment's uuid, which must be the file's.
    pub segment_uuid: Uuid,
    /// First byte.
    pub offset: u32,
    /// Bytes: whole frames.
    pub len: u32,
    /// Counter of the first record.
    pub first: u64,
    /// Counter of the last record.
    pub last: u64,
    /// Arrival of the first record, milliseconds since 1970.
    pub first_arrival_ms: u64,
    /// Arrival of the last record.
    pub last_arrival_ms: u64,
    /// The records were staged: counters and arrival are those of the extent, not of the frame.
    pub staged: bool,
    /// The records are in this object, and the object's directory says where: `offset` counts nothing then.
    pub object: Option<ObjectPlace>,
}

/// Where the next records of a shard lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The shard.
    pub shard: ShardMeta,
    /// The stream, for messages.
    pub stream: StreamName,
    /// Where they start.
    pub from: Position,
    /// In the order of their counters; empty when there is nothing to read yet.
    pub extents: Vec<Extent>,
    /// Behind all records that are visible now.
    pub latest: Position,
    /// Records that arrived before this moment are older than the stream's retention and are not read, milliseconds since
    /// 1970. An extent may hold some.
    pub trim_before_ms: u64,
    /// Records at `from` or behind it have expired, and are not among the extents. Never of a position with counter 0,
    /// which is wherever the shard begins.
    #[serde(default)]
    pub expired: bool,
    /// The shard is closed, so nothing will come behind `latest`.
    pub closed: bool,
    /// The store's clock, milliseconds since 1970.
    pub now_ms: u64,
}

/// A record that was read. It shares one buffer with others of the same read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the shard.
    pub sequence: SequenceNumber,
    /// When it was stored, milliseconds since 1970; never goes back in a shard.
    pub arrival_ms: u64,
    /// The partition key, UTF-8.
    #[serde(with = "serde_bytes")]
    pub partition_key: Bytes,
    /// The hash key, when the producer gave one.
    pub explicit_hash_key: Option<HashKey>,
    /// The data.
    #[serde(with = "serde_bytes")]
    pub data: Bytes,
}

impl Record {
    /// The partition key as text.
    pub fn partition_key(&self) -> &str {
        // Decoding has checked it.
        std::str::from_utf8(&self.partition_key).unwrap_or_default()
    }
}

/// Records of one shard in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBatch {
    /// The records; may be empty.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: Position,
    /// Age of the last record read; 0 when nothing is left.
    pub millis_behind_latest: u64,
    /// Everything is read and the shard is closed.
    pub at_end: bool,
    /// Between the position and these records there were others, which have expired unread. Never of a position with
    /// counter 0, which is wherever the shard begins.
    #[serde(default)]
    pub expired: bool,
}

/// Output of a sink's worker that is to become durable, but not visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRequest {
    /// The job's uid.
    pub job: String,
    /// The sink's uid in the job.
    pub sink: String,
    /// The stream it goes to.
    pub stream: StreamName,
    /// The lineage of the job's checkpoints: two runs under one name, with the checkpoints deleted in between, have two.
    pub lineage: Uuid,
    /// The checkpoint it belongs to.
    pub checkpoint: u64,
    /// The attempt at that checkpoint.
    pub attempt: u64,
    /// The worker.
    pub worker: u32,
    /// The records, in order.
    pub entries: Vec<PutEntry>,
}

/// Staged records of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedExtent {
    /// The shard.
    pub shard: ShardKey,
    /// The segment.
    pub segment: SegmentNumber,
    /// Its uuid.
    pub segment_uuid: Uuid,
    /// First byte of the frame.
    pub offset: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// Records in it.
    pub records: u32,
}

/// What a worker hands to its checkpoint: where its staged output lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedRef {
    /// The job's uid.
    pub job: String,
    /// The sink's uid in the job.
    pub sink: String,
    /// The stream.
    pub stream: StreamName,
    /// The stream's id, so that one of the same name is not mistaken for it.
    pub stream_id: Uuid,
    /// The lineage of the checkpoint.
    #[serde(default)]
    pub lineage: Uuid,
    /// The checkpoint.
    pub checkpoint: u64,
    /// The attempt.
    pub attempt: u64,
    /// The worker.
    pub worker: u32,
    /// The frames, in the order of the records for each shard.
    pub extents: Vec<StagedExtent>,
}

/// Permission to make a checkpoint's output visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// The job's uid.
    pub job: String,
    /// The sink's uid in the job.
    pub sink: String,
    /// The lineage of the checkpoint. One that the store does not know ends the one before.
    pub lineage: Uuid,
    /// The checkpoint, which exists.
    pub checkpoint: u64,
    /// The generation of the job's coordinator.
    pub generation: u64,
    /// Who decided the checkpoint: the same for every replay of it.
    pub decided_by: Uuid,
    /// The output of all workers; may be empty.
    pub staged: Vec<StagedRef>,
}

/// What a publish did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishOutcome {
    /// The records are visible now.
    Published {
        /// How many.
        records: u64,
    },
    /// They were already; nothing changed.
    Replayed,
}

/// A shard store as connectors see it.
#[async_trait]
pub trait ShardAccess: Send + Sync + 'static {
    /// Creates a stream.
    ///
    /// # Errors
    /// [`StoreError::StreamExists`], [`StoreError::ShardLimit`], [`StoreError::Invalid`].
    async fn create_stream(&self, request: CreateStream) -> Result<StreamMeta, StoreError>;

    /// Describes a stream with all its shards.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`].
    async fn describe_stream(&self, stream: &StreamName) -> Result<StreamMeta, StoreError>;

    /// Lists the shards of a stream, open and closed, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`].
    async fn list_shards(&self, stream: &StreamName) -> Result<Vec<ShardMeta>, StoreError> {
        Ok(self.describe_stream(stream).await?.shards)
    }

    /// Turns a starting point into a position.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`], [`StoreError::ShardNotFound`], [`StoreError::ForeignPosition`].
    async fn resolve(&self, shard: &ShardRef, from: ReadFrom) -> Result<Position, StoreError>;

    /// Tells where the next records lie. Answers at once, also when there are none.
    ///
    /// # Errors
    /// As [`Self::resolve`], and [`StoreError::Corrupt`] when the next record is damaged.
    async fn locate(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<Located, StoreError>;

    /// Reads the next records. Answers at once, also when there are none.
    ///
    /// # Errors
    /// As [`Self::locate`].
    async fn read(&self, shard: &ShardRef, from: Position, limits: ReadLimits) -> Result<ReadBatch, StoreError>;

    /// Stores records; answers when they are durable, for each in the order of `entries`. Records of one request for
    /// one shard keep their order. Dropping the future does not take the records back.
    ///
    /// # Errors
    /// When nothing was stored. [`StoreError::Poisoned`]: whether something was, is unknown.
    async fn put_records(&self, stream: &StreamName, entries: Vec<PutEntry>) -> Result<Vec<PutResult>, StoreError>;

    /// Makes records durable, but not visible, and gives them no sequence numbers yet.
    ///
    /// # Errors
    /// As [`Self::put_records`]; a record that cannot be stored refuses the whole request.
    async fn stage(&self, request: StageRequest) -> Result<StagedRef, StoreError>;

    /// Makes staged records visible, all at once. Doing it again, also after a restart or by a newer generation,
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError::StaleCheckpoint`], [`StoreError::StaleGeneration`], [`StoreError::RetiredLineage`] and
    /// [`StoreError::RepeatedCheckpoint`]: the caller is fenced and must stop. [`StoreError::StagedMismatch`].
    async fn publish(&self, request: PublishRequest) -> Result<PublishOutcome, StoreError>;

    /// Forgets what a job has published, when it is deleted for good.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], [`StoreError::Closed`].
    async fn forget_job(&self, job: &str) -> Result<(), StoreError>;

    /// Follows the durable position: it changes after records became visible. Watch it, read, then wait for a change.
    fn subscribe(&self) -> watch::Receiver<DurablePosition>;
}

/// A shared shard store.
pub type SharedAccess = Arc<dyn ShardAccess>;

/// `Bytes` as a byte string.
mod serde_bytes {
    use std::fmt;

    use bytes::Bytes;
    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct BytesVisitor;

        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Bytes, A::Error> {
                // The declared length is not believed.
                let mut buffer = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    buffer.push(byte);
                }
                Ok(buffer.into())
            }
        }

        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}
