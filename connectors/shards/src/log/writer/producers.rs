//! Requests of producers that number them: stored once, whatever was asked twice.
//!
//! The decision is made here, in the order of the queue, from what is remembered with the batch so far. So a retry that
//! arrives while the first request is on its way waits for the same sync and gets the same answer.

use super::{Answer, Append, Appended, AssignedEach, Writer};
use crate::log::draft::header;
use crate::log::frame::{FrameKind, PRODUCERS_KEY};
use crate::producers::PutOnceOutcome;
use crate::producers::memory::{Produced, Verdict};
use crate::producers::outcome::Outcome;

impl Writer {
    /// Takes a request into the batch, unless it is answered already.
    pub(super) fn admit(&mut self, appends: &mut Vec<Append>, append: Append) {
        let Some(numbered) = &append.numbered else {
            appends.push(append);
            return;
        };
        let key = (numbered.stream_id, numbered.producer.id.clone());
        if self.deciding.contains(&key) {
            // What becomes of the one before must be known first.
            self.append(appends);
        }
        let answer = match self.state.producers.decide(numbered) {
            Verdict::Store => {
                self.deciding.insert(key);
                appends.push(append);
                return;
            }
            Verdict::Repeat(outcome) => Ok(Appended {
                each: outcome.each(),
                outcome: PutOnceOutcome::Repeated,
            }),
            Verdict::Refuse(error) => Err(error),
        };
        // Also this waits for the sync: what is repeated may be of this batch.
        self.answers.push(Answer::Append(append.reply, answer));
    }

    /// Puts the records that did not come to the writer back into their places.
    pub(super) fn complete(appends: &mut [Append], outcomes: &mut [AssignedEach]) {
        for (append, each) in appends.iter_mut().zip(outcomes) {
            if let Some(numbered) = &mut append.numbered {
                for (index, error) in numbered.refused.drain(..) {
                    each.insert(index, Err(error));
                }
            }
        }
    }

    /// Remembers what became of requests whose frames are those from number `from` on.
    pub(super) fn remember(&mut self, from: usize, appends: &[Append], outcomes: &[AssignedEach]) {
        self.deciding.clear();
        let produced: Vec<Produced> = appends
            .iter()
            .zip(outcomes)
            .filter_map(|(append, each)| {
                let numbered = append.numbered.as_ref()?;
                // What stored nothing can be tried again.
                each.iter().any(Result::is_ok).then(|| Produced {
                    stream: numbered.stream.clone(),
                    stream_id: numbered.stream_id,
                    id: numbered.producer.id.clone(),
                    epoch: numbered.producer.epoch,
                    request: Outcome::new(numbered.producer.sequence, numbered.content, each),
                })
            })
            .collect();
        if produced.is_empty() {
            return;
        }
        let json = serde_json::to_vec(&produced).expect("strings, numbers and lists serialise");
        let now = self.environment.clock.now_ms();
        self.draft.join(from);
        let head = header(FrameKind::Producers, PRODUCERS_KEY, produced.len() as u32, 0, now);
        self.draft.frame(head, |payload| payload.extend_from_slice(&json));
        self.state.remember(produced);
    }
}
