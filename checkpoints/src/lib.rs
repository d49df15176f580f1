//! The snapshot protocol and format: pure decisions inside, an object store at the edge.
//!
//! A job's state outlives its processes as *checkpoints* in an object store: a directory, a cloud's, or memory for tests. This crate knows
//! how a checkpoint comes to exist exactly once, who may publish its output, and what a restarted process has to do first. It knows
//! nothing of timely, Arrow or SQL: state and committables are bytes with names.
//!
//! Used by the engine (takes and restores checkpoints) and by the server (lists them, deletes savepoints and jobs).
//!
//! # The protocol
//!
//! Of the store it needs create-if-absent, read and delete. No object is ever changed and no name used twice; a listing is a hint,
//! never the truth.
//!
//! ```text
//!   process 1 (generation 1)                    object store                     process 2 (generation 2)
//!   ───────────────────────────────             ────────────────────             ────────────────────────────────
//!   Coordinator::start   ── create ──▶          gen/1.json
//!   begin                                                                        (the state is captured; no record
//!   put_state, per worker ─ create ──▶          state/1/7/1/0                     flows while it is)
//!                         ─ create ──▶          state/1/7/1/1
//!   (sinks pre-commit: durable, invisible)
//!   decide               ── create ──▶          checkpoint/7.json   ◀══ from here on, checkpoint 7 exists
//!   permit(7)
//!   (sinks publish)      ✗ killed
//!                                               gen/2.json          ◀── create ── Coordinator::start: process 1 is fenced
//!                                               checkpoint/7.json   ◀── read ──── Restore { manifest, replay: [7] }
//!                                                                                permit(7), sinks publish again (idempotent)
//!                                               committed/7.json    ◀── create ── mark_committed(7)
//!                                               state/1/7/1/*       ◀── read ──── StateReader
//!                                                                                begin: checkpoint 8
//! ```
//!
//! 1. **Claim.** The highest `gen/<G>` owns the job. Before every decisive step its owner looks whether `gen/<G+1>` exists; if so it is
//!    [fenced](Error::Fenced). Even one that does not look in time loses: each checkpoint number is created once. Whoever begins to
//!    count checkpoints, or goes back to a choice, begins a [`Lineage`], which all claims and checkpoints after it carry on.
//! 2. **Decide.** Creating `checkpoint/<C>` makes checkpoint C exist. Numbers have no gap. A failed attempt keeps its number and takes a
//!    new attempt id, so nothing it has uploaded can be mistaken for the next one's.
//! 3. **Publish.** In order, with a [`Permit`]; then the marker `committed/<C>`. Within a lineage, sinks refuse a permit older than the
//!    last and accept the same one again; a new lineage may count from anywhere, and ends the one before.
//! 4. **Restore.** The newest checkpoint is found from the base in the last claim, upwards. What has no marker is published again
//!    before one record is read. A job that once had a checkpoint and has none now is an [error](Error::CheckpointMissing).
//! 5. **Choice.** A savepoint or an older checkpoint is restored when a user asks for it: once per request, and over all crashes until
//!    a checkpoint continues from it. Output decided but not published on the way left behind is never published.
//! 6. **Collection.** [`Coordinator::gc`] removes what no live checkpoint and no savepoint refers to, never what belongs to another job.
//!
//! An answer that was lost is found out by reading: our own nonce and attempt in the place of ours is success; our own nonce with
//! another attempt means that an attempt given up as failed had succeeded ([`Error::DecidedEarlier`]); another's nonce means fenced.
//! In both latter cases the process ends and its successor restores that checkpoint. [`Error::kind`] says who must act.
//!
//! A savepoint is a checkpoint whose manifest carries the savepoint's name ([`SnapshotKind::Savepoint`]); `savepoint/<name>.json` appears
//! when it has been published, by whichever process completes that.
//!
//! # Example
//!
//! ```
//! use tidemill_checkpoints::*;
//! # fn snapshot(state: Vec<StateRef>) -> Snapshot {
//! #     Snapshot { kind: SnapshotKind::Periodic, tick: 1, created_ms: 0, wall_time_ms: 0, state, sources: Default::default(),
//! #         watermarks: Default::default(), committables: Default::default(), plan_hash: String::new(),
//! #         operators: Default::default(), key_group_count: 256, parallelism: 1 }
//! # }
//! # fn main() -> Result<()> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
//! let store = SnapshotStore::open("memory://example")?;
//! let options = || StartOptions {
//!     job: JobUid::new("clicks").expect("a valid name"),
//!     nonce: Nonce::random(),
//!     restore: RestoreFrom::Latest,
//!     started_ms: 0,
//!     failpoints: Failpoints::none(),
//! };
//! let (coordinator, restore) = Coordinator::start(store.clone(), options()).await?;
//! assert!(restore.is_none());
//!
//! let attempt = coordinator.begin().await?;
//! let mut state = StateWriter::new();
//! state.append(&"count".into(), "total", None, "42")?;
//! let state = coordinator.put_state(&attempt, 0, state.finish()).await?;
//! let manifest = coordinator.decide(&attempt, snapshot(vec![state])).await?;
//!
//! // Killed before it publishes. The next process:
//! let (coordinator, restore) = Coordinator::start(store.clone(), options()).await?;
//! let restore = restore.expect("there is a checkpoint");
//! for manifest in &restore.replay {
//!     let _permit = coordinator.permit(manifest.checkpoint).await?; // for the sinks
//!     coordinator.mark_committed(manifest.checkpoint).await?;
//! }
//! let sections = StateReader::new(store, &restore.manifest).read(&"count".into(), None).await?;
//! assert_eq!(sections[0].content, "42");
//! coordinator.gc(3).await?;
//! # Ok(()) })
//! # }
//! ```
//!
//! # Files
//!
//! | file | what it holds |
//! |---|---|
//! | `coordinator.rs`, `coordinator/` | the steps of the protocol and the decisions in them |
//! | `upload.rs` | attempts, and the upload of state from any process |
//! | `manifest.rs` | what a checkpoint says |
//! | `state.rs`, `state/` | state objects: format, writer, reader |
//! | `envelope.rs` | version and checksum around every JSON object |
//! | `names.rs` | every object name |
//! | `store.rs`, `store/` | the object store: URLs, retries, listing |
//! | `codec.rs` | typed values between our own processes |
//! | `failpoints.rs` | faults by name, for tests |
//! | `doubles.rs`, `doubles/` | servers like those of the clouds, for tests (feature `doubles`) |
//! | `ids.rs`, `limits.rs`, `error.rs` | newtypes, limits, errors |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set their stage with files"))]

pub mod codec;
mod coordinator;
#[cfg(any(test, feature = "doubles"))]
pub mod doubles;
mod envelope;
mod error;
pub mod failpoints;
#[cfg(test)]
mod faulty;
mod ids;
pub mod limits;
mod manifest;
pub mod names;
mod state;
mod store;
#[cfg(test)]
mod test_support;
mod upload;

pub use coordinator::{Coordinator, Permit, Removed, Restore, RestoreFrom, RestoreSource, StartOptions};
pub use error::{Error, ErrorKind, Result};
pub use failpoints::Failpoints;
pub use ids::{
    AttemptId, CheckpointId, Generation, JobUid, KeyGroup, KeyGroupRange, Lineage, Nonce, OperatorUid, RequestId,
    SavepointName,
};
pub use manifest::{Committable, Manifest, Parent, SectionRef, Snapshot, SnapshotKind, SplitPosition, StateRef};
pub use state::{Section, StateObject, StateReader, StateWriter};
pub use store::{Listed, OpenOptions, SnapshotStore};
pub use upload::{Attempt, StateUpload, Uploader};
