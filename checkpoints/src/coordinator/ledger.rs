//! What a coordinator knows, and which steps that allows. Pure: nothing here touches the store.

use crate::coordinator::restore::Restore;
use crate::limits::UNPUBLISHED_MAX;
use crate::upload::Attempt;
use crate::{
    AttemptId, CheckpointId, Error, Generation, Manifest, Nonce, Parent, RequestId, Result, SavepointName,
    SnapshotKind, StateRef,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The knowledge of a running coordinator.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The generation claimed last.
    pub(crate) generation: Generation,
    /// The base in that claim.
    pub(crate) base: Option<CheckpointId>,
    /// The restore request granted last, for the claims that follow.
    pub(crate) request: Option<RequestId>,
    /// The highest number that a checkpoint has.
    pub(crate) newest: Option<CheckpointId>,
    /// What the next checkpoint continues from.
    pub(crate) parent: Option<(Parent, Arc<Manifest>)>,
    /// What was restored, until a checkpoint of our own has been published.
    pub(crate) restored: Option<Arc<Manifest>>,
    /// Manifests that need not be read again.
    pub(crate) manifests: BTreeMap<CheckpointId, Arc<Manifest>>,
    /// Checkpoints that wait for their sinks, oldest first.
    pub(crate) unpublished: VecDeque<Unpublished>,
    /// The job's savepoints, finished or not.
    pub(crate) savepoints: BTreeMap<SavepointName, CheckpointId>,
    attempt: Option<(Attempt, Tried)>,
    next_attempt: AttemptId,
}

/// A checkpoint whose output is not known to be published.
#[derive(Clone, Debug)]
pub(crate) struct Unpublished {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) cause: Cause,
}

/// Why a checkpoint has to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was decided by this coordinator.
    Decided,
    /// It was restored.
    Replay,
}

/// Whether the store has been asked to create an attempt's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    No,
    /// It has, and the answer may have been lost.
    Yes,
}

/// What a manifest in the place of ours means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is ours: an answer was lost.
    Ours,
    /// It is of an attempt of ours that was given up too early.
    Earlier(AttemptId),
    /// It is another coordinator's: we are fenced.
    Another,
}

/// Judges the manifest found where `attempt` wanted to create one.
pub(crate) fn judge(found: &Manifest, ours: Nonce, attempt: Option<AttemptId>) -> Verdict {
    if found.nonce != ours {
        Verdict::Another
    } else if Some(found.attempt) == attempt {
        Verdict::Ours
    } else {
        Verdict::Earlier(found.attempt)
    }
}

impl Ledger {
    /// Begins with what a start has found. `newest` is the highest number in use.
    pub(crate) fn new(
        (generation, base, request): (Generation, Option<CheckpointId>, Option<RequestId>),
        newest: Option<CheckpointId>,
        restored: Option<(Parent, &Restore)>,
        savepoints: BTreeMap<SavepointName, CheckpointId>,
    ) -> Self {
        let parent = restored
            .as_ref()
            .map(|(parent, restore)| (parent.clone(), Arc::new(restore.manifest.clone())));
        let replay = restored.map_or(&[][..], |(_, restore)| &restore.replay);
        let replay = replay.iter().map(|manifest| Unpublished {
            manifest: Arc::new(manifest.clone()),
            cause: Cause::Replay,
        });
        Self {
            generation,
            base,
            request,
            newest,
            restored: parent.as_ref().map(|(_, manifest)| Arc::clone(manifest)),
            parent,
            manifests: BTreeMap::new(),
            unpublished: replay.collect(),
            savepoints,
            attempt: None,
            next_attempt: AttemptId::FIRST,
        }
    }

    /// The number of the next checkpoint.
    pub(crate) fn next(&self) -> CheckpointId {
        self.newest.map_or(CheckpointId::FIRST, CheckpointId::next)
    }

    pub(crate) fn newest_manifest(&self) -> Option<Arc<Manifest>> {
        self.parent.as_ref().map(|(_, manifest)| Arc::clone(manifest))
    }

    /// Checks that one more checkpoint may be taken before the older ones are published.
    pub(crate) fn check_backlog(&self) -> Result<()> {
        match self.unpublished.len() {
            unpublished if unpublished >= UNPUBLISHED_MAX => Err(Error::PublishBacklog { unpublished }),
            _ => Ok(()),
        }
    }

    /// Returns whether a checkpoint that waits to be published is the savepoint of this name.
    pub(crate) fn is_savepoint_under_way(&self, name: &SavepointName) -> bool {
        let mut kinds = self.unpublished.iter().map(|waiting| &waiting.manifest.snapshot.kind);
        kinds.any(|kind| matches!(kind, SnapshotKind::Savepoint(waiting) if waiting == name))
    }

    /// Returns whether an attempt may have been decided without our knowing.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(self.attempt, Some((_, Tried::Yes)))
    }

    /// Begins a new attempt; the one before is over.
    pub(crate) fn begin(&mut self) -> Attempt {
        let attempt = Attempt {
            checkpoint: self.next(),
            attempt: self.next_attempt,
            generation: self.generation,
        };
        self.next_attempt = self.next_attempt.next();
        self.attempt = Some((attempt, Tried::No));
        attempt
    }

    /// Checks that a message is about the current attempt.
    pub(crate) fn check_current(&self, attempt: &Attempt) -> Result<()> {
        match &self.attempt {
            Some((current, _)) if current == attempt => Ok(()),
            _ => {
                let Attempt {
                    checkpoint,
                    attempt,
                    generation,
                } = *attempt;
                Err(Error::StaleAttempt {
                    checkpoint,
                    attempt,
                    generation,
                })
            }
        }
    }

    /// Notes that the manifest of the current attempt is about to be created.
    pub(crate) fn trying(&mut self) {
        if let Some((_, tried)) = &mut self.attempt {
            *tried = Tried::Yes;
        }
    }

    /// Checks that every state reference is either of this attempt or taken over from the parent, for everything else may be
    /// collected under our feet.
    pub(crate) fn check_state(&self, attempt_prefix: &str, attempt: &Attempt, state: &[StateRef]) -> Result<()> {
        let inherited = |object: &str| {
            let parent = self.parent.iter().flat_map(|(_, manifest)| &manifest.snapshot.state);
            parent.into_iter().any(|reference| reference.object == object)
        };
        match state
            .iter()
            .find(|state| !state.object.starts_with(attempt_prefix) && !inherited(&state.object))
        {
            None => Ok(()),
            Some(unknown) => {
                let object = &unknown.object;
                let reason =
                    format!("it refers to {object}, which neither this attempt nor its parent checkpoint wrote");
                Err(Error::OutOfOrder {
                    checkpoint: attempt.checkpoint,
                    step: "decided",
                    reason,
                })
            }
        }
    }

    /// Notes that the current attempt's checkpoint exists.
    pub(crate) fn decided(&mut self, manifest: Arc<Manifest>) {
        let checkpoint = manifest.checkpoint;
        self.attempt = None;
        self.newest = Some(checkpoint);
        self.parent = Some((Parent::Checkpoint(checkpoint), Arc::clone(&manifest)));
        self.savepoints = manifest.savepoints.clone();
        self.manifests.insert(checkpoint, Arc::clone(&manifest));
        self.unpublished.push_back(Unpublished {
            manifest,
            cause: Cause::Decided,
        });
    }

    /// Returns the checkpoint to publish if it is next in line; none when it is published already.
    pub(crate) fn publishing(&self, checkpoint: CheckpointId, step: &'static str) -> Result<Option<&Unpublished>> {
        let wrong = |reason: String| {
            Err(Error::OutOfOrder {
                checkpoint,
                step,
                reason,
            })
        };
        match self.unpublished.front() {
            Some(next) if next.manifest.checkpoint == checkpoint => Ok(Some(next)),
            Some(next)
                if self
                    .unpublished
                    .iter()
                    .any(|waiting| waiting.manifest.checkpoint == checkpoint) =>
            {
                wrong(format!("checkpoint {} comes first", next.manifest.checkpoint))
            }
            _ if self.newest.is_some_and(|newest| checkpoint <= newest) => Ok(None),
            _ => wrong("it has not been decided".to_owned()),
        }
    }

    /// Notes that the checkpoint next in line is published.
    pub(crate) fn published(&mut self) {
        if self
            .unpublished
            .pop_front()
            .is_some_and(|done| done.cause == Cause::Decided)
        {
            self.restored = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::manifest;

    fn fresh() -> Ledger {
        Ledger::new((Generation(1), None, None), None, None, BTreeMap::new())
    }

    fn decide(ledger: &mut Ledger) -> CheckpointId {
        let attempt = ledger.begin();
        ledger.trying();
        ledger.decided(Arc::new(manifest(attempt.checkpoint.0)));
        attempt.checkpoint
    }

    #[test]
    fn a_manifest_in_our_place_is_judged_by_nonce_and_attempt() {
        let (ours, other) = (Nonce::from_bytes([1; 16]), Nonce::from_bytes([2; 16]));
        let found = |nonce, attempt| Manifest {
            nonce,
            attempt: AttemptId(attempt),
            ..manifest(1)
        };
        for (nonce, attempt, expected) in [
            (ours, 3, Verdict::Ours),
            (ours, 2, Verdict::Earlier(AttemptId(2))),
            (other, 3, Verdict::Another),
            (other, 2, Verdict::Another),
        ] {
            assert_eq!(judge(&found(nonce, attempt), ours, Some(AttemptId(3))), expected);
        }
        assert_eq!(judge(&found(ours, 3), ours, None), Verdict::Earlier(AttemptId(3)));
    }

    #[test]
    fn a_failed_attempt_keeps_its_checkpoint_and_gets_a_new_id() {
        let mut ledger = fresh();
        let first = ledger.begin();
        let second = ledger.begin();
        assert_eq!(
            (first.checkpoint, second.checkpoint),
            (CheckpointId(1), CheckpointId(1))
        );
        assert_eq!((first.attempt, second.attempt), (AttemptId(1), AttemptId(2)));
        assert!(matches!(ledger.check_current(&first), Err(Error::StaleAttempt { .. })));
        ledger.check_current(&second).unwrap();
        // Same numbers, but from before a restart.
        let zombie = Attempt {
            generation: Generation(0),
            ..second
        };
        assert!(ledger.check_current(&zombie).is_err());
        ledger.decided(Arc::new(manifest(1)));
        assert!(ledger.check_current(&second).is_err());
        assert_eq!(ledger.begin().checkpoint, CheckpointId(2));
    }

    #[test]
    fn only_an_attempt_whose_manifest_was_sent_is_in_doubt() {
        let mut ledger = fresh();
        assert!(!ledger.is_in_doubt());
        ledger.begin();
        assert!(!ledger.is_in_doubt());
        ledger.trying();
        assert!(ledger.is_in_doubt());
        ledger.begin();
        assert!(!ledger.is_in_doubt());
    }

    #[test]
    fn checkpoints_are_published_in_order_and_once() {
        let mut ledger = fresh();
        let (one, two) = (decide(&mut ledger), decide(&mut ledger));
        let is_next =
            |ledger: &Ledger, checkpoint| ledger.publishing(checkpoint, "published").map(|next| next.is_some());
        assert!(is_next(&ledger, one).unwrap());
        assert!(
            is_next(&ledger, two)
                .unwrap_err()
                .to_string()
                .contains("checkpoint 1 comes first")
        );
        assert!(is_next(&ledger, CheckpointId(3)).is_err());
        ledger.published();
        assert!(!is_next(&ledger, one).unwrap());
        assert!(is_next(&ledger, two).unwrap());
    }

    #[test]
    fn the_publishing_backlog_is_limited() {
        let mut ledger = fresh();
        for _ in 0..UNPUBLISHED_MAX {
            ledger.check_backlog().unwrap();
            decide(&mut ledger);
        }
        assert!(matches!(
            ledger.check_backlog(),
            Err(Error::PublishBacklog {
                unpublished: UNPUBLISHED_MAX
            })
        ));
        ledger.published();
        ledger.check_backlog().unwrap();
    }

    #[test]
    fn what_was_restored_is_kept_until_a_checkpoint_of_our_own_is_published() {
        let restore = Restore {
            manifest: manifest(4),
            object: "o".into(),
            replay: vec![manifest(4)],
        };
        let newest = Some(CheckpointId(9));
        let found = (Parent::Checkpoint(CheckpointId(4)), &restore);
        let mut ledger = Ledger::new((Generation(2), newest, None), newest, Some(found), BTreeMap::new());
        assert_eq!(
            ledger.publishing(CheckpointId(4), "published").unwrap().unwrap().cause,
            Cause::Replay
        );
        ledger.published();
        assert!(ledger.restored.is_some());
        assert_eq!(decide(&mut ledger), CheckpointId(10));
        assert!(ledger.restored.is_some());
        ledger.published();
        assert!(ledger.restored.is_none());
    }

    #[test]
    fn state_that_could_be_collected_is_not_referred_to() {
        let reference = |object: &str| StateRef {
            object: object.into(),
            length: 0,
            crc32c: 0,
            sections: vec![],
        };
        let mut ledger = fresh();
        let mut parent = manifest(1);
        parent.snapshot.state.push(reference("other/state/1/1/1/0"));
        ledger.decided(Arc::new(parent));
        let attempt = ledger.begin();
        let check = |object: &str| ledger.check_state("j/state/1/2/1/", &attempt, &[reference(object)]);
        check("j/state/1/2/1/0").unwrap();
        check("other/state/1/1/1/0").unwrap();
        assert!(
            check("j/state/1/1/1/0")
                .unwrap_err()
                .to_string()
                .contains("j/state/1/1/1/0")
        );
    }
}
