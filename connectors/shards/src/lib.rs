//! The shard store: durable, ordered, replayable shards, and the Kinesis Data Streams API over them.
//!
//! A record is acknowledged after `fdatasync`. All shards share one log with one writer (group commit); each shard is a
//! list of extents in it. The crate knows nothing of the engine and is useful alone.
//!
//! ```text
//!   Kinesis API (kinesis)          connectors, jobs (access)
//!          └───────────┬─────────────────┘
//!                 ShardStore (store)
//!            put, stage, publish │ locate, read
//!                 writer (log) ──┤── index, reader
//!                        segment files
//! ```
//!
//! Invariants
//! - Visible implies durable; acknowledged implies visible.
//! - The open shards of a stream tile the hash space; a shard is closed and its children are created by one frame.
//! - Sequence numbers rise in a shard and are never given twice, also over a crash.
//! - Arrival times never go back in a shard, whatever the clock does.
//! - Staged output becomes visible as a whole, once.
//! - A numbered request of a producer is stored once, however often it comes.
//! - A record stays until its stream's retention is over, and is not returned afterwards; a segment's file goes only
//!   after the log says so.
//! - Damaged bytes are an error that names them; they are never skipped in silence and nothing is deleted.
//!
//! | module | |
//! |---|---|
//! | `access` | [`ShardAccess`] and its requests and answers, for whoever reads and writes shards |
//! | `store` | [`ShardStore`] |
//! | `stream`, `ids`, `sequence`, `hashkey` | streams, shards and their numbers |
//! | `consumers` | registered consumers of streams |
//! | `log` | files, frames, writer, recovery |
//! | `state`, `publications`, `account` | metadata as a state machine |
//! | `producers` | producers that number their requests |
//! | `update`, `reshard`, `lifecycle` | changes of a stream: pure decisions |
//! | `view`, `index` | what is durable, in memory |
//! | `retention` | what has expired, and which files nobody needs |
//! | `tier` | sealed segments in object storage |
//! | `reader` | [`SegmentReader`] |
//! | `capacity` | the service's limits per shard and second, where a stream asks for them |
//! | [`mod@env`] | disk, clock and entropy as values |
//! | [`kinesis`] | the `Kinesis_20131202` API |
//! | [`limits`] | every limit by name |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set their stage with files"))]

mod access;
mod account;
mod capacity;
mod consumers;
pub mod env;
mod error;
mod hashkey;
mod ids;
mod index;
pub mod kinesis;
mod lifecycle;
pub mod limits;
mod log;
mod producers;
pub mod publications;
mod reader;
mod reshard;
mod retention;
mod sequence;
mod state;
mod store;
mod stream;
mod tier;
mod update;
mod view;

pub use access::{
    DurablePosition, Extent, Located, ObjectPlace, Position, PublishOutcome, PublishRequest, PutEntry, PutReceipt,
    PutResult, ReadBatch, ReadFrom, ReadLimits, Record, ShardAccess, ShardRef, SharedAccess, StageRequest,
    StagedExtent, StagedRef,
};
pub use capacity::Capacity;
pub use consumers::{ConsumerMeta, ConsumerStatus, ConsumerUpdate};
pub use error::{Corruption, ErrorKind, StoreError};
pub use hashkey::{HashKey, HashRange};
pub use ids::{SegmentNumber, ShardId, ShardKey, StreamName, Uuid};
pub use lifecycle::{StreamStatus, Transition};
pub use log::housekeeping::Housekeeping;
pub use producers::{Producer, ProducerId, PutOnce, PutOnceOutcome};
pub use reader::SegmentReader;
pub use retention::{RetentionOptions, StoreUsage, WhenFull};
pub use sequence::SequenceNumber;
pub use store::{ShardStore, StoreOptions};
pub use stream::{CreateStream, RecordDistribution, ShardMeta, ShardMetric, StreamMeta, StreamMode};
pub use tier::{ObjectTier, TierError};
pub use update::{StreamUpdate, StreamUpdated};
