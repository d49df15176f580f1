//! Signatures first; bodies follow in the next commits.

use crate::{CheckpointId, JobUid, Manifest, RestoreSource, Result, SavepointName};
use object_store::ObjectStore;
use std::sync::Arc;

/// The object store that checkpoints lie in. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SnapshotStore {}

/// A checkpoint or savepoint, for display.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// What it says.
    pub manifest: Manifest,
    /// The object's full name.
    pub object: String,
    /// Whether all sinks have published it.
    pub published: bool,
    /// Whether its state is still there.
    pub restorable: bool,
}

impl SnapshotStore {
    /// Opens `file:///path`, `s3://bucket/prefix` or `memory://name`.
    pub fn open(url: &str) -> Result<Self> {
        let _ = url;
        todo!()
    }
    /// Uses a store made by the caller.
    pub fn from_object_store(store: Arc<dyn ObjectStore>) -> Self {
        let _ = store;
        todo!()
    }
    /// Lists a job's newest checkpoints, newest first, at most `limit`.
    pub async fn list_checkpoints(&self, job: &JobUid, limit: usize) -> Result<Vec<Listed>> {
        let _ = (job, limit);
        todo!()
    }
    /// Lists a job's savepoints by name.
    pub async fn list_savepoints(&self, job: &JobUid) -> Result<Vec<Listed>> {
        let _ = job;
        todo!()
    }
    /// Reads the manifest of a checkpoint or savepoint.
    pub async fn manifest(&self, source: &RestoreSource) -> Result<Manifest> {
        let _ = source;
        todo!()
    }
    /// Removes a savepoint; its state goes with the job's next collection.
    pub async fn delete_savepoint(&self, job: &JobUid, name: &SavepointName) -> Result<()> {
        let _ = (job, name);
        todo!()
    }
    /// Removes everything of a job that is not running.
    pub async fn delete_job(&self, job: &JobUid) -> Result<u64> {
        let _ = job;
        todo!()
    }
    #[doc(hidden)]
    pub fn unused(&self) -> Option<CheckpointId> {
        None
    }
}
