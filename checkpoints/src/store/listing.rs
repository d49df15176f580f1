//! Checkpoints and savepoints for display, and removal.

use super::{SnapshotStore, local};
use crate::coordinator::{find_missing_state, last_checkpoint, last_record};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::names::{self, Parsed};
use crate::{CheckpointId, Error, Generation, JobUid, Manifest, RestoreSource, Result, SavepointName};
use std::collections::BTreeSet;

/// A checkpoint or savepoint, for display.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// What it says.
    pub manifest: Manifest,
    /// The object's full name.
    pub object: String,
    /// Whether all sinks have published it. Always so for a savepoint.
    pub published: bool,
    /// Whether its state is still there.
    pub restorable: bool,
}

impl SnapshotStore {
    /// Lists a job's newest checkpoints, newest first, at most `limit`. Costs some requests for each of them.
    ///
    /// # Errors
    /// When a manifest is damaged or the store fails.
    pub async fn list_checkpoints(&self, job: &JobUid, limit: usize) -> Result<Vec<Listed>> {
        let base = last_record(self, job).await?.and_then(|record| record.base);
        let newest = last_checkpoint(self, job, base.map_or(0, |base| base.0))
            .await?
            .or(base);
        let mut listed = Vec::new();
        for checkpoint in (1..=newest.map_or(0, |newest| newest.0))
            .rev()
            .take(limit)
            .map(CheckpointId)
        {
            let object = names::checkpoint(job, checkpoint);
            let Some(manifest) = self.read_manifest(&object).await? else {
                break;
            };
            let published = self.head(&names::committed(job, checkpoint)).await?.is_some();
            let restorable = find_missing_state(self, &manifest).await?.is_none();
            listed.push(Listed {
                manifest,
                object,
                published,
                restorable,
            });
        }
        Ok(listed)
    }

    /// Lists a job's savepoints by name.
    ///
    /// # Errors
    /// When a savepoint is damaged or the store fails.
    pub async fn list_savepoints(&self, job: &JobUid) -> Result<Vec<Listed>> {
        let mut known: BTreeSet<SavepointName> = BTreeSet::new();
        for (name, _) in self.list(&names::savepoints(job)).await? {
            if let Some(Parsed::Savepoint(name)) = names::parse(job, &name) {
                known.insert(name);
            }
        }
        // A listing may lag behind; the newest checkpoint knows them too.
        if let Some(newest) = self.list_checkpoints(job, 1).await?.pop() {
            known.extend(newest.manifest.savepoints.into_keys());
        }
        let mut listed = Vec::new();
        for name in known {
            let object = names::savepoint(job, &name);
            if let Some(manifest) = self.read_manifest(&object).await? {
                let restorable = find_missing_state(self, &manifest).await?.is_none();
                listed.push(Listed {
                    manifest,
                    object,
                    published: true,
                    restorable,
                });
            }
        }
        Ok(listed)
    }

    /// Reads the manifest of a checkpoint or savepoint; none for [`RestoreSource::Nothing`].
    ///
    /// # Errors
    /// [`Error::NothingToRestore`] when there is none of that name; [`Error::Corrupt`] when it is damaged.
    pub async fn manifest(&self, source: &RestoreSource) -> Result<Option<Manifest>> {
        let Some(object) = names::restore_source(source) else {
            return Ok(None);
        };
        let manifest = self.read_manifest(&object).await?;
        manifest.map(Some).ok_or(Error::NothingToRestore { object })
    }

    /// Removes a savepoint; its state goes with the job's next collection.
    ///
    /// # Errors
    /// [`Error::NothingToRestore`] when there is none of that name; [`Error::SavepointInUse`] while the job has been rewound to it and
    /// has no checkpoint of its own since. Whether another job is about to restore it is not known here.
    pub async fn delete_savepoint(&self, job: &JobUid, name: &SavepointName) -> Result<()> {
        let object = names::savepoint(job, name);
        if self.head(&object).await?.is_none() {
            return Err(Error::NothingToRestore { object });
        }
        if let Some(chosen) = last_record(self, job).await?.and_then(|record| record.chosen)
            && chosen.source == RestoreSource::Savepoint(job.clone(), name.clone())
        {
            let newest = self.list_checkpoints(job, 1).await?.pop();
            if newest.is_none_or(|newest| newest.manifest.generation < chosen.since) {
                return Err(Error::SavepointInUse {
                    job: job.clone(),
                    name: name.clone(),
                });
            }
        }
        self.delete(vec![object]).await
    }

    /// Removes everything of a job, its savepoints too, and returns how many objects that were. The job must not be running, and its
    /// uid must not be used again. A crash in between leaves a job that refuses to start; call it again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_job(&self, job: &JobUid) -> Result<u64> {
        let (claims, others): (Vec<_>, Vec<_>) = self
            .list(&names::job(job))
            .await?
            .into_iter()
            .map(|(name, _)| name)
            .partition(|name| matches!(names::parse(job, name), Some(Parsed::Generation(_))));
        let removed = (claims.len() + others.len()) as u64;
        // Claims last: as long as one is there, the job is not taken for a new one.
        self.delete(others).await?;
        self.delete(claims).await?;
        Ok(removed)
    }

    /// Reads and verifies a manifest by its object name; none when there is none.
    pub(crate) async fn read_manifest(&self, object: &str) -> Result<Option<Manifest>> {
        let Some(bytes) = self.get(object).await? else {
            return Ok(None);
        };
        let (actual, limit) = (bytes.len() as u64, MANIFEST_BYTES_MAX);
        if actual > limit {
            return Err(Error::TooLarge {
                what: object.to_owned(),
                actual,
                limit,
            });
        }
        Manifest::read(object, &bytes).map(Some)
    }

    /// Removes what killed processes of older generations left half-written, where the store has such things.
    pub(crate) async fn sweep_half_written(&self, job: &JobUid, before: Generation) -> Result<u64> {
        let Some(directory) = self.directory.clone() else {
            return Ok(0);
        };
        let job = job.clone();
        let swept = tokio::task::spawn_blocking(move || local::sweep_half_written(&directory, &job, before)).await;
        match swept.map_err(std::io::Error::other).flatten() {
            Ok(removed) => Ok(removed),
            Err(error) => {
                // They are waste, not harm; the next run tries again.
                tracing::warn!(%error, "could not remove half-written files of earlier runs");
                Ok(0)
            }
        }
    }
}
