//! The owner of a running job's checkpoints, and the steps of the protocol (see the crate's page for the picture).
//!
//! Each step observes the store, decides in a pure function, and performs:
//!
//! | file | |
//! |---|---|
//! | `restore.rs` | what a user can ask to restore |
//! | `claim.rs` | pure: who owns the job and what is restored |
//! | `start.rs` | claims and reads |
//! | `ledger.rs` | pure: what the coordinator knows, and which step is allowed |
//! | `decide.rs` | begins attempts and decides checkpoints |
//! | `publish.rs` | permits, markers and savepoints |
//! | `gc.rs` | removes what nobody needs |
//! | `probe.rs` | finds the end of a numbered row of objects |

mod claim;
mod decide;
mod gc;
mod ledger;
mod probe;
mod publish;
mod restore;
mod start;
#[cfg(test)]
mod tests;

pub use gc::Removed;
pub use restore::{Restore, RestoreFrom, RestoreSource};

use claim::GenerationRecord;
pub(crate) use probe::{last_checkpoint, last_generation};
pub(crate) use start::{find_missing_state, last_record};

use crate::upload::Uploader;
use crate::{
    CheckpointId, Error, Failpoints, Generation, JobUid, Lineage, Manifest, Nonce, Result, SnapshotStore, names,
};
use ledger::Ledger;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// What a coordinator needs to start.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The job.
    pub job: JobUid,
    /// This process's nonce; a new one for every process.
    pub nonce: Nonce,
    /// What to restore.
    pub restore: RestoreFrom,
    /// The time in milliseconds since 1970; for display only.
    pub started_ms: i64,
    /// Faults to inject; none outside tests.
    pub failpoints: Failpoints,
}

/// Allows sinks to publish one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Permit {
    /// The job whose output it is.
    pub job: JobUid,
    /// The checkpoint. Sinks refuse one older than the last they published.
    pub checkpoint: CheckpointId,
    /// The generation that gave the permit. The same checkpoint from a newer generation is a replay and succeeds.
    pub generation: Generation,
    /// The lineage of the checkpoint. Numbers of different lineages are not comparable.
    pub lineage: Lineage,
    /// The coordinator that decided the checkpoint, this one or an earlier: the same for every replay. Another one under the same number
    /// and lineage means that the checkpoints were copied or put back, and that the content is another.
    pub decided_by: Nonce,
}

/// Owns the checkpoints of a running job, as long as nobody else claims it. All calls take `&self`; put it in an `Arc`.
///
/// Dropping a call's future leaves the store as a crash at that place would: consistent, but the outcome unknown to this process.
/// End the process then; a successor finds out.
#[derive(Debug)]
pub struct Coordinator {
    store: SnapshotStore,
    job: JobUid,
    nonce: Nonce,
    lineage: Lineage,
    started_ms: i64,
    failpoints: Failpoints,
    /// The generation first claimed. Ours are this one and those above it.
    first_generation: Generation,
    /// The generation claimed last, for readers outside the lock.
    generation: AtomicU64,
    rebase_after: u64,
    ledger: Mutex<Ledger>,
    /// One collection at a time, beside the other steps.
    collecting: Mutex<gc::Collector>,
}

impl Coordinator {
    /// Returns the generation claimed last. It rises now and then while the coordinator runs.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Returns the lineage of the checkpoints that this coordinator decides. Those it replays may be of an earlier one.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Returns the job.
    pub fn job(&self) -> &JobUid {
        &self.job
    }

    /// Returns the newest checkpoint that exists, as far as this coordinator knows.
    pub async fn newest(&self) -> Option<Arc<Manifest>> {
        self.ledger.lock().await.newest_manifest()
    }

    /// Returns what uploads state without the coordinator: cloneable, also usable in the job's other processes.
    pub fn uploader(&self) -> Uploader {
        Uploader::new(self.store.clone(), self.job.clone(), self.failpoints.clone())
    }

    /// Makes sure that no newer generation but our own has been claimed, and that our own claim is still there: who deletes a job's
    /// checkpoints while it runs, and starts it again, has another coordinator begin at the first generation.
    async fn check_fence(&self, ledger: &mut Ledger) -> Result<()> {
        let fenced = |generation, by| {
            let job = self.job.clone();
            Err(Error::Fenced { job, generation, by })
        };
        loop {
            let own = names::generation(&self.job, ledger.generation);
            let next = names::generation(&self.job, ledger.generation.next());
            let (claim, newer) = futures::try_join!(self.store.get(&own), self.store.get(&next))?;
            match claim {
                None => {
                    let job = self.job.clone();
                    return Err(Error::ClaimGone { job, object: own });
                }
                Some(bytes) if GenerationRecord::read(&own, &bytes)?.nonce != self.nonce => {
                    return fenced(ledger.generation, own);
                }
                Some(_) => {}
            }
            let Some(bytes) = newer else { return Ok(()) };
            let record = GenerationRecord::read(&next, &bytes)?;
            if record.nonce != self.nonce {
                return fenced(ledger.generation, next);
            }
            // A claim of ours whose answer was lost.
            self.adopt_generation(ledger, &record);
        }
    }

    fn adopt_generation(&self, ledger: &mut Ledger, record: &GenerationRecord) {
        ledger.generation = record.generation;
        ledger.base = record.base;
        self.generation.store(record.generation.0, Ordering::Release);
    }
}
