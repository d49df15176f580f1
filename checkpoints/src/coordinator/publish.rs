//! Publishing: permits for sinks, savepoints, and the markers that tell a successor what is done.

use super::Coordinator;
use super::Permit;
use super::ledger::Cause;
use crate::envelope::{self, Kind};
use crate::failpoints::{CKPT_COMMITTED_PUT_AFTER, CKPT_COMMITTED_PUT_BEFORE, CKPT_PERMIT, RESTORE_REPLAY_COMMIT};
use crate::store::Creation;
use crate::{CheckpointId, Error, Generation, JobUid, Manifest, Nonce, Result, SavepointName, SnapshotKind, names};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The content of `committed/<C>.json`. That it exists is what counts.
#[derive(Debug, Serialize, Deserialize)]
struct CommittedRecord {
    job: JobUid,
    checkpoint: CheckpointId,
    generation: Generation,
    nonce: Nonce,
}

impl Coordinator {
    /// Gives the permit to publish a checkpoint: the oldest that is not published. May be asked again for the same one.
    ///
    /// # Errors
    /// [`Error::Fenced`] when a newer coordinator owns the job; it publishes instead. [`Error::OutOfOrder`] when an older checkpoint
    /// comes first, or this one is published.
    pub async fn permit(&self, checkpoint: CheckpointId) -> Result<Permit> {
        let mut ledger = self.ledger.lock().await;
        let Some(next) = ledger.publishing(checkpoint, "published")? else {
            let reason = "it is published already".to_owned();
            return Err(Error::OutOfOrder {
                checkpoint,
                step: "published",
                reason,
            });
        };
        let failpoint = match next.cause {
            Cause::Decided => CKPT_PERMIT,
            Cause::Replay => RESTORE_REPLAY_COMMIT,
        };
        let (lineage, decided_by) = (next.manifest.lineage, next.manifest.nonce);
        self.failpoints.reach(failpoint).await?;
        self.check_fence(&mut ledger).await?;
        Ok(Permit {
            job: self.job.clone(),
            checkpoint,
            generation: ledger.generation,
            lineage,
            decided_by,
        })
    }

    /// Notes that every sink has published the checkpoint; if it was taken as a savepoint, that appears under its name. Calling it
    /// again is harmless.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] when an older checkpoint comes first; [`Error::Store`] when the store fails: call it again.
    pub async fn mark_committed(&self, checkpoint: CheckpointId) -> Result<()> {
        let mut ledger = self.ledger.lock().await;
        let Some(next) = ledger.publishing(checkpoint, "marked as published")? else {
            return Ok(());
        };
        let manifest = Arc::clone(&next.manifest);
        self.failpoints.reach(CKPT_COMMITTED_PUT_BEFORE).await?;
        if let SnapshotKind::Savepoint(name) = &manifest.snapshot.kind {
            self.put_savepoint(name, &manifest).await?;
        }
        let object = names::committed(&self.job, checkpoint);
        let (job, generation, nonce) = (self.job.clone(), ledger.generation, self.nonce);
        let record = CommittedRecord {
            job,
            checkpoint,
            generation,
            nonce,
        };
        // Whoever marked it first, it is true.
        self.store
            .create(&object, envelope::wrap(Kind::Committed, &object, &record)?.into())
            .await?;
        self.failpoints.reach(CKPT_COMMITTED_PUT_AFTER).await?;
        ledger.published();
        Ok(())
    }

    /// A savepoint is decided with its checkpoint (the manifest names it); so a successor that publishes again completes it too.
    async fn put_savepoint(&self, name: &SavepointName, manifest: &Manifest) -> Result<()> {
        let object = names::savepoint(&self.job, name);
        match self.store.create(&object, manifest.write(&object)?).await? {
            Creation::Created => Ok(()),
            Creation::Exists(bytes) if Manifest::read(&object, &bytes)? == *manifest => Ok(()),
            Creation::Exists(_) => Err(Error::SavepointExists {
                job: self.job.clone(),
                name: name.clone(),
            }),
        }
    }
}
