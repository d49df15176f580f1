//! The log: one sequence of segment files for all shards of a store.
//!
//! ```text
//!  put, stage, publish, create ...          readers
//!        │ bounded queue                       ▲ extents (index.rs) and pread (reader.rs)
//!        ▼                                     │
//!    writer thread ── one write, one fdatasync ┴─▶ answers, index, durable position
//!        │ segment full
//!        ▼
//!    housekeeping thread: seals the old one (index file), prepares the one after next
//! ```
//!
//! Invariants
//! - Nothing is visible or acknowledged before the `fdatasync` that covers it.
//! - After a failed write or sync nothing is acknowledged until the store is opened again.
//! - A disk without room for another segment is no failed write: nothing was written or decided, so appends are refused
//!   and go on by themselves when there is room. What is stored can be read all the time.
//! - A segment is preallocated, zero-filled and synced, file and directory, before its first frame.
//! - The first frames of a segment are a snapshot of the metadata, so opening reads one segment, not all.
//! - Damage is told apart from a torn tail by the batch that a frame belongs to (see `scan.rs`).
//!
//! | file | |
//! |---|---|
//! | `names.rs` | names of files |
//! | `frame.rs` | the unit of checksumming |
//! | `entry.rs` | records inside a frame's payload |
//! | `segment.rs` | header of a segment file, preparing one |
//! | `scan.rs` | reads a segment frame by frame; torn or damaged |
//! | `index_file.rs` | shard -> extents of a sealed segment |
//! | `recovery.rs` | from files to a state, an index and a place to write on |
//! | `draft.rs` | encodes a batch of commands |
//! | `writer.rs` | the thread: batches, writes, syncs, answers |
//! | `housekeeping.rs` | what the writer must not wait for |
//! | `refusals.rs` | counts what is refused while the log takes nothing |

pub(crate) mod draft;
pub(crate) mod entry;
pub(crate) mod frame;
pub(crate) mod housekeeping;
pub(crate) mod index_file;
pub(crate) mod names;
pub(crate) mod recovery;
pub(crate) mod refusals;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod writer;
