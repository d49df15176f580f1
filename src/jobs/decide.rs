//! What to do with a job, as a pure function of what is seen of it: `observe -> decide -> perform`.
//!
//! ```text
//!              start                    run                         stop
//!   stopped ─────────▶ starting ─────────────▶ running ─────────────────────▶ stopping ─▶ stopped
//!                         ▲  │ fails             │ fails                          (dies: stopped as well)
//!                 back-off│  ▼                   ▼
//!                      restarting ◀──────────────┘      too many in a row ─▶ failed       tables end ─▶ finished
//! ```

use super::definition::{Desired, Outcome};
use super::protocol::message::StopRequest;
use serde::Serialize;
use std::time::Duration;

/// A point in time: since the server's start, monotonic.
pub(crate) type Instant = Duration;

/// When a failed job is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestartPolicy {
    /// The delay after the first failure; it doubles with each further one.
    pub(crate) delay_initial: Duration,
    /// The longest delay.
    pub(crate) delay_max: Duration,
    /// A process that ran this long was healthy: the count of failures in a row begins anew.
    pub(crate) healthy_after: Duration,
    /// A process that was silent this long is hung, and killed.
    pub(crate) heartbeat_timeout: Duration,
    /// A process that did not plan its job within this time is killed.
    pub(crate) plan_timeout: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            delay_initial: Duration::from_secs(1),
            delay_max: Duration::from_secs(60),
            healthy_after: Duration::from_secs(60),
            heartbeat_timeout: Duration::from_secs(60),
            plan_timeout: Duration::from_secs(30),
        }
    }
}

impl RestartPolicy {
    /// Returns the delay after the `failures`-th failure in a row.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.delay_initial.saturating_mul(1 << doublings).min(self.delay_max)
    }
}

/// How a job's process ended, as far as the job is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The job's tables have ended.
    Finished,
    /// It stopped, as asked.
    Stopped,
    /// It failed or died.
    Failed {
        /// Why.
        message: String,
        /// Whether starting again can help.
        retryable: bool,
        /// How long it had been running.
        ran: Duration,
    },
}

/// What a job's process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// There is none.
    None,
    /// It plans the job.
    Planning {
        /// Since when.
        since: Instant,
    },
    /// It runs the job.
    Running {
        /// When it was last heard of.
        heard: Instant,
    },
    /// It was asked to stop.
    Stopping {
        /// When it must be gone; `None` for no limit but the heartbeat.
        deadline: Option<Instant>,
        /// When it was last heard of.
        heard: Instant,
    },
    /// It was killed and is not gone yet.
    Dying,
    /// It is gone, and that has not been dealt with.
    Gone(Exit),
}

/// What is seen of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Now.
    pub(crate) now: Instant,
    /// What the user wants.
    pub(crate) desired: Desired,
    /// Whether the server is going down: jobs stop, and what the user wants stays.
    pub(crate) shutting_down: bool,
    /// How the job ended, if it has.
    pub(crate) outcome: Option<Outcome>,
    /// Its process.
    pub(crate) process: Process,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Failures in a row after which it is given up.
    pub(crate) failures_max: u32,
    /// When it last failed.
    pub(crate) failed_at: Option<Instant>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing until something happens.
    Wait,
    /// Nothing until then, unless something happens.
    WaitUntil(Instant),
    /// Start a process.
    Start,
    /// Ask the process to stop.
    AskToStop,
    /// Kill the process, for this reason.
    Kill(String),
    /// Note that the process is gone, as stopped.
    NoteStopped,
    /// Note that the process is gone, as failed; `failures` in a row now.
    NoteFailure {
        /// Why.
        message: String,
        /// How many in a row, this one included.
        failures: u32,
    },
    /// Note that the job has ended, for good.
    NoteOutcome(Outcome),
}

/// Decides what to do with a job.
pub(crate) fn decide(seen: &Observed, policy: &RestartPolicy) -> Decision {
    let wanted = seen.desired == Desired::Running && !seen.shutting_down && seen.outcome.is_none();
    match &seen.process {
        Process::None if !wanted => Decision::Wait,
        Process::None => match seen.failed_at {
            Some(failed) if seen.now < failed + policy.delay(seen.failures) => {
                Decision::WaitUntil(failed + policy.delay(seen.failures))
            }
            _ => Decision::Start,
        },
        Process::Planning { .. } if !wanted => Decision::Kill("it was stopped before it ran".into()),
        Process::Planning { since } => overdue(seen.now, *since, policy.plan_timeout, || {
            format!(
                "planning took longer than {} s; simplify the job",
                policy.plan_timeout.as_secs()
            )
        }),
        Process::Running { .. } if !wanted => Decision::AskToStop,
        Process::Running { heard } => silent(seen.now, *heard, policy),
        Process::Stopping {
            deadline: Some(deadline),
            ..
        } if seen.now >= *deadline => Decision::Kill("it did not stop in time".into()),
        Process::Stopping { deadline, heard } => match (silent(seen.now, *heard, policy), deadline) {
            (Decision::WaitUntil(silent), Some(deadline)) => Decision::WaitUntil(silent.min(*deadline)),
            (other, _) => other,
        },
        Process::Dying => Decision::Wait,
        Process::Gone(exit) => after_exit(seen, exit, policy),
    }
}

fn after_exit(seen: &Observed, exit: &Exit, policy: &RestartPolicy) -> Decision {
    let wanted = seen.desired == Desired::Running && !seen.shutting_down;
    match exit {
        Exit::Finished => Decision::NoteOutcome(Outcome::Finished),
        Exit::Stopped => Decision::NoteStopped,
        // It should not run any more: whatever it died of, the newest checkpoint is what a start continues from.
        Exit::Failed { .. } if !wanted => Decision::NoteStopped,
        Exit::Failed {
            message,
            retryable: false,
            ..
        } => Decision::NoteOutcome(Outcome::Failed(message.clone())),
        Exit::Failed { message, ran, .. } => {
            let failures = if *ran >= policy.healthy_after {
                1
            } else {
                seen.failures + 1
            };
            if failures > seen.failures_max {
                let times = if failures == 1 {
                    "once".to_owned()
                } else {
                    format!("{failures} times in a row")
                };
                Decision::NoteOutcome(Outcome::Failed(format!(
                    "given up after it failed {times}; the last time: {message}"
                )))
            } else {
                Decision::NoteFailure {
                    message: message.clone(),
                    failures,
                }
            }
        }
    }
}

fn silent(now: Instant, heard: Instant, policy: &RestartPolicy) -> Decision {
    overdue(now, heard, policy.heartbeat_timeout, || {
        format!(
            "its process was not heard of for {} s",
            policy.heartbeat_timeout.as_secs()
        )
    })
}

fn overdue(now: Instant, since: Instant, limit: Duration, why: impl FnOnce() -> String) -> Decision {
    if now >= since + limit {
        Decision::Kill(why())
    } else {
        Decision::WaitUntil(since + limit)
    }
}

/// What a stop left for the next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The final checkpoint.
    Checkpoint,
    /// The savepoint of this name.
    Savepoint(String),
    /// Nothing new, as it was asked for.
    AtOnce,
    /// Nothing new although that was asked for, for this reason.
    Without(String),
    /// It was not running any more.
    Already,
}

/// Says what a stop left that asked for `wanted`: the process was asked to stop like `asked`, if it came to that, and
/// ended with `exit`, or was killed.
pub(crate) fn stopped(
    wanted: &StopRequest,
    asked: Option<&StopRequest>,
    exit: &Exit,
    killed: bool,
    refused: Option<&str>,
) -> Stopped {
    let without = |reason: &str| Stopped::Without(reason.to_owned());
    match (wanted, asked, exit) {
        (StopRequest::Now, ..) => Stopped::AtOnce,
        // All its tables have ended, and with them goes a final checkpoint.
        (StopRequest::Checkpoint, _, Exit::Finished) => Stopped::Checkpoint,
        (_, Some(StopRequest::Now), _) if refused.is_some() => without(refused.unwrap_or_default()),
        (_, Some(StopRequest::Now), _) => without("it was stopped at once meanwhile"),
        (_, _, Exit::Failed { message, .. }) => without(message),
        (_, None, _) => without("it was not running yet"),
        (_, Some(_), _) if killed => without("its process was killed"),
        (_, Some(StopRequest::Savepoint(name)), Exit::Stopped) => Stopped::Savepoint(name.clone()),
        (_, Some(StopRequest::Checkpoint), Exit::Stopped) => Stopped::Checkpoint,
        (_, Some(_), Exit::Finished) => without("its tables ended first"),
    }
}

/// The state of a job, as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    /// A process plans it or restores its state.
    Starting,
    /// It processes ticks.
    Running,
    /// It failed, and will be started again.
    Restarting,
    /// It takes its last checkpoint.
    Stopping,
    /// It was stopped and can be started.
    Stopped,
    /// Its tables have ended.
    Finished,
    /// It was given up.
    Failed,
}

impl JobState {
    /// Says whether there is, or will be, a process.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Restarting | Self::Stopping)
    }
}

/// Derives the state that users see; `processes_ticks` is what the process last told.
pub(crate) fn state(seen: &Observed, processes_ticks: bool) -> JobState {
    let wanted = seen.desired == Desired::Running && !seen.shutting_down;
    match (&seen.outcome, &seen.process) {
        (Some(Outcome::Finished), _) | (None, Process::Gone(Exit::Finished)) => JobState::Finished,
        (Some(Outcome::Failed(_)), _) => JobState::Failed,
        (None, Process::None | Process::Gone(Exit::Stopped)) if !wanted => JobState::Stopped,
        (None, _) if !wanted => JobState::Stopping,
        (None, Process::Stopping { .. }) => JobState::Stopping,
        (None, Process::Running { .. }) if processes_ticks => JobState::Running,
        (None, Process::Dying | Process::Gone(_)) => JobState::Restarting,
        (None, Process::None) if seen.failures > 0 => JobState::Restarting,
        (None, _) if seen.failures > 0 => JobState::Restarting,
        (None, _) => JobState::Starting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn seen(desired: Desired, process: Process) -> Observed {
        Observed {
            now: S(1000),
            desired,
            shutting_down: false,
            outcome: None,
            process,
            failures: 0,
            failures_max: 3,
            failed_at: None,
        }
    }

    fn failed(retryable: bool, ran: u64) -> Process {
        Process::Gone(Exit::Failed {
            message: "m".into(),
            retryable,
            ran: S(ran),
        })
    }

    #[test]
    fn decisions_are_as_the_table_says() {
        use Desired::{Running, Stopped};
        let policy = RestartPolicy::default();
        let running = Process::Running { heard: S(990) };
        let cases: Vec<(&str, Observed, Decision)> = vec![
            ("wanted and not there", seen(Running, Process::None), Decision::Start),
            ("not wanted and not there", seen(Stopped, Process::None), Decision::Wait),
            (
                "failed long ago",
                Observed {
                    failures: 2,
                    failed_at: Some(S(998)),
                    ..seen(Running, Process::None)
                },
                Decision::Start,
            ),
            (
                "failed just now",
                Observed {
                    failures: 3,
                    failed_at: Some(S(999)),
                    ..seen(Running, Process::None)
                },
                Decision::WaitUntil(S(1003)),
            ),
            (
                "finished stays finished",
                Observed {
                    outcome: Some(Outcome::Finished),
                    ..seen(Running, Process::None)
                },
                Decision::Wait,
            ),
            ("runs", seen(Running, running.clone()), Decision::WaitUntil(S(1050))),
            (
                "runs and should not",
                seen(Stopped, running.clone()),
                Decision::AskToStop,
            ),
            (
                "server goes down",
                Observed {
                    shutting_down: true,
                    ..seen(Running, running.clone())
                },
                Decision::AskToStop,
            ),
            (
                "server is down and the job gone",
                Observed {
                    shutting_down: true,
                    ..seen(Running, Process::None)
                },
                Decision::Wait,
            ),
            (
                "is silent",
                seen(Running, Process::Running { heard: S(940) }),
                Decision::Kill("its process was not heard of for 60 s".into()),
            ),
            (
                "plans",
                seen(Running, Process::Planning { since: S(980) }),
                Decision::WaitUntil(S(1010)),
            ),
            (
                "plans for ever",
                seen(Running, Process::Planning { since: S(970) }),
                Decision::Kill("planning took longer than 30 s; simplify the job".into()),
            ),
            (
                "plans and should not",
                seen(Stopped, Process::Planning { since: S(999) }),
                Decision::Kill("it was stopped before it ran".into()),
            ),
            (
                "stops in time",
                seen(
                    Stopped,
                    Process::Stopping {
                        deadline: Some(S(1005)),
                        heard: S(1000),
                    },
                ),
                Decision::WaitUntil(S(1005)),
            ),
            (
                "stops without a limit",
                seen(
                    Stopped,
                    Process::Stopping {
                        deadline: None,
                        heard: S(1000),
                    },
                ),
                Decision::WaitUntil(S(1060)),
            ),
            (
                "does not stop",
                seen(
                    Stopped,
                    Process::Stopping {
                        deadline: Some(S(1000)),
                        heard: S(1000),
                    },
                ),
                Decision::Kill("it did not stop in time".into()),
            ),
            ("is being killed", seen(Running, Process::Dying), Decision::Wait),
            (
                "tables ended",
                seen(Running, Process::Gone(Exit::Finished)),
                Decision::NoteOutcome(Outcome::Finished),
            ),
            (
                "stopped as asked",
                seen(Stopped, Process::Gone(Exit::Stopped)),
                Decision::NoteStopped,
            ),
            (
                "died while stopping",
                seen(Stopped, failed(true, 5)),
                Decision::NoteStopped,
            ),
            (
                "first failure",
                seen(Running, failed(true, 5)),
                Decision::NoteFailure {
                    message: "m".into(),
                    failures: 1,
                },
            ),
            (
                "the last failure allowed",
                Observed {
                    failures: 2,
                    ..seen(Running, failed(true, 5))
                },
                Decision::NoteFailure {
                    message: "m".into(),
                    failures: 3,
                },
            ),
            (
                "one failure too many",
                Observed {
                    failures: 3,
                    ..seen(Running, failed(true, 5))
                },
                Decision::NoteOutcome(Outcome::Failed(
                    "given up after it failed 4 times in a row; the last time: m".into(),
                )),
            ),
            (
                "a failure after a healthy time counts as the first",
                Observed {
                    failures: 3,
                    ..seen(Running, failed(true, 60))
                },
                Decision::NoteFailure {
                    message: "m".into(),
                    failures: 1,
                },
            ),
            (
                "no second attempt allowed",
                Observed {
                    failures_max: 0,
                    ..seen(Running, failed(true, 60))
                },
                Decision::NoteOutcome(Outcome::Failed(
                    "given up after it failed once; the last time: m".into(),
                )),
            ),
            (
                "a failure that would repeat",
                seen(Running, failed(false, 5)),
                Decision::NoteOutcome(Outcome::Failed("m".into())),
            ),
        ];
        for (name, observed, expected) in cases {
            assert_eq!(decide(&observed, &policy), expected, "{name}");
        }
    }

    #[test]
    fn a_stop_tells_what_it_left() {
        use StopRequest::{Checkpoint, Now, Savepoint};
        let save = || Savepoint("s".into());
        let died = Exit::Failed {
            message: "m".into(),
            retryable: true,
            ran: S(1),
        };
        let without = |reason: &str| Stopped::Without(reason.into());
        let cases = [
            (
                Checkpoint,
                Some(Checkpoint),
                Exit::Stopped,
                false,
                None,
                Stopped::Checkpoint,
            ),
            (
                save(),
                Some(save()),
                Exit::Stopped,
                false,
                None,
                Stopped::Savepoint("s".into()),
            ),
            (Now, Some(Now), Exit::Stopped, false, None, Stopped::AtOnce),
            (Now, None, Exit::Stopped, true, None, Stopped::AtOnce),
            (Checkpoint, None, Exit::Finished, false, None, Stopped::Checkpoint),
            (Checkpoint, Some(Checkpoint), died.clone(), false, None, without("m")),
            (
                Checkpoint,
                None,
                Exit::Stopped,
                true,
                None,
                without("it was not running yet"),
            ),
            (
                Checkpoint,
                Some(Now),
                Exit::Stopped,
                false,
                Some("full"),
                without("full"),
            ),
            (
                Checkpoint,
                Some(Checkpoint),
                Exit::Stopped,
                true,
                None,
                without("its process was killed"),
            ),
            (
                save(),
                Some(save()),
                Exit::Finished,
                false,
                None,
                without("its tables ended first"),
            ),
        ];
        for (wanted, asked, exit, killed, refused, expected) in cases {
            let name = format!("{wanted:?} {asked:?} {exit:?} {killed}");
            assert_eq!(
                stopped(&wanted, asked.as_ref(), &exit, killed, refused),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn the_delay_doubles_up_to_its_maximum() {
        let policy = RestartPolicy::default();
        let delays: Vec<u64> = (1..=9).map(|n| policy.delay(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(policy.delay(u32::MAX), S(60));
    }

    #[test]
    fn states_are_what_users_expect() {
        use Desired::{Running, Stopped};
        let running = Process::Running { heard: S(990) };
        let stopping = Process::Stopping {
            deadline: None,
            heard: S(990),
        };
        let failures = |process| Observed {
            failures: 1,
            ..seen(Running, process)
        };
        let ended = |outcome| Observed {
            outcome: Some(outcome),
            ..seen(Running, Process::None)
        };
        let cases = [
            (seen(Running, Process::None), false, JobState::Starting),
            (
                seen(Running, Process::Planning { since: S(1) }),
                false,
                JobState::Starting,
            ),
            (seen(Running, running.clone()), false, JobState::Starting),
            (seen(Running, running.clone()), true, JobState::Running),
            (failures(running.clone()), true, JobState::Running),
            (failures(running.clone()), false, JobState::Restarting),
            (failures(Process::None), false, JobState::Restarting),
            (failures(Process::Planning { since: S(1) }), false, JobState::Restarting),
            (seen(Running, failed(true, 1)), false, JobState::Restarting),
            (seen(Stopped, running), true, JobState::Stopping),
            (seen(Stopped, stopping), true, JobState::Stopping),
            (seen(Stopped, Process::None), false, JobState::Stopped),
            (seen(Running, Process::Gone(Exit::Finished)), false, JobState::Finished),
            (ended(Outcome::Finished), false, JobState::Finished),
            (ended(Outcome::Failed("m".into())), false, JobState::Failed),
        ];
        for (observed, ticks, expected) in cases {
            assert_eq!(state(&observed, ticks), expected, "{observed:?}");
        }
    }
}
