//! Who owns the job, and what is restored: the record of a claim, and the decisions at a start.
//!
//! What a user chose to restore must hold over crashes until a checkpoint exists that continues from it; so it stands in the claim
//! and is handed on from claim to claim. It must also not be done twice, for a supervisor restarts a process with the same
//! command; so the request's id is handed on for ever.
//!
//! A lineage is handed on too. A new one begins where a number could come twice, or after another: when no number is known to be
//! in use, and when a user's choice is granted (the way back to a run whose name another run has taken since).

use crate::envelope::{self, Kind};
use crate::{CheckpointId, Generation, JobUid, Lineage, Nonce, RequestId, RestoreFrom, RestoreSource, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The content of `gen/<G>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationRecord {
    pub(crate) job: JobUid,
    pub(crate) generation: Generation,
    pub(crate) nonce: Nonce,
    /// The lineage of the checkpoints that are decided under this claim.
    #[serde(default)]
    pub(crate) lineage: Lineage,
    pub(crate) started_ms: i64,
    /// From where a successor looks for the newest checkpoint. Not removed while this is the last claim.
    pub(crate) base: Option<CheckpointId>,
    /// What to restore instead of the newest checkpoint.
    pub(crate) chosen: Option<Chosen>,
    /// The last request that was granted.
    pub(crate) request: Option<RequestId>,
}

/// A user's choice, and from when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) source: RestoreSource,
    /// Checkpoints of this generation and later continue from the choice; it is then done with.
    pub(crate) since: Generation,
}

impl GenerationRecord {
    pub(crate) fn read(object: &str, bytes: &[u8]) -> Result<Self> {
        envelope::unwrap(Kind::Generation, object, bytes)
    }

    pub(crate) fn write(&self, object: &str) -> Result<Bytes> {
        Ok(envelope::wrap(Kind::Generation, object, self)?.into())
    }
}

/// The newest checkpoint that a starting coordinator saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) checkpoint: CheckpointId,
    /// The generation that decided it.
    pub(crate) generation: Generation,
}

/// Where a job's state is to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A job without any state.
    Nothing,
    /// The newest checkpoint.
    Newest,
    /// What a user chose.
    Chosen(RestoreSource),
}

/// Returns the request that this start has to grant, if it is a new one.
pub(crate) fn new_request<'a>(
    last: Option<&GenerationRecord>,
    restore: &'a RestoreFrom,
) -> Option<(&'a RestoreSource, &'a RequestId)> {
    match restore {
        RestoreFrom::Chosen { source, request } if last.and_then(|record| record.request.as_ref()) != Some(request) => {
            Some((source, request))
        }
        _ => None,
    }
}

/// Returns the claim that follows `last`. `base` is the highest number known to be used by a checkpoint.
pub(crate) fn next_record(
    last: Option<&GenerationRecord>,
    newest: Option<Newest>,
    base: Option<CheckpointId>,
    (job, nonce, started_ms): (&JobUid, Nonce, i64),
    restore: &RestoreFrom,
) -> GenerationRecord {
    let generation = last.map_or(Generation::FIRST, |record| record.generation.next());
    let lineage = match last {
        Some(last) if base.is_some() && new_request(Some(last), restore).is_none() => last.lineage,
        _ => Lineage::begun_by(nonce),
    };
    let (chosen, request) = match new_request(last, restore) {
        Some((source, request)) => (
            Some(Chosen {
                source: source.clone(),
                since: generation,
            }),
            Some(request.clone()),
        ),
        None => (
            last.and_then(|record| record.chosen.clone())
                .filter(|chosen| is_pending(chosen, newest)),
            last.and_then(|record| record.request.clone()),
        ),
    };
    GenerationRecord {
        job: job.clone(),
        generation,
        nonce,
        lineage,
        started_ms,
        base,
        chosen,
        request,
    }
}

/// Decides where the state comes from, for the owner of `record`.
pub(crate) fn origin(record: &GenerationRecord, newest: Option<Newest>) -> Origin {
    match record.chosen.as_ref().filter(|chosen| is_pending(chosen, newest)) {
        Some(Chosen {
            source: RestoreSource::Nothing,
            ..
        }) => Origin::Nothing,
        Some(chosen) => Origin::Chosen(chosen.source.clone()),
        None if newest.is_some() => Origin::Newest,
        None => Origin::Nothing,
    }
}

/// A choice holds until a checkpoint exists that continues from it. A checkpoint that a fenced generation managed to decide after
/// the choice does not.
fn is_pending(chosen: &Chosen, newest: Option<Newest>) -> bool {
    newest.is_none_or(|newest| newest.generation < chosen.since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobUid {
        JobUid::new("j").unwrap()
    }

    fn at(checkpoint: u64, generation: u64) -> Option<Newest> {
        Some(Newest {
            checkpoint: CheckpointId(checkpoint),
            generation: Generation(generation),
        })
    }

    fn choose(checkpoint: u64, request: &str) -> RestoreFrom {
        let source = RestoreSource::Checkpoint(job(), CheckpointId(checkpoint));
        RestoreFrom::Chosen {
            source,
            request: RequestId::new(request).unwrap(),
        }
    }

    fn next(last: Option<&GenerationRecord>, newest: Option<Newest>, restore: &RestoreFrom) -> GenerationRecord {
        let base = newest.map(|newest| newest.checkpoint);
        next_record(last, newest, base, (&job(), Nonce::from_bytes([1; 16]), 0), restore)
    }

    #[test]
    fn a_job_starts_from_nothing_and_then_from_its_newest_checkpoint() {
        let first = next(None, None, &RestoreFrom::Latest);
        assert_eq!(
            (first.generation, first.base, &first.chosen),
            (Generation(1), None, &None)
        );
        assert_eq!(origin(&first, None), Origin::Nothing);
        let second = next(Some(&first), at(3, 1), &RestoreFrom::Latest);
        assert_eq!((second.generation, second.base), (Generation(2), Some(CheckpointId(3))));
        assert_eq!(origin(&second, at(3, 1)), Origin::Newest);
    }

    #[test]
    fn a_choice_holds_until_a_checkpoint_continues_from_it() {
        let chosen = || Origin::Chosen(RestoreSource::Checkpoint(job(), CheckpointId(2)));
        let running = next(None, None, &RestoreFrom::Latest);
        let second = next(Some(&running), at(5, 1), &choose(2, "r1"));
        assert_eq!(origin(&second, at(5, 1)), chosen());
        // A fenced coordinator of generation 1 was still quick enough for checkpoint 6.
        assert_eq!(origin(&second, at(6, 1)), chosen());
        // Crash before the first checkpoint; the supervisor starts the same command again.
        for restore in [choose(2, "r1"), RestoreFrom::Latest] {
            let third = next(Some(&second), at(6, 1), &restore);
            assert_eq!(origin(&third, at(6, 1)), chosen());
            assert_eq!(third.chosen.as_ref().unwrap().since, Generation(2));
            // Now a checkpoint of generation 3 exists.
            let fourth = next(Some(&third), at(7, 3), &restore);
            assert_eq!((origin(&fourth, at(7, 3)), &fourth.chosen), (Origin::Newest, &None));
            // The same request is never granted twice, another one is.
            let fifth = next(Some(&fourth), at(8, 4), &choose(2, "r1"));
            assert_eq!(origin(&fifth, at(8, 4)), Origin::Newest);
            assert_eq!(
                origin(&next(Some(&fifth), at(8, 4), &choose(2, "r2")), at(8, 4)),
                chosen()
            );
        }
    }

    #[test]
    fn a_lineage_begins_where_numbers_could_come_twice_and_is_carried_on() {
        let by = |last: Option<&GenerationRecord>, newest, restore: &RestoreFrom, nonce| {
            let base = Option::map(newest, |newest: Newest| newest.checkpoint);
            next_record(last, newest, base, (&job(), Nonce::from_bytes([nonce; 16]), 0), restore)
        };
        let lineage = |nonce| Lineage::begun_by(Nonce::from_bytes([nonce; 16]));
        let (latest, chosen) = (RestoreFrom::Latest, choose(2, "r1"));
        let first = by(None, None, &latest, 1);
        assert_eq!(first.lineage, lineage(1));
        for (last, newest, restore, expected) in [
            // No number is in use: nothing is repeated, whoever of the two comes to decide the first.
            (Some(&first), None, &latest, 2),
            (Some(&first), at(3, 1), &latest, 1),
            // A choice begins a new one, and a start without claims does.
            (Some(&first), at(3, 1), &chosen, 2),
            (None, at(3, 1), &latest, 2),
        ] {
            assert_eq!(
                by(last, newest, restore, 2).lineage,
                lineage(expected),
                "{newest:?} {restore:?}"
            );
        }
        // The same request once more goes on in the lineage that it began.
        let rewound = by(Some(&first), at(3, 1), &chosen, 2);
        for newest in [at(3, 1), at(4, 2)] {
            assert_eq!(by(Some(&rewound), newest, &chosen, 3).lineage, lineage(2));
        }
    }

    #[test]
    fn a_start_without_state_is_a_choice_too() {
        let nothing = RestoreFrom::Chosen {
            source: RestoreSource::Nothing,
            request: RequestId::new("r").unwrap(),
        };
        let first = next(None, None, &RestoreFrom::Latest);
        let second = next(Some(&first), at(5, 1), &nothing);
        assert_eq!(origin(&second, at(5, 1)), Origin::Nothing);
        assert_eq!(
            origin(&next(Some(&second), at(6, 2), &nothing), at(6, 2)),
            Origin::Newest
        );
    }
}
