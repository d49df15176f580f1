//! Uploads of worker state, from any process of a job.

use crate::failpoints::{CKPT_STATE_PUT_AFTER, CKPT_STATE_PUT_BEFORE};
use crate::store::Creation;
use crate::{
    AttemptId, CheckpointId, Error, Failpoints, Generation, JobUid, Result, SnapshotStore, StateObject, StateRef, names,
};
use serde::{Deserialize, Serialize};

/// One try at one checkpoint. Travels to all workers; names their state objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The attempt, unique within the run of a coordinator.
    pub attempt: AttemptId,
    /// The generation it was begun in.
    pub generation: Generation,
}

/// Uploads state objects of a job's attempts. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Uploader {
    store: SnapshotStore,
    job: JobUid,
    failpoints: Failpoints,
}

impl Uploader {
    /// Makes an uploader for a process of the job that has no coordinator.
    pub fn new(store: SnapshotStore, job: JobUid, failpoints: Failpoints) -> Self {
        Self { store, job, failpoints }
    }

    /// Uploads one worker's state of an attempt, and returns what the manifest has to say about it. An attempt that has failed may
    /// still be uploading: its objects are never referred to and are collected later.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails: the attempt has failed, begin another. [`Error::OutOfOrder`] when the worker has
    /// uploaded other state for the attempt before.
    pub async fn put_state(&self, attempt: &Attempt, worker: u32, state: StateObject) -> Result<StateRef> {
        self.failpoints.reach(CKPT_STATE_PUT_BEFORE).await?;
        let object = names::state(
            &self.job,
            attempt.generation,
            attempt.checkpoint,
            attempt.attempt,
            worker,
        );
        let length = state.length();
        if let Creation::Exists(found) = self.store.create_of(&object, &state.parts).await?
            && !state.is(&found)
        {
            let reason = format!("{object} exists with other content; a worker uploads its state once per attempt");
            return Err(Error::OutOfOrder {
                checkpoint: attempt.checkpoint,
                step: "uploaded",
                reason,
            });
        }
        self.failpoints.reach(CKPT_STATE_PUT_AFTER).await?;
        Ok(StateRef {
            object,
            length,
            crc32c: state.crc32c,
            sections: state.sections,
        })
    }
}
