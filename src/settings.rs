//! From what the user wants to the engine's configuration.

use crate::jobs::protocol::message::{IntervalWish, Rejection, RestorePoint, StartJob, StopRequest};
use crate::planning::{Planned, Said, reject};
use std::time::Duration;
use tidemill_checkpoints::failpoints::CHECKPOINT_FAILPOINTS;
use tidemill_checkpoints::{
    CheckpointId, Failpoints, JobUid, RequestId, RestoreFrom, RestoreSource, SavepointName, SnapshotStore,
};
use tidemill_engine::Error;
use tidemill_engine::job::{CheckpointOptions, JobConfig, StopMode};

/// Names failpoints for tests of a real binary: `name=action[@when],...`.
const FAILPOINTS_VARIABLE: &str = "TIDEMILL_FAILPOINTS";

/// The time between checkpoints, unless somebody says otherwise, in milliseconds.
pub(crate) const CHECKPOINT_INTERVAL_DEFAULT_MS: u64 = 10_000;
pub(crate) use tidemill_engine::job::PARALLELISM_MAX;

/// How a job is going to run, after all wishes and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effective {
    /// The number of worker threads.
    pub(crate) parallelism: usize,
    /// The time between checkpoints in milliseconds; `None`: only savepoints and the final one.
    pub(crate) checkpoint_interval_ms: Option<u64>,
}

/// Puts wishes together: what the request says counts before what the program says, and that before the default.
///
/// # Errors
/// When the program wants what cannot be.
pub(crate) fn effective(job: &StartJob, said: &Said) -> Result<Effective, Rejection> {
    if let Some(name) = &said.name
        && *name != job.name
    {
        return Err(reject(format!(
            "the text names its job '{name}', and it is submitted as '{}'; leave SET 'pipeline.name' out, or submit it \
             under that name",
            job.name
        )));
    }
    let parallelism = job.parallelism.or(said.parallelism).unwrap_or(1);
    if !(1..=PARALLELISM_MAX).contains(&parallelism) {
        return Err(reject(format!(
            "parallelism {parallelism} cannot be; use 1 to {PARALLELISM_MAX}"
        )));
    }
    let said_ms = said
        .checkpoint_interval
        .map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1));
    let checkpoint_interval_ms = match job.checkpoint_interval {
        IntervalWish::EveryMs(interval) => Some(interval),
        IntervalWish::Never => None,
        IntervalWish::Unsaid => Some(said_ms.unwrap_or(CHECKPOINT_INTERVAL_DEFAULT_MS)),
    };
    Ok(Effective {
        parallelism,
        checkpoint_interval_ms,
    })
}

/// Makes the engine's configuration of a job.
///
/// # Errors
/// When the checkpoint store cannot be opened, which may be over soon; when the point to restore from or the failpoints of
/// the environment cannot be understood, which is permanent.
pub(crate) fn job_config(job: &StartJob, effective: &Effective, planned: &Planned) -> Result<JobConfig, Error> {
    let permanent = |message: String| Error::Checkpoint(message).permanent();
    let store = SnapshotStore::open(&job.checkpoint_url)
        .map_err(|error| Error::Checkpoint(format!("checkpoints cannot be kept: {error}")))?;
    let mut checkpoints = CheckpointOptions::new(store);
    checkpoints.interval = effective.checkpoint_interval_ms.map(Duration::from_millis);
    checkpoints.retained = job.checkpoints_retained;
    checkpoints.restore = restore_from(job).map_err(permanent)?;
    checkpoints.allow_non_restored_state = job.allow_non_restored_state;
    let mut config = JobConfig::new(job.name.clone());
    config.uid = job.uid.clone();
    config.parallelism = effective.parallelism;
    config.checkpoints = Some(checkpoints);
    config.plan_hash = planned.plan_hash.clone();
    if let Ok(spec) = std::env::var(FAILPOINTS_VARIABLE) {
        let parsed = Failpoints::parse(&spec, CHECKPOINT_FAILPOINTS);
        config.failpoints = parsed.map_err(|error| permanent(format!("{FAILPOINTS_VARIABLE}: {error}")))?;
    }
    Ok(config)
}

fn restore_from(job: &StartJob) -> Result<RestoreFrom, String> {
    let Some(source) = restore_source(&job.restore)? else {
        return Ok(RestoreFrom::Latest);
    };
    let request = RequestId::new(job.restore_request.clone()).map_err(|error| error.to_string())?;
    Ok(RestoreFrom::Chosen { source, request })
}

/// The checkpoint store's form of a point to restore from; none for the newest checkpoint.
///
/// # Errors
/// When a job's id or a savepoint's name in it cannot be.
pub(crate) fn restore_source(point: &RestorePoint) -> Result<Option<RestoreSource>, String> {
    let uid = |uid: &String| JobUid::new(uid.clone()).map_err(|error| error.to_string());
    Ok(Some(match point {
        RestorePoint::Latest => return Ok(None),
        RestorePoint::Savepoint { job, name } => {
            let name = SavepointName::new(name.clone()).map_err(|error| error.to_string())?;
            RestoreSource::Savepoint(uid(job)?, name)
        }
        RestorePoint::Checkpoint { job, id } => RestoreSource::Checkpoint(uid(job)?, CheckpointId(*id)),
        RestorePoint::Nothing => RestoreSource::Nothing,
    }))
}

/// The engine's form of a wish to stop.
pub(crate) fn stop_mode(how: StopRequest) -> StopMode {
    match how {
        StopRequest::Checkpoint => StopMode::Checkpoint,
        StopRequest::Savepoint(name) => StopMode::Savepoint(name),
        StopRequest::Now => StopMode::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(parallelism: Option<usize>, checkpoint_interval: IntervalWish) -> StartJob {
        StartJob {
            name: "a".into(),
            uid: "a-1".into(),
            parallelism,
            checkpoint_interval,
            ..StartJob::default()
        }
    }

    #[test]
    fn the_request_counts_before_the_text_and_the_text_before_the_default() {
        let said = Said {
            name: None,
            parallelism: Some(3),
            checkpoint_interval: Some(Duration::from_secs(1)),
        };
        let of = |job: StartJob, said: &Said| {
            let effective = effective(&job, said).unwrap();
            (effective.parallelism, effective.checkpoint_interval_ms)
        };
        assert_eq!(of(job(None, IntervalWish::Unsaid), &Said::default()), (1, Some(10_000)));
        assert_eq!(of(job(None, IntervalWish::Unsaid), &said), (3, Some(1_000)));
        assert_eq!(of(job(Some(2), IntervalWish::EveryMs(50)), &said), (2, Some(50)));
        assert_eq!(of(job(Some(2), IntervalWish::Never), &said), (2, None));
    }

    #[test]
    fn a_text_that_names_another_job_or_too_many_workers_is_refused() {
        let other = Said {
            name: Some("b".into()),
            ..Said::default()
        };
        assert!(
            effective(&job(None, IntervalWish::Unsaid), &other)
                .unwrap_err()
                .message
                .contains("pipeline.name")
        );
        let many = Said {
            parallelism: Some(1_000),
            ..Said::default()
        };
        assert!(
            effective(&job(None, IntervalWish::Unsaid), &many)
                .unwrap_err()
                .message
                .contains("use 1 to 256")
        );
    }

    #[test]
    fn a_restore_point_becomes_the_engines() {
        let mut job = job(None, IntervalWish::Unsaid);
        assert_eq!(restore_from(&job).unwrap(), RestoreFrom::Latest);
        job.restore = RestorePoint::Checkpoint {
            job: "b-2".into(),
            id: 7,
        };
        job.restore_request = "r".into();
        let source = RestoreSource::Checkpoint(JobUid::new("b-2").unwrap(), CheckpointId(7));
        assert_eq!(
            restore_from(&job).unwrap(),
            RestoreFrom::Chosen {
                source,
                request: RequestId::new("r").unwrap()
            }
        );
        job.restore = RestorePoint::Savepoint {
            job: "../x".into(),
            name: "s".into(),
        };
        assert!(restore_from(&job).is_err());
    }
}
