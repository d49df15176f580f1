//! The start: claims the job, finds what to restore and what to publish again.

use super::claim::{self, GenerationRecord, Newest, Origin};
use super::gc::Collector;
use super::ledger::Ledger;
use super::{Coordinator, Restore, RestoreSource, StartOptions, last_checkpoint, last_generation};
use crate::failpoints::RESTORE_READ;
use crate::limits::{CLAIM_TRIES_MAX, CONCURRENCY, REBASE_AFTER};
use crate::names::{self, Parsed};
use crate::store::Creation;
use crate::{CheckpointId, Error, ErrorKind, JobUid, Manifest, Parent, Result, SavepointName, SnapshotStore};
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use tokio::sync::Mutex;

/// How many manifests below an unreadable one are tried for the list of savepoints.
const SAVEPOINT_SEARCH: u64 = 16;

impl Coordinator {
    /// Claims the job and finds what to restore; none for a job without state.
    ///
    /// A coordinator that ran before is fenced from here on: its next step fails. When a restore is returned, its
    /// [`Restore::replay`] comes before everything else.
    ///
    /// # Errors
    /// [`Error::CheckpointMissing`] when the job once had a checkpoint and there is none; [`Error::NothingToRestore`],
    /// [`Error::Collected`] and [`Error::NotPublished`] about what the user chose, in which case nothing has been claimed;
    /// [`Error::Corrupt`] names a damaged object.
    pub async fn start(store: SnapshotStore, options: StartOptions) -> Result<(Self, Option<Restore>)> {
        let job = &options.job;
        let (record, highest) = claim_job(&store, &options).await?;

        options.failpoints.reach(RESTORE_READ).await?;
        // Looked up again: an older coordinator may have decided one more checkpoint before our claim was there.
        let seen = Seen::look(&store, job, highest).await?;
        let newest = seen.newest(record.chosen.is_some() && record.base >= seen.newest_id())?;
        let highest = seen.highest;
        let savepoints = seen.savepoints(&store, job).await?;
        let restored = match claim::origin(&record, newest) {
            Origin::Nothing => None,
            Origin::Newest => {
                let Some((checkpoint, manifest)) = seen.found else {
                    unreachable!("there is a newest checkpoint")
                };
                let (object, manifest) = (names::checkpoint(job, checkpoint), manifest?);
                let replay = find_replay(&store, &manifest).await?;
                Some((
                    Parent::Checkpoint(checkpoint),
                    Restore {
                        manifest,
                        object,
                        replay,
                    },
                ))
            }
            Origin::Chosen(source) => Some(read_chosen(&store, job, &source, highest).await?),
        };
        let from = restored.as_ref().map_or("nothing", |(_, restore)| &restore.object);
        tracing::info!(job = %job, generation = %record.generation, from, "claimed the job");

        let continues = restored.as_ref().map(|(parent, restore)| (parent.clone(), restore));
        let ledger = Ledger::new(
            (record.generation, record.base, record.request),
            highest,
            continues,
            savepoints,
        );
        let coordinator = Self {
            store,
            job: options.job,
            nonce: options.nonce,
            lineage: record.lineage,
            started_ms: options.started_ms,
            failpoints: options.failpoints,
            first_generation: record.generation,
            generation: AtomicU64::new(record.generation.0),
            rebase_after: REBASE_AFTER,
            ledger: Mutex::new(ledger),
            collecting: Mutex::new(Collector::default()),
        };
        Ok((coordinator, restored.map(|(_, restore)| restore)))
    }
}

/// Claims the next generation; returns the claim and the highest checkpoint number in use.
async fn claim_job(store: &SnapshotStore, options: &StartOptions) -> Result<(GenerationRecord, Option<CheckpointId>)> {
    let StartOptions {
        job,
        nonce,
        restore,
        started_ms,
        ..
    } = options;
    let mut object = String::new();
    for _ in 0..CLAIM_TRIES_MAX {
        let last = last_record(store, job).await?;
        let last = last.as_ref();
        let seen = Seen::look(store, job, last.and_then(|record| record.base)).await?;
        let request = claim::new_request(last, restore);
        match request {
            // What is wrong with the user's choice is told before anything is changed.
            Some((source, _)) if *source != RestoreSource::Nothing => {
                drop(read_chosen(store, job, source, seen.highest).await?);
            }
            Some(_) => {}
            None if last.is_some_and(|record| record.chosen.is_some()) => {}
            None => refuse_lost(store, job, last, &seen).await?,
        }
        let holds = last.is_some_and(|record| record.chosen.is_some() && record.base >= seen.newest_id());
        let newest = seen.newest(request.is_some() || holds)?;
        let record = claim::next_record(last, newest, seen.highest, (job, *nonce, *started_ms), restore);

        object = names::generation(job, record.generation);
        let bytes = record.write(&object)?;
        match store.create(&object, bytes.clone()).await? {
            Creation::Created => {
                store.check_creates_once(&object, bytes).await?;
                return Ok((record, seen.highest));
            }
            Creation::Exists(bytes) => {
                let found = GenerationRecord::read(&object, &bytes)?;
                if found.nonce == *nonce {
                    return Ok((found, seen.highest));
                }
                tracing::info!(job = %job, object, "another coordinator was faster; claiming the next generation");
            }
        }
    }
    Err(Error::CreateConflict { object })
}

/// Reads the last claim of a job.
pub(crate) async fn last_record(store: &SnapshotStore, job: &JobUid) -> Result<Option<GenerationRecord>> {
    let Some(generation) = last_generation(store, job).await? else {
        return Ok(None);
    };
    let object = names::generation(job, generation);
    let bytes = store.get(&object).await?.ok_or_else(|| Error::MissingObject {
        object: object.clone(),
        referred_by: "the row of claims".to_owned(),
    })?;
    GenerationRecord::read(&object, &bytes).map(Some)
}

/// The newest checkpoint as a start sees it.
struct Seen {
    /// Its number, and what can be read of it.
    found: Option<(CheckpointId, Result<Manifest>)>,
    /// The highest number in use, also when that checkpoint is gone.
    highest: Option<CheckpointId>,
}

impl Seen {
    async fn look(store: &SnapshotStore, job: &JobUid, base: Option<CheckpointId>) -> Result<Self> {
        let above = last_checkpoint(store, job, base.map_or(0, |base| base.0)).await?;
        let Some(candidate) = above.or(base) else {
            let highest = listed_highest(store, job).await?.map(|(checkpoint, _)| checkpoint);
            return Ok(Self { found: None, highest });
        };
        let found = match store.read_manifest(&names::checkpoint(job, candidate)).await {
            Ok(manifest) => manifest.map(Ok),
            Err(error) if error.kind() == ErrorKind::Retry => return Err(error),
            Err(error) => Some(Err(error)),
        };
        // Numbers above a base that is gone were used too; what is left of them shows it.
        let highest = match &found {
            Some(_) => Some(candidate),
            None => listed_highest(store, job)
                .await?
                .map(|(listed, _)| listed)
                .max(Some(candidate)),
        };
        Ok(Self {
            found: found.map(|manifest| (candidate, manifest)),
            highest,
        })
    }

    fn newest_id(&self) -> Option<CheckpointId> {
        self.found.as_ref().map(|(checkpoint, _)| *checkpoint)
    }

    /// Returns the newest checkpoint. One that cannot be read is an error, unless something else is to be restored anyway.
    fn newest(&self, may_be_unreadable: bool) -> Result<Option<Newest>> {
        match &self.found {
            None => Ok(None),
            Some((checkpoint, Ok(manifest))) => Ok(Some(Newest {
                checkpoint: *checkpoint,
                generation: manifest.generation,
            })),
            Some((checkpoint, Err(_))) if may_be_unreadable => Ok(Some(Newest {
                checkpoint: *checkpoint,
                generation: crate::Generation(0),
            })),
            Some((
                _,
                Err(Error::UnsupportedVersion {
                    object,
                    found,
                    supported,
                }),
            )) => Err(Error::UnsupportedVersion {
                object: object.clone(),
                found: *found,
                supported: *supported,
            }),
            Some((_, Err(Error::Corrupt { object, detail }))) => Err(Error::Corrupt {
                object: object.clone(),
                detail: detail.clone(),
            }),
            Some((checkpoint, Err(error))) => Err(Error::Corrupt {
                object: format!("checkpoint {checkpoint}"),
                detail: error.to_string(),
            }),
        }
    }

    /// Returns the job's savepoints as the newest readable manifest lists them.
    async fn savepoints(&self, store: &SnapshotStore, job: &JobUid) -> Result<BTreeMap<SavepointName, CheckpointId>> {
        let newest = match &self.found {
            None => return Ok(BTreeMap::new()),
            Some((_, Ok(manifest))) => return Ok(manifest.savepoints.clone()),
            Some((checkpoint, Err(_))) => checkpoint.0,
        };
        for checkpoint in (newest.saturating_sub(SAVEPOINT_SEARCH).max(1)..newest).rev() {
            if let Ok(Some(manifest)) = store
                .read_manifest(&names::checkpoint(job, CheckpointId(checkpoint)))
                .await
            {
                return Ok(manifest.savepoints);
            }
        }
        Ok(BTreeMap::new())
    }
}

/// Returns the highest checkpoint number that a listing shows, and the object with it.
async fn listed_highest(store: &SnapshotStore, job: &JobUid) -> Result<Option<(CheckpointId, String)>> {
    let mut listed = store.list(&names::committed_all(job)).await?;
    listed.extend(store.list(&names::checkpoints(job)).await?);
    let numbered = listed
        .into_iter()
        .filter_map(|(name, _)| match names::parse(job, &name)? {
            Parsed::Checkpoint(checkpoint) | Parsed::Committed(checkpoint) => Some((checkpoint, name)),
            _ => None,
        });
    Ok(numbered.max())
}

/// Refuses to start a job from nothing that once had a checkpoint.
async fn refuse_lost(store: &SnapshotStore, job: &JobUid, last: Option<&GenerationRecord>, seen: &Seen) -> Result<()> {
    if seen.found.is_some() {
        return Ok(());
    }
    let lost = |evidence, missing| {
        Err(Error::CheckpointMissing {
            job: job.clone(),
            evidence,
            missing: names::checkpoint(job, missing),
        })
    };
    match last.and_then(|record| Some((record.generation, record.base?))) {
        Some((generation, base)) => lost(names::generation(job, generation), base),
        None => match listed_highest(store, job).await? {
            // A listing may show what is gone, and what is gone proves nothing.
            Some((_, object)) if store.head(&object).await?.is_some() => lost(object, CheckpointId::FIRST),
            _ => Ok(()),
        },
    }
}

/// Reads what a user chose, and checks that it can be restored. `highest` is the job's highest checkpoint number in use.
async fn read_chosen(
    store: &SnapshotStore,
    job: &JobUid,
    source: &RestoreSource,
    highest: Option<CheckpointId>,
) -> Result<(Parent, Restore)> {
    let Some(object) = names::restore_source(source) else {
        unreachable!("nothing is not read")
    };
    let nothing = || Error::NothingToRestore { object: object.clone() };
    let manifest = store.read_manifest(&object).await?.ok_or_else(nothing)?;
    if let Some(missing) = find_missing_state(store, &manifest).await? {
        return Err(Error::Collected { object, missing });
    }
    let (parent, replay) = match source {
        RestoreSource::Checkpoint(owner, checkpoint) if owner == job => {
            let replay = find_replay(store, &manifest).await?;
            if !replay.is_empty() && is_published_above(store, job, *checkpoint, highest).await? {
                return Err(Error::LeftBehind { object });
            }
            (Parent::Checkpoint(*checkpoint), replay)
        }
        // Its sinks are another job's, whose permit we do not have.
        RestoreSource::Checkpoint(owner, checkpoint) => {
            if store.head(&names::committed(owner, *checkpoint)).await?.is_none() {
                return Err(Error::NotPublished { object });
            }
            (Parent::Object(object.clone()), Vec::new())
        }
        // A savepoint appears when its sinks have published.
        RestoreSource::Savepoint(..) | RestoreSource::Nothing => (Parent::Object(object.clone()), Vec::new()),
    };
    Ok((
        parent,
        Restore {
            manifest,
            object,
            replay,
        },
    ))
}

/// Tells whether a checkpoint with a higher number has been published.
async fn is_published_above(
    store: &SnapshotStore,
    job: &JobUid,
    checkpoint: CheckpointId,
    highest: Option<CheckpointId>,
) -> Result<bool> {
    for above in (checkpoint.0 + 1..=highest.map_or(0, |highest| highest.0)).rev() {
        if store.head(&names::committed(job, CheckpointId(above))).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns a state object of the manifest that is not there.
pub(crate) async fn find_missing_state(store: &SnapshotStore, manifest: &Manifest) -> Result<Option<String>> {
    let objects: Vec<String> = manifest
        .snapshot
        .state
        .iter()
        .map(|state| state.object.clone())
        .collect();
    let mut absent = futures::stream::iter(objects)
        .map(|object| async move { Ok::<_, Error>(store.head(&object).await?.is_none().then_some(object)) })
        .buffered(CONCURRENCY)
        .try_filter_map(|object| std::future::ready(Ok(object)));
    absent.try_next().await
}

/// Returns the checkpoints up to this one that are not known to be published, oldest first. Publishing is in order, so the first
/// marker on the way back ends the search; so does a parent that has been collected, which only a published one is.
async fn find_replay(store: &SnapshotStore, manifest: &Manifest) -> Result<Vec<Manifest>> {
    let mut replay = Vec::new();
    let mut next = Some(manifest.clone());
    while let Some(manifest) = next {
        if store
            .head(&names::committed(&manifest.job, manifest.checkpoint))
            .await?
            .is_some()
        {
            break;
        }
        next = match &manifest.parent {
            Some(Parent::Checkpoint(parent)) => store.read_manifest(&names::checkpoint(&manifest.job, *parent)).await?,
            Some(Parent::Object(_)) | None => None,
        };
        replay.push(manifest);
    }
    replay.reverse();
    Ok(replay)
}
