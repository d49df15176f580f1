//! The snapshot protocol and format: pure decisions inside, an object store at the edge.

pub mod codec;
mod coordinator;
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
    AttemptId, CheckpointId, Generation, JobUid, KeyGroup, KeyGroupRange, Nonce, OperatorUid, RequestId, SavepointName,
};
pub use manifest::{Committable, Manifest, Parent, SectionRef, Snapshot, SnapshotKind, SplitPosition, StateRef};
pub use state::{Section, StateObject, StateReader, StateWriter};
pub use store::{Listed, SnapshotStore};
pub use upload::{Attempt, Uploader};
