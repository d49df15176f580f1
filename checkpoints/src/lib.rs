//! The snapshot protocol and format: pure decisions inside, an object store at the edge.

pub mod codec;
mod coordinator;
mod error;
mod failpoints;
mod ids;
pub mod limits;
mod manifest;
mod state;
mod store;

pub use coordinator::{
    Attempt, Collected, Coordinator, Permit, Restore, RestoreFrom, RestoreSource, StartOptions, Uploader,
};
pub use error::{Error, ErrorKind, Result};
pub use failpoints::{Action, Failpoints, When};
pub use ids::{
    AttemptId, CheckpointId, Generation, JobUid, KeyGroup, KeyGroupRange, Nonce, OperatorUid, RequestId, SavepointName,
};
pub use manifest::{Committable, Manifest, Parent, SectionRef, Snapshot, SnapshotKind, SplitPosition, StateRef};
pub use state::{Section, StateObject, StateReader, StateWriter};
pub use store::{Listed, SnapshotStore};
