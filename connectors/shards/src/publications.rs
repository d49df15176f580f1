//! What a request to publish is answered: a pure decision, for every sink that remembers what it has published.
//!
//! A sink's output of checkpoint C becomes visible once. A sink remembers the last [`Publication`] and, per job, which lineages of
//! checkpoints are over. The shard store keeps them in the log, for all its sinks; the filesystem sink in a file of its own.
//!
//! ```text
//!   lineage retired                          refuse: another run of this name has published since
//!   lineage new                              publish; the one before is retired
//!   same lineage   generation older          refuse: fenced
//!                  checkpoint older          refuse
//!                  checkpoint newer          publish
//!                  same, decided by the same replay; a newer generation fences the older one
//!                  same, decided by another  refuse: two contents under one number
//! ```

use crate::error::StoreError;
use crate::ids::Uuid;
use crate::limits::RETIRED_LINEAGES_MAX;
use serde::{Deserialize, Serialize};

/// A publish of a sink: the last one, or the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The lineage of the checkpoint. Numbers and generations are comparable within one only.
    #[serde(default)]
    pub lineage: Uuid,
    /// The checkpoint.
    pub checkpoint: u64,
    /// The newest generation that published, or replayed, it.
    pub generation: u64,
    /// Who decided the checkpoint: the same for every replay.
    #[serde(default)]
    pub decided_by: Uuid,
}

/// What to do with a request to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Make the records visible.
    Publish,
    /// They already are.
    Replay,
    /// They already are; remember the newer generation, so that the older one is fenced.
    ReplayAndFence,
    /// Refuse: a newer checkpoint is published.
    StaleCheckpoint {
        /// The last one published.
        published: u64,
    },
    /// Refuse: a newer generation has published.
    StaleGeneration {
        /// The newest one known.
        newest: u64,
    },
    /// Refuse: a run of another lineage has published since.
    RetiredLineage,
    /// Refuse: the checkpoint is published, with what another coordinator put into it.
    RepeatedCheckpoint,
}

/// Decides on a request. `retired` are the lineages of the job that are over, `last` is the sink's last publish.
pub fn decide(retired: &[Uuid], last: Option<&Publication>, asked: &Publication) -> Decision {
    if retired.contains(&asked.lineage) {
        return Decision::RetiredLineage;
    }
    let Some(last) = last.filter(|last| last.lineage == asked.lineage) else {
        return Decision::Publish;
    };
    if asked.generation < last.generation {
        let newest = last.generation;
        Decision::StaleGeneration { newest }
    } else if asked.checkpoint < last.checkpoint {
        let published = last.checkpoint;
        Decision::StaleCheckpoint { published }
    } else if asked.checkpoint > last.checkpoint {
        Decision::Publish
    } else if asked.decided_by != last.decided_by {
        Decision::RepeatedCheckpoint
    } else if asked.generation > last.generation {
        Decision::ReplayAndFence
    } else {
        Decision::Replay
    }
}

/// Notes that a lineage is over, because `current` has published. Beyond [`RETIRED_LINEAGES_MAX`] the one retired first is
/// forgotten.
pub fn retire(retired: &mut Vec<Uuid>, over: Uuid, current: Uuid) {
    retired.retain(|lineage| *lineage != current);
    if over != current && !retired.contains(&over) {
        retired.push(over);
        let surplus = retired.len().saturating_sub(RETIRED_LINEAGES_MAX);
        retired.drain(..surplus);
    }
}

impl Decision {
    /// Returns the error that tells a refusal, or none when it is not one.
    pub fn refusal(self, job: &str, sink: &str, asked: &Publication) -> Option<StoreError> {
        let (job, sink, checkpoint) = (job.to_owned(), sink.to_owned(), asked.checkpoint);
        Some(match self {
            Self::Publish | Self::Replay | Self::ReplayAndFence => return None,
            Self::StaleCheckpoint { published } => StoreError::StaleCheckpoint {
                job,
                sink,
                checkpoint,
                published,
            },
            Self::StaleGeneration { newest } => StoreError::StaleGeneration {
                job,
                sink,
                generation: asked.generation,
                newest,
            },
            Self::RetiredLineage => StoreError::RetiredLineage {
                job,
                sink,
                checkpoint,
                lineage: asked.lineage,
            },
            Self::RepeatedCheckpoint => StoreError::RepeatedCheckpoint { job, sink, checkpoint },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn id(byte: u8) -> Uuid {
        Uuid([byte; 16])
    }

    fn asked(lineage: u8, checkpoint: u64, generation: u64, decided_by: u8) -> Publication {
        Publication {
            lineage: id(lineage),
            checkpoint,
            generation,
            decided_by: id(decided_by),
        }
    }

    #[test]
    fn every_case() {
        use Decision::*;
        let last = asked(1, 5, 3, 7);
        let (stale, fenced) = (StaleCheckpoint { published: 5 }, StaleGeneration { newest: 3 });
        for (request, expected) in [
            (asked(1, 6, 3, 7), Publish),
            (asked(1, 7, 4, 8), Publish),
            (asked(1, 5, 3, 7), Replay),
            (asked(1, 5, 4, 7), ReplayAndFence),
            (asked(1, 5, 3, 8), RepeatedCheckpoint),
            (asked(1, 5, 4, 8), RepeatedCheckpoint),
            (asked(1, 4, 9, 7), stale),
            (asked(1, 6, 2, 7), fenced),
            (asked(1, 5, 2, 7), fenced),
            // Another lineage counts for itself, whatever its numbers.
            (asked(2, 1, 1, 7), Publish),
            (asked(2, 5, 3, 7), Publish),
            (asked(2, 9, 9, 9), Publish),
            // One that is over is refused, whatever its numbers.
            (asked(9, 1, 1, 7), RetiredLineage),
            (asked(9, 5, 3, 7), RetiredLineage),
            (asked(9, 6, 9, 7), RetiredLineage),
        ] {
            assert_eq!(decide(&[id(9)], Some(&last), &request), expected, "{request:?}");
            let is_refused = !matches!(expected, Publish | Replay | ReplayAndFence);
            assert_eq!(expected.refusal("j", "s", &request).is_some(), is_refused);
        }
        assert_eq!(decide(&[], None, &asked(1, 9, 0, 1)), Publish);
        assert_eq!(decide(&[id(1)], None, &asked(1, 9, 0, 1)), RetiredLineage);
    }

    #[test]
    fn the_memory_of_lineages_is_bounded() {
        let mut retired = Vec::new();
        for number in 0..2 * RETIRED_LINEAGES_MAX as u128 {
            let (over, current) = (Uuid(number.to_be_bytes()), Uuid((number + 1).to_be_bytes()));
            retire(&mut retired, over, current);
            retire(&mut retired, over, current);
            assert_eq!(retired.last(), Some(&over));
        }
        assert_eq!(retired.len(), RETIRED_LINEAGES_MAX);
    }

    /// What may happen to a job whose runs are begun afresh, killed, woken up, restarted and repeated.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The checkpoints are deleted, and the job is started again. Its earlier process lives on, unnoticed.
        Begin,
        /// The process of the run is replaced by another, which repeats the newest checkpoint that was decided.
        Restart(usize),
        /// The process of a run decides a checkpoint and publishes it; or is killed in between.
        Checkpoint(usize, bool),
        /// A process that was replaced wakes up and publishes what it decided last.
        Zombie(usize),
    }

    /// A run: the newest decided checkpoint (number, who decided it), the generations, and what it has seen published.
    #[derive(Clone, Default)]
    struct Run {
        decided: Option<(u64, u8)>,
        generation: u64,
        deciders: u8,
        published: Vec<(u64, u8)>,
        is_refused: bool,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Begin),
            3 => any::<usize>().prop_map(Step::Restart),
            6 => (any::<usize>(), any::<bool>()).prop_map(|(run, killed)| Step::Checkpoint(run, killed)),
            2 => any::<usize>().prop_map(Step::Zombie),
        ]
    }

    proptest! {
        /// Every checkpoint of every run becomes visible once, in order and without a gap, up to where the run is told that another
        /// has published since.
        #[test]
        fn whatever_runs_do_nothing_is_lost_or_repeated(steps in prop::collection::vec(step(), 0..60)) {
            let mut runs = vec![Run { generation: 1, ..Run::default() }];
            let (mut retired, mut last): (Vec<Uuid>, Option<Publication>) = (Vec::new(), None);
            let mut publish = |number: usize, run: &mut Run, generation| {
                let Some((checkpoint, decided_by)) = run.decided else { return Decision::Replay };
                let request = asked(number as u8, checkpoint, generation, decided_by);
                let decision = decide(&retired, last.as_ref(), &request);
                match decision {
                    Decision::RetiredLineage => assert!(last.is_some_and(|last| last.lineage != request.lineage)),
                    Decision::Publish => {
                        if let Some(last) = last {
                            retire(&mut retired, last.lineage, request.lineage);
                        }
                        last = Some(request);
                        run.published.push((checkpoint, decided_by));
                    }
                    Decision::ReplayAndFence => last = Some(request),
                    _ => {}
                }
                decision
            };
            for step in steps {
                match step {
                    Step::Begin => runs.push(Run { generation: 1, ..Run::default() }),
                    Step::Restart(run) | Step::Checkpoint(run, _) => {
                        let number = run % runs.len();
                        let run = &mut runs[number];
                        if run.is_refused {
                            continue;
                        }
                        if let Step::Checkpoint(_, killed) = step {
                            let published = run.decided == run.published.last().copied();
                            prop_assert!(published, "a checkpoint is only decided when the one before is published");
                            let next = run.decided.map_or(1, |(checkpoint, _)| checkpoint + 1);
                            run.decided = Some((next, run.deciders));
                            if !killed {
                                let decision = publish(number, run, run.generation);
                                run.is_refused = decision == Decision::RetiredLineage;
                                prop_assert!(run.is_refused || decision == Decision::Publish, "{decision:?}");
                                continue;
                            }
                        }
                        // A restart replays before anything else.
                        run.generation += 1;
                        run.deciders += 1;
                        let decision = publish(number, run, run.generation);
                        run.is_refused = decision == Decision::RetiredLineage;
                    }
                    Step::Zombie(run) => {
                        let number = run % runs.len();
                        let run = &mut runs[number];
                        let before = run.published.len();
                        let generation = run.generation.saturating_sub(1);
                        let decision = publish(number, run, generation);
                        prop_assert!(run.decided.is_none() || decision != Decision::Replay);
                        prop_assert_eq!(run.published.len(), before, "a zombie makes nothing visible");
                    }
                }
            }
            for run in &runs {
                let numbers: Vec<u64> = run.published.iter().map(|(checkpoint, _)| *checkpoint).collect();
                prop_assert_eq!(&numbers, &(1..=numbers.len() as u64).collect::<Vec<_>>());
                let decided = run.decided.map_or(0, |(checkpoint, _)| checkpoint);
                prop_assert!(run.is_refused || numbers.len() as u64 == decided, "{} of {decided}", numbers.len());
            }
        }
    }
}
