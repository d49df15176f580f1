//! Tiering: sealed segments move to object storage, grouped by stream, and are read back without the reader noticing.
//!
//! ```text
//!   keeper: candidates? ─▶ plan: names written down ─▶ upload, read back ─▶ done: written down ─▶ index points there
//!              writer           writer, synced           driver              writer, synced        local file may go
//! ```
//! A crash before *done* leaves objects that the log names as planned: they are deleted by name later, never found by
//! listing. Names are used once: segment, attempt and stream. A segment's records are those that its frames made
//! visible, so the object also holds output that was staged in older segments.
//!
//! Before any other object the store's *mark* is created. Where an object is missing and the mark is too, the whole place
//! is away (a directory that is not mounted, a wrong URL): an error that may pass, and no reason to take records for lost.
//!
//! | file | |
//! |---|---|
//! | `object.rs` | the format of an object |
//! | `objects.rs` | [`ObjectTier`]: where objects are kept |
//! | `driver.rs` | plans, uploads, deletes |
//! | `listing.rs` | all objects, as each snapshot lists them |
//! | `cache.rs` | reads ranges and directories of objects, and keeps some |

mod cache;
mod driver;
pub(crate) mod listing;
mod object;
mod objects;

use serde::{Deserialize, Serialize};

pub(crate) use cache::{TierCache, TierFault};
pub(crate) use driver::{Candidates, Planned, Port, Round, entries_of, round};
pub(crate) use object::{Run, directory};
pub use objects::{ObjectTier, TierError};

use crate::ids::{SegmentNumber, ShardKey, Uuid};
use crate::index::IndexEntry;

/// Which object: one stream's records of one segment, uploaded by one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ObjectKey {
    pub(crate) segment: SegmentNumber,
    /// Rises with every attempt at any segment.
    pub(crate) attempt: u64,
    /// The stream's id.
    pub(crate) stream: Uuid,
}

/// The name of the mark that a store leaves where its objects are.
pub(crate) fn mark(store: impl std::fmt::Display) -> String {
    format!("{store}/store")
}

/// What the mark says.
pub(crate) const MARK: &[u8] = b"objects of a shard store: nothing but the store may change or delete them\n";

/// What the errors say when the mark is missing.
pub(crate) const UNMARKED: &str =
    "nothing of this store is there: is the place mounted, and the URL that of the objects?";

impl ObjectKey {
    /// The object's name: `<store>/<segment>-<attempt>-<stream>`.
    pub(crate) fn name(&self, store: Uuid) -> String {
        format!("{store}/{:010}-{:010}-{}", self.segment.0, self.attempt, self.stream)
    }
}

/// An object that holds the records of a stream in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TieredObject {
    pub(crate) key: ObjectKey,
    pub(crate) bytes: u64,
    /// Bytes of the header and the directory at its start.
    pub(crate) directory_bytes: u64,
    /// CRC32C of the header and the directory.
    pub(crate) directory_crc: u32,
}

/// An uploaded segment.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) segment: SegmentNumber,
    pub(crate) objects: Vec<TieredObject>,
    /// One entry for each shard.
    pub(crate) entries: Vec<(ShardKey, IndexEntry)>,
}
