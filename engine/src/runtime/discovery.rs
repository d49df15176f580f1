//! Finding splits: one task per table, for the job's life.

use super::clock::Event;
use super::shared::JobShared;
use crate::error::Error;
use crate::source::{SplitEnumerator, SplitId, SplitState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Looks for splits until there can be no more, or the job ends (the task is then aborted).
pub(super) async fn discover(
    table: usize,
    name: String,
    mut enumerator: Box<dyn SplitEnumerator>,
    mut known: BTreeMap<SplitId, SplitState>,
    shared: Arc<JobShared>,
) {
    loop {
        let found = match enumerator.discover(&known).await {
            Ok(found) => found,
            Err(error) => {
                let error = match error {
                    Error::Operator { operator, message } if operator.is_empty() => {
                        Error::Source { table: name, message }
                    }
                    other => other,
                };
                shared.fail(error);
                return;
            }
        };
        let interval = enumerator.interval();
        let complete = found.complete || interval.is_none();
        for split in &found.new {
            known.insert(
                split.id.clone(),
                SplitState {
                    position: split.position.clone(),
                    ended: false,
                },
            );
        }
        if complete || !found.new.is_empty() {
            shared.send(Event::Discovered {
                table,
                splits: found.new,
                complete,
            });
        }
        match interval {
            Some(interval) if !complete => tokio::time::sleep(interval).await,
            _ => return,
        }
    }
}
