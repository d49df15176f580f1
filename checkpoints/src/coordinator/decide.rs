//! Attempts, and the decision that a checkpoint exists.

use super::Coordinator;
use super::ledger::{Ledger, Verdict, judge};
use crate::failpoints::{CKPT_BEGIN, CKPT_MANIFEST_PUT_AFTER, CKPT_MANIFEST_PUT_BEFORE};
use crate::store::Creation;
use crate::upload::Attempt;
use crate::{
    AttemptId, Error, Manifest, Result, SavepointName, Snapshot, SnapshotKind, StateObject, StateRef, StateUpload,
    names,
};
use bytes::Bytes;
use std::sync::Arc;

impl Coordinator {
    /// Begins an attempt at the next checkpoint. One begun before and not decided is over; the new one has the same checkpoint.
    ///
    /// # Errors
    /// [`Error::Fenced`] when a newer coordinator owns the job; [`Error::DecidedEarlier`] when the attempt before had succeeded and
    /// its answer was lost; [`Error::PublishBacklog`] when too many checkpoints wait to be published.
    pub async fn begin(&self) -> Result<Attempt> {
        self.failpoints.reach(CKPT_BEGIN).await?;
        let mut ledger = self.ledger.lock().await;
        ledger.check_backlog()?;
        self.check_fence(&mut ledger).await?;
        if ledger.is_in_doubt() {
            let object = names::checkpoint(&self.job, ledger.next());
            if let Some(bytes) = self.store.get(&object).await? {
                self.accept(&ledger, &object, &bytes, None)?;
            }
        }
        Ok(ledger.begin())
    }

    /// Uploads one worker's state of an attempt. Calls for several workers may run at once.
    ///
    /// # Errors
    /// [`Error::StaleAttempt`] when a newer attempt has begun; otherwise as [`crate::Uploader::put_state`].
    pub async fn put_state(&self, attempt: &Attempt, worker: u32, state: StateObject) -> Result<StateRef> {
        self.ledger.lock().await.check_current(attempt)?;
        self.uploader().put_state(attempt, worker, state).await
    }

    /// Begins to upload one worker's state of an attempt, section by section. Calls for several workers may run at once.
    ///
    /// # Errors
    /// As [`Coordinator::put_state`](crate::Coordinator::put_state).
    pub async fn begin_state(&self, attempt: &Attempt, worker: u32) -> Result<StateUpload> {
        self.ledger.lock().await.check_current(attempt)?;
        self.uploader().begin_state(attempt, worker).await
    }

    /// Checks that a savepoint may be taken under this name.
    ///
    /// # Errors
    /// [`Error::SavepointExists`] when there is one, or one is under way.
    pub async fn check_savepoint_name(&self, name: &SavepointName) -> Result<()> {
        let ledger = self.ledger.lock().await;
        self.check_savepoint_name_in(&ledger, name).await
    }

    async fn check_savepoint_name_in(&self, ledger: &Ledger, name: &SavepointName) -> Result<()> {
        // A name in the ledger without an object is free: a user has removed the savepoint, or it was rewound over.
        let object = names::savepoint(&self.job, name);
        if ledger.is_savepoint_under_way(name) || self.store.head(&object).await?.is_some() {
            return Err(Error::SavepointExists {
                job: self.job.clone(),
                name: name.clone(),
            });
        }
        Ok(())
    }

    /// Decides that the attempt's checkpoint exists. All its state is uploaded and all sinks have pre-committed.
    ///
    /// State that still lies with another job is copied, so the manifest returned, not the snapshot, says where the state is.
    ///
    /// # Errors
    /// [`Error::StaleAttempt`], [`Error::Fenced`], [`Error::DecidedEarlier`] and [`Error::SavepointExists`] as their texts say. After
    /// [`Error::Store`] the outcome is unknown: call again with the same attempt and snapshot, or begin another attempt, which finds
    /// out.
    pub async fn decide(&self, attempt: &Attempt, snapshot: Snapshot) -> Result<Manifest> {
        let mut ledger = self.ledger.lock().await;
        ledger.check_current(attempt)?;
        let Attempt {
            checkpoint,
            attempt: id,
            generation,
        } = *attempt;
        let prefix = names::attempt(&self.job, generation, checkpoint, id);
        ledger.check_state(&prefix, attempt, &snapshot.state)?;

        let mut savepoints = ledger.savepoints.clone();
        if let SnapshotKind::Savepoint(name) = &snapshot.kind {
            self.check_savepoint_name_in(&ledger, name).await?;
            savepoints.insert(name.clone(), checkpoint);
        }
        let mut snapshot = snapshot;
        self.adopt_foreign_state(attempt, &mut snapshot).await?;

        self.failpoints.reach(CKPT_MANIFEST_PUT_BEFORE).await?;
        self.check_fence(&mut ledger).await?;
        let manifest = Manifest {
            job: self.job.clone(),
            checkpoint,
            generation: ledger.generation,
            nonce: self.nonce,
            lineage: self.lineage,
            attempt: id,
            parent: ledger.parent.as_ref().map(|(parent, _)| parent.clone()),
            savepoints,
            snapshot,
        };
        let object = names::checkpoint(&self.job, checkpoint);
        let bytes = manifest.write(&object)?;
        ledger.trying();
        let manifest = match self.store.create(&object, bytes).await? {
            Creation::Created => manifest,
            Creation::Exists(found) => self.accept(&ledger, &object, &found, Some(id))?,
        };
        self.failpoints.reach(CKPT_MANIFEST_PUT_AFTER).await?;
        ledger.decided(Arc::new(manifest.clone()));
        Ok(manifest)
    }

    /// Reads the manifest found where the current attempt's belongs, and returns it if it is that.
    fn accept(&self, ledger: &Ledger, object: &str, bytes: &Bytes, attempt: Option<AttemptId>) -> Result<Manifest> {
        let found = Manifest::read(object, bytes)?;
        match judge(&found, self.nonce, attempt) {
            Verdict::Ours => Ok(found),
            Verdict::Earlier(attempt) => Err(Error::DecidedEarlier {
                checkpoint: found.checkpoint,
                attempt,
            }),
            Verdict::Another => Err(Error::Fenced {
                job: self.job.clone(),
                generation: ledger.generation,
                by: object.to_owned(),
            }),
        }
    }

    /// Copies state of other jobs under a name of ours, for nobody keeps it there for us.
    async fn adopt_foreign_state(&self, attempt: &Attempt, snapshot: &mut Snapshot) -> Result<()> {
        let own = names::job(&self.job);
        for (n, state) in snapshot
            .state
            .iter_mut()
            .enumerate()
            .filter(|(_, state)| !state.object.starts_with(&own))
        {
            let Some(bytes) = self.store.get(&state.object).await? else {
                let referred_by = names::checkpoint(&self.job, attempt.checkpoint);
                return Err(Error::MissingObject {
                    object: state.object.clone(),
                    referred_by,
                });
            };
            if bytes.len() as u64 != state.length || crc32c::crc32c(&bytes) != state.crc32c {
                let detail = "its length or checksum is not what the restored manifest says".to_owned();
                return Err(Error::Corrupt {
                    object: state.object.clone(),
                    detail,
                });
            }
            let Attempt {
                checkpoint,
                attempt: id,
                generation,
            } = *attempt;
            let object = names::adopted(&self.job, generation, checkpoint, id, n);
            self.store.create(&object, bytes).await?;
            state.object = object;
        }
        Ok(())
    }
}
