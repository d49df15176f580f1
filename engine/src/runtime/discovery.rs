//! Finding splits: one task per table, for the job's life.
//!
//! The clock tells of splits that have ended; a look for splits that knew of an end lets the clock release the split, for
//! its children, if it has any, are known by then.

use super::clock::Event;
use super::shared::{JobShared, panic_message};
use crate::error::{Error, Result};
use crate::source::{SplitEnumerator, SplitId, SplitState};
use futures::FutureExt as _;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What is known of a table's splits; the clock's worker writes, the discovery reads.
#[derive(Default)]
pub(super) struct KnownSplits {
    state: Mutex<Known>,
    changed: Notify,
}

#[derive(Clone, Default)]
struct Known {
    splits: BTreeMap<SplitId, SplitState>,
    /// How many ends the clock has told.
    ended: u64,
}

impl KnownSplits {
    pub(super) fn new(splits: BTreeMap<SplitId, SplitState>) -> Self {
        Self {
            state: Mutex::new(Known { splits, ended: 0 }),
            changed: Notify::new(),
        }
    }

    /// Notes that a split was read to its end.
    pub(super) fn split_ended(&self, id: SplitId, position: String) {
        let mut known = self.lock();
        known.ended += 1;
        known.splits.insert(id, SplitState { position, ended: true });
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for splits until there can be no more, or the job ends (the task is then aborted).
pub(super) async fn discover(
    table: usize,
    name: String,
    enumerator: Box<dyn SplitEnumerator>,
    known: Arc<KnownSplits>,
    shared: Arc<JobShared>,
) {
    let looking = look(table, enumerator, &known, &shared);
    let error = match AssertUnwindSafe(looking).catch_unwind().await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(panic) => Error::operator(format!("looking for splits panicked: {}", panic_message(&*panic))),
    };
    shared.fail(match error {
        Error::Operator { operator, message } if operator.is_empty() => Error::Source { table: name, message },
        other => other,
    });
}

async fn look(
    table: usize,
    mut enumerator: Box<dyn SplitEnumerator>,
    known: &KnownSplits,
    shared: &JobShared,
) -> Result<()> {
    let mut told = None;
    loop {
        let Known { splits, ended } = known.lock().clone();
        let found = enumerator.discover(&splits).await?;
        let interval = enumerator.interval();
        let complete = found.complete || interval.is_none();
        for split in &found.new {
            let state = SplitState {
                position: split.position.clone(),
                ended: false,
            };
            known.lock().splits.entry(split.id.clone()).or_insert(state);
        }
        for id in &found.forget {
            known.lock().splits.remove(id);
        }
        if complete || !found.new.is_empty() || !found.forget.is_empty() || told != Some(ended) {
            told = Some(ended);
            shared.send(Event::Discovered {
                table,
                splits: found.new,
                complete,
                ended_seen: ended,
                forget: found.forget,
            });
        }
        match interval {
            // An end wakes the discovery at once: children wait for it.
            Some(interval) if !complete => {
                let _ = tokio::time::timeout(interval, known.changed.notified()).await;
            }
            _ => return Ok(()),
        }
    }
}
