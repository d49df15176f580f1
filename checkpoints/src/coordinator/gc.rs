//! Removes what no live checkpoint and no savepoint needs.
//!
//! Live are the newest checkpoints, the ones that wait to be published, the one restored (until one of our own is published), the
//! base in the last claim, and all savepoints. What may go:
//!
//! * state written for a decided checkpoint or an older one, to which nothing live refers: nobody can refer to it any more, since
//!   each number is decided once. State for a checkpoint not yet decided stays, for a slow coordinator of an older generation may
//!   still win that number;
//! * manifests and markers below the base. Those from the base on are the way to the newest one, so they stay as long as the
//!   base; once in a while a running coordinator claims a new generation for itself, only to move the base on.
//!
//! Names come from a listing: what it misses stays until the next time, what it shows in vain is removed in vain. Which objects are
//! live is never taken from a listing alone. A crash anywhere leaves less garbage, and nothing else.

use super::{Coordinator, GenerationRecord};
use crate::failpoints::{CKPT_GC_AFTER, CKPT_GC_BEFORE};
use crate::names::{self, Parsed};
use crate::store::Creation;
use crate::{CheckpointId, Error, JobUid, Manifest, Result, SavepointName};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::ledger::Ledger;

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// What one collection leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Collector {
    savepoints: BTreeMap<SavepointName, Arc<Manifest>>,
    half_written_swept: bool,
}

/// Which objects are garbage.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    newest: CheckpointId,
    /// Manifests and markers below it may go.
    cut: CheckpointId,
    live: BTreeSet<CheckpointId>,
    live_state: HashSet<String>,
}

impl Plan {
    fn new<'a>(
        newest: CheckpointId,
        cut: CheckpointId,
        live: impl IntoIterator<Item = (&'a JobUid, &'a Manifest)>,
    ) -> Self {
        let mut plan = Self {
            newest,
            cut,
            live: BTreeSet::new(),
            live_state: HashSet::new(),
        };
        for (job, manifest) in live {
            // A restored manifest may be another job's, whose numbers mean nothing here.
            if manifest.job == *job {
                plan.live.insert(manifest.checkpoint);
            }
            plan.live_state
                .extend(manifest.snapshot.state.iter().map(|state| state.object.clone()));
        }
        plan
    }

    fn is_garbage(&self, job: &JobUid, name: &str) -> bool {
        match names::parse(job, name) {
            Some(Parsed::State { checkpoint, .. }) => checkpoint <= self.newest && !self.live_state.contains(name),
            Some(Parsed::Checkpoint(checkpoint) | Parsed::Committed(checkpoint)) => {
                checkpoint < self.cut && !self.live.contains(&checkpoint)
            }
            Some(Parsed::Generation(_) | Parsed::Savepoint(_)) | None => false,
        }
    }
}

impl Coordinator {
    /// Removes what neither the newest `keep` checkpoints (at least one) nor the savepoints need. Runs beside the other steps.
    ///
    /// # Errors
    /// When a live manifest cannot be read, for then it is unknown what it needs: nothing is removed. [`Error::Fenced`] when a newer
    /// coordinator owns the job.
    pub async fn gc(&self, keep: usize) -> Result<Removed> {
        let mut collector = self.collecting.lock().await;
        let Some(plan) = self.plan(&mut collector, keep.max(1) as u64).await? else {
            return Ok(Removed::default());
        };
        self.failpoints.reach(CKPT_GC_BEFORE).await?;
        let mut removed = Removed::default();
        // Manifests first: one without its marker or state could be taken for whole.
        for prefix in [
            names::checkpoints(&self.job),
            names::committed_all(&self.job),
            names::states(&self.job),
        ] {
            let listed = self.store.list(&prefix).await?.into_iter();
            let garbage: Vec<_> = listed.filter(|(name, _)| plan.is_garbage(&self.job, name)).collect();
            removed.objects += garbage.len() as u64;
            removed.bytes += garbage.iter().map(|(_, bytes)| bytes).sum::<u64>();
            self.store
                .delete(garbage.into_iter().map(|(name, _)| name).collect())
                .await?;
            self.failpoints.reach(CKPT_GC_AFTER).await?;
        }
        if !collector.half_written_swept {
            removed.objects += self.store.sweep_half_written(&self.job, self.first_generation).await?;
            collector.half_written_swept = true;
        }
        Ok(removed)
    }

    async fn plan(&self, collector: &mut Collector, keep: u64) -> Result<Option<Plan>> {
        let mut ledger = self.ledger.lock().await;
        self.check_fence(&mut ledger).await?;
        let Some(newest) = ledger.newest else { return Ok(None) };
        if is_rebase_due(ledger.base, newest, self.rebase_after) {
            self.rebase(&mut ledger, newest).await?;
        }
        self.forget_removed_savepoints(&mut ledger, collector).await?;

        let base = ledger.base.unwrap_or(CheckpointId::FIRST);
        let oldest_kept = CheckpointId((newest.0 + 1).saturating_sub(keep).max(1));
        let mut live: Vec<Arc<Manifest>> = ledger
            .unpublished
            .iter()
            .map(|next| Arc::clone(&next.manifest))
            .collect();
        let cut = live
            .iter()
            .filter(|waiting| waiting.job == self.job)
            .map(|waiting| waiting.checkpoint);
        let cut = cut.chain([base, oldest_kept]).min().unwrap_or(base);
        live.extend(ledger.restored.clone());
        live.extend(ledger.newest_manifest());
        live.extend(collector.savepoints.values().cloned());

        let kept = (oldest_kept.0..=newest.0)
            .chain((base < oldest_kept).then_some(base.0))
            .map(CheckpointId);
        let kept: BTreeSet<CheckpointId> = kept.collect();
        ledger.manifests.retain(|checkpoint, _| kept.contains(checkpoint));
        for &checkpoint in &kept {
            if !ledger.manifests.contains_key(&checkpoint)
                && let Some(manifest) = self
                    .store
                    .read_manifest(&names::checkpoint(&self.job, checkpoint))
                    .await?
            {
                ledger.manifests.insert(checkpoint, Arc::new(manifest));
            }
        }
        live.extend(ledger.manifests.values().cloned());
        Ok(Some(Plan::new(
            newest,
            cut,
            live.iter().map(|manifest| (&self.job, &**manifest)),
        )))
    }

    /// Claims the next generation for this same coordinator, with the newest checkpoint as its base.
    async fn rebase(&self, ledger: &mut Ledger, newest: CheckpointId) -> Result<()> {
        let record = GenerationRecord {
            job: self.job.clone(),
            generation: ledger.generation.next(),
            nonce: self.nonce,
            lineage: self.lineage,
            started_ms: self.started_ms,
            base: Some(newest),
            chosen: None,
            request: ledger.request.clone(),
        };
        let object = names::generation(&self.job, record.generation);
        let record = match self.store.create(&object, record.write(&object)?).await? {
            Creation::Created => record,
            Creation::Exists(bytes) => GenerationRecord::read(&object, &bytes)?,
        };
        if record.nonce != self.nonce {
            return Err(Error::Fenced {
                job: self.job.clone(),
                generation: ledger.generation,
                by: object,
            });
        }
        self.adopt_generation(ledger, &record);
        Ok(())
    }

    /// Brings the savepoints up to date: reads what is new, and forgets those that a user has removed.
    async fn forget_removed_savepoints(&self, ledger: &mut Ledger, collector: &mut Collector) -> Result<()> {
        let listed = self.store.list(&names::savepoints(&self.job)).await?;
        let listed: BTreeSet<SavepointName> = listed
            .into_iter()
            .filter_map(|(name, _)| match names::parse(&self.job, &name)? {
                Parsed::Savepoint(name) => Some(name),
                _ => None,
            })
            .collect();
        let known: BTreeSet<SavepointName> = ledger
            .savepoints
            .keys()
            .cloned()
            .chain(listed.iter().cloned())
            .collect();
        for name in known {
            // A name may have been removed and given again since.
            let known = collector.savepoints.get(&name).map(|manifest| manifest.checkpoint);
            if listed.contains(&name) && known.is_some() && known == ledger.savepoints.get(&name).copied() {
                continue;
            }
            match self.store.read_manifest(&names::savepoint(&self.job, &name)).await? {
                Some(manifest) => {
                    ledger.savepoints.insert(name.clone(), manifest.checkpoint);
                    collector.savepoints.insert(name, Arc::new(manifest));
                }
                None => {
                    collector.savepoints.remove(&name);
                    if !ledger.is_savepoint_under_way(&name) {
                        ledger.savepoints.remove(&name);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Tells whether the base should move on. The first checkpoint moves it at once: from then on a claim proves that the job has had one.
fn is_rebase_due(base: Option<CheckpointId>, newest: CheckpointId, rebase_after: u64) -> bool {
    base.is_none_or(|base| newest.0.saturating_sub(base.0) >= rebase_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{job, manifest};
    use crate::{AttemptId, Generation, StateRef};

    #[test]
    fn garbage_is_what_nothing_live_needs_and_nobody_can_still_decide() {
        let state =
            |checkpoint, attempt| names::state(&job(), Generation(1), CheckpointId(checkpoint), AttemptId(attempt), 0);
        let mut live = manifest(7);
        live.snapshot.state.push(StateRef {
            object: state(3, 1),
            length: 0,
            crc32c: 0,
            sections: vec![],
        });
        let mut foreign = Manifest {
            job: JobUid::new("other").unwrap(),
            ..manifest(2)
        };
        foreign.snapshot.state.push(StateRef {
            object: "other/state/1/1/1/0".into(),
            length: 0,
            crc32c: 0,
            sections: vec![],
        });
        let plan = Plan::new(
            CheckpointId(7),
            CheckpointId(5),
            [(&job(), &live), (&job(), &manifest(3)), (&job(), &foreign)],
        );
        for (name, garbage) in [
            (state(3, 1), false),
            (state(3, 2), true),
            (state(7, 1), true),
            (state(8, 1), false),
            (names::checkpoint(&job(), CheckpointId(2)), true),
            (names::committed(&job(), CheckpointId(2)), true),
            (names::checkpoint(&job(), CheckpointId(3)), false),
            (names::committed(&job(), CheckpointId(3)), false),
            (names::checkpoint(&job(), CheckpointId(4)), true),
            (names::checkpoint(&job(), CheckpointId(5)), false),
            (names::generation(&job(), Generation(1)), false),
            (names::savepoint(&job(), &SavepointName::new("s").unwrap()), false),
            ("other/state/1/1/1/1".to_owned(), false),
            (format!("{}/notes.txt", job()), false),
        ] {
            assert_eq!(plan.is_garbage(&job(), &name), garbage, "{name}");
        }
    }

    #[test]
    fn the_base_moves_on_at_the_first_checkpoint_and_then_rarely() {
        for (base, newest, due) in [
            (None, 1, true),
            (Some(1), 1, false),
            (Some(1), 10, false),
            (Some(1), 11, true),
        ] {
            assert_eq!(is_rebase_due(base.map(CheckpointId), CheckpointId(newest), 10), due);
        }
    }
}
