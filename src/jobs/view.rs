//! A job as REST shows it.

use super::decide::JobState;
use super::definition::{Desired, JobDefinition, LastError, Outcome, Program};
use super::protocol::message::{IntervalWish, PlannedJob};
use serde::Serialize;
use tidemill_engine::status::{CheckpointStatus, JobPhase, JobStatus, OperatorStatus};

/// Checkpoints shown.
const CHECKPOINTS_SHOWN: usize = 10;

/// A job, as `GET /v1/jobs/{id}` shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobView {
    /// The job's uid.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    pub(crate) state: JobState,
    /// What the user last asked for.
    pub(crate) desired_state: Desired,
    /// The SQL text of a SQL job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sql: Option<String>,
    /// The binary of a Rust job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) executable: Option<String>,
    /// The arguments of a Rust job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args: Option<Vec<String>>,
    /// The number of worker threads; null before it is known.
    pub(crate) parallelism: Option<usize>,
    /// The time between checkpoints in milliseconds; null: only savepoints and the final one.
    pub(crate) checkpoint_interval_ms: Option<u64>,
    /// Failures in a row after which it is given up.
    pub(crate) restart_attempts: u32,
    /// When it was submitted, in milliseconds since the epoch.
    pub(crate) created_ms: i64,
    /// The ids of its processes.
    pub(crate) process_ids: Vec<u32>,
    /// How often it was started again since the server's start.
    pub(crate) restarts: u64,
    /// How often it has failed in a row.
    pub(crate) failures_in_a_row: u32,
    /// Why it was given up.
    pub(crate) failure: Option<String>,
    /// Why it last failed.
    pub(crate) last_error: Option<LastError>,
    /// The phase within its process.
    pub(crate) phase: Option<JobPhase>,
    /// The generation of its coordinator: rises with every start.
    pub(crate) generation: Option<u64>,
    /// The newest tick closed.
    pub(crate) tick: Option<u64>,
    /// The watermark of what its sinks write, the least of them, in milliseconds since the epoch.
    pub(crate) watermark_ms: Option<i64>,
    /// How far that is behind the wall clock, in milliseconds.
    pub(crate) watermark_lag_ms: Option<i64>,
    /// The checkpoint it was restored from.
    pub(crate) restored_from: Option<u64>,
    /// Its newest checkpoints, the newest last.
    pub(crate) checkpoints: Vec<CheckpointStatus>,
    /// Checkpoint attempts that failed since the server's start.
    pub(crate) checkpoints_failed: u64,
    /// Why the last attempt failed, while no newer one has succeeded.
    pub(crate) checkpoint_error: Option<String>,
    /// Its operators.
    pub(crate) operators: Vec<OperatorStatus>,
    /// Its job graph as text.
    pub(crate) plan: Option<String>,
}

/// What a [`JobView`] is made of besides the definition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime {
    /// The processes' ids.
    pub(crate) process_ids: Vec<u32>,
    /// Starts after failures.
    pub(crate) restarts: u64,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// What the job's processes last told: where the newest does not know yet, what the one before knew.
    pub(crate) status: Option<JobStatus>,
    /// Checkpoint attempts that failed in earlier processes.
    checkpoints_failed_before: u64,
    /// What the process said when it had planned the job.
    pub(crate) plan: Option<PlannedJob>,
}

impl Runtime {
    /// Notes that a process was started: what the one before it told stays until this one knows better.
    pub(crate) fn begin_process(&mut self) {
        if let Some(status) = &mut self.status {
            status.phase = JobPhase::Restoring;
            self.checkpoints_failed_before += std::mem::take(&mut status.checkpoints_failed);
            forget_lag(status);
        }
    }

    /// Takes what the process tells.
    pub(crate) fn tell(&mut self, mut new: JobStatus) {
        let Some(old) = self.status.take() else {
            self.status = Some(new);
            return;
        };
        if new.generation == 0 {
            // It has not come so far as to claim the job, so it has read and counted nothing.
            new = JobStatus {
                phase: new.phase,
                parallelism: new.parallelism,
                error: new.error,
                ..old
            };
            forget_lag(&mut new);
        } else {
            if new.checkpoints.is_empty() && new.checkpoint_error.is_none() {
                new.checkpoint_error = old.checkpoint_error;
            }
            if new.tick == 0 {
                new.tick = old.tick;
            }
            let first = new.checkpoints.first().map_or(u64::MAX, |checkpoint| checkpoint.id);
            let mut checkpoints = old.checkpoints;
            checkpoints.retain(|checkpoint| checkpoint.id < first);
            checkpoints.append(&mut new.checkpoints);
            checkpoints.drain(..checkpoints.len().saturating_sub(CHECKPOINTS_SHOWN));
            new.checkpoints = checkpoints;
        }
        self.status = Some(new);
    }

    /// Returns how many checkpoint attempts have failed.
    fn checkpoints_failed(&self) -> u64 {
        let of_this = self.status.as_ref().map_or(0, |status| status.checkpoints_failed);
        self.checkpoints_failed_before + of_this
    }
}

/// Nothing is known of a lag while nothing is read; a watermark stays where it is.
fn forget_lag(status: &mut JobStatus) {
    for operator in &mut status.operators {
        operator.watermark_lag_ms = None;
    }
}

impl JobView {
    /// Puts a view together.
    pub(crate) fn new(definition: &JobDefinition, state: JobState, runtime: &Runtime) -> Self {
        let (sql, executable, args) = match &definition.program {
            Program::Sql(sql) => (Some(sql.clone()), None, None),
            Program::Executable { path, args } => (None, Some(path.display().to_string()), Some(args.clone())),
        };
        let (status, plan) = (runtime.status.clone(), runtime.plan.as_ref());
        let (watermark_ms, watermark_lag_ms) = status.as_ref().map_or((None, None), least_watermark);
        let of = |pick: fn(&JobStatus) -> u64| status.as_ref().map(pick);
        Self {
            id: definition.uid.clone(),
            name: definition.name.to_string(),
            state,
            desired_state: definition.desired,
            sql,
            executable,
            args,
            parallelism: plan.map(|plan| plan.parallelism).or(definition.parallelism),
            checkpoint_interval_ms: match (plan, definition.checkpoint_interval) {
                (Some(plan), _) => plan.checkpoint_interval_ms,
                (None, IntervalWish::EveryMs(interval)) => Some(interval),
                (None, IntervalWish::Never | IntervalWish::Unsaid) => None,
            },
            restart_attempts: definition.restart_attempts,
            created_ms: definition.created_ms,
            process_ids: runtime.process_ids.clone(),
            restarts: runtime.restarts,
            failures_in_a_row: runtime.failures,
            failure: match &definition.outcome {
                Some(Outcome::Failed(reason)) => Some(reason.clone()),
                _ => None,
            },
            last_error: definition.last_error.clone(),
            phase: status.as_ref().map(|status| status.phase),
            generation: of(|status| status.generation).filter(|&generation| generation > 0),
            tick: of(|status| status.tick).filter(|&tick| tick > 0),
            watermark_ms,
            watermark_lag_ms,
            restored_from: status.as_ref().and_then(|status| status.restored_from),
            checkpoints_failed: runtime.checkpoints_failed(),
            checkpoint_error: status.as_ref().and_then(|status| status.checkpoint_error.clone()),
            checkpoints: status
                .as_ref()
                .map(|status| status.checkpoints.clone())
                .unwrap_or_default(),
            operators: status.map(|status| status.operators).unwrap_or_default(),
            plan: plan.map(|plan| plan.explain.clone()),
        }
    }
}

/// Returns the least watermark of the sinks, and its lag; none while a sink has none.
fn least_watermark(status: &JobStatus) -> (Option<i64>, Option<i64>) {
    let sinks = || {
        status
            .operators
            .iter()
            .filter(|operator| operator.name.starts_with("sink "))
    };
    if sinks().any(|sink| sink.watermark_ms.is_none()) {
        return (None, None);
    }
    let least = sinks().min_by_key(|sink| sink.watermark_ms);
    least.map_or((None, None), |sink| (sink.watermark_ms, sink.watermark_lag_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(name: &str, watermark_ms: Option<i64>) -> OperatorStatus {
        OperatorStatus {
            name: name.into(),
            watermark_ms,
            watermark_lag_ms: watermark_ms.map(|w| 100 - w),
            ..OperatorStatus::default()
        }
    }

    #[test]
    fn the_watermark_is_that_of_the_slowest_sink() {
        let operators = vec![
            operator("source a", Some(1)),
            operator("sink b", Some(7)),
            operator("sink c", Some(5)),
        ];
        let status = JobStatus {
            operators,
            ..JobStatus::default()
        };
        assert_eq!(least_watermark(&status), (Some(5), Some(95)));
    }

    fn checkpoint(id: u64) -> CheckpointStatus {
        CheckpointStatus {
            id,
            ..CheckpointStatus::default()
        }
    }

    #[test]
    fn what_a_process_knew_is_kept_until_the_next_one_knows_better() {
        let mut runtime = Runtime::default();
        let mut counted = operator("sink b", Some(7));
        counted.counts.rows_in = 12;
        let first = JobStatus {
            phase: JobPhase::Running,
            generation: 3,
            tick: 9,
            operators: vec![counted],
            checkpoints: vec![checkpoint(1), checkpoint(2)],
            checkpoints_failed: 2,
            checkpoint_error: Some("disk full".into()),
            ..JobStatus::default()
        };
        runtime.tell(first.clone());
        runtime.begin_process();
        let restoring = JobStatus {
            operators: vec![operator("sink b", None)],
            ..JobStatus::default()
        };
        for step in ["planning", "restoring"] {
            let status = runtime.status.clone().unwrap();
            assert_eq!(status.phase, JobPhase::Restoring, "{step}");
            assert_eq!((status.generation, status.tick), (3, 9), "{step}");
            assert_eq!(status.operators[0].counts.rows_in, 12, "{step}");
            assert_eq!(status.operators[0].watermark_ms, Some(7), "{step}");
            assert_eq!(status.operators[0].watermark_lag_ms, None, "{step}");
            assert_eq!(status.checkpoints.len(), 2, "{step}");
            assert_eq!(status.checkpoint_error.as_deref(), Some("disk full"), "{step}");
            assert_eq!(runtime.checkpoints_failed(), 2, "{step}");
            runtime.tell(restoring.clone());
        }
        let running = JobStatus {
            phase: JobPhase::Running,
            generation: 4,
            checkpoints_failed: 1,
            ..restoring
        };
        runtime.tell(running.clone());
        let status = runtime.status.clone().unwrap();
        assert_eq!((status.generation, status.operators[0].counts.rows_in), (4, 0));
        assert_eq!(
            status.checkpoint_error.as_deref(),
            Some("disk full"),
            "no newer attempt has succeeded"
        );
        assert_eq!(runtime.checkpoints_failed(), 3);
        runtime.tell(JobStatus {
            checkpoints: vec![checkpoint(4)],
            ..running.clone()
        });
        runtime.tell(JobStatus {
            checkpoints: vec![checkpoint(4), checkpoint(5)],
            ..running
        });
        let status = runtime.status.clone().unwrap();
        assert_eq!(status.checkpoint_error, None);
        let ids: Vec<u64> = status.checkpoints.iter().map(|checkpoint| checkpoint.id).collect();
        assert_eq!(ids, [1, 2, 4, 5]);
    }

    #[test]
    fn what_is_not_known_is_null_and_not_zero() {
        let runtime = Runtime {
            status: Some(JobStatus::default()),
            ..Runtime::default()
        };
        let definition = crate::jobs::registry::tests::definition("a-1");
        let view = JobView::new(&definition, JobState::Restarting, &runtime);
        assert_eq!((view.generation, view.tick), (None, None));
    }

    #[test]
    fn a_sink_without_watermark_leaves_the_job_without() {
        let status = JobStatus {
            operators: vec![operator("sink b", Some(7)), operator("sink c", None)],
            ..JobStatus::default()
        };
        assert_eq!(least_watermark(&status), (None, None));
    }
}
