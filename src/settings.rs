//! From what the user wants to the engine's configuration.

use crate::jobs::protocol::message::{RestorePoint, StartJob, StopRequest};
use std::time::Duration;
use tidemill_checkpoints::failpoints::CHECKPOINT_FAILPOINTS;
use tidemill_checkpoints::{Failpoints, SnapshotStore};
use tidemill_engine::graph::JobGraph;
use tidemill_engine::job::{CheckpointOptions, JobConfig, RestoreFrom, StopMode};

/// Names failpoints for tests of a real binary: `name=action[@when],...`.
const FAILPOINTS_VARIABLE: &str = "TIDEMILL_FAILPOINTS";

/// Makes the engine's configuration of a job.
///
/// # Errors
/// When the checkpoint store cannot be opened, or the failpoints of the environment cannot be understood.
pub(crate) fn job_config(job: &StartJob, graph: &JobGraph) -> Result<JobConfig, String> {
    let store = SnapshotStore::open(&job.checkpoint_url)
        .map_err(|error| format!("cannot keep checkpoints in {}: {error}", job.checkpoint_url))?;
    let mut checkpoints = CheckpointOptions::new(store);
    checkpoints.interval = job.checkpoint_interval_ms.map(Duration::from_millis);
    checkpoints.retained = job.checkpoints_retained;
    checkpoints.restore = restore_from(job)?;
    checkpoints.allow_non_restored_state = job.allow_non_restored_state;
    let mut config = JobConfig::new(job.name.clone());
    config.uid = job.uid.clone();
    config.parallelism = job.parallelism;
    config.checkpoints = Some(checkpoints);
    config.plan_hash = plan_hash(graph);
    if let Ok(spec) = std::env::var(FAILPOINTS_VARIABLE) {
        let parsed = Failpoints::parse(&spec, CHECKPOINT_FAILPOINTS);
        config.failpoints = parsed.map_err(|error| format!("{FAILPOINTS_VARIABLE}: {error}"))?;
    }
    Ok(config)
}

fn restore_from(job: &StartJob) -> Result<RestoreFrom, String> {
    Ok(match &job.restore {
        RestorePoint::Latest => RestoreFrom::Latest,
        RestorePoint::Savepoint { job: other, name } if *other == job.uid => RestoreFrom::Savepoint(name.clone()),
        RestorePoint::Savepoint { job: other, name } => {
            RestoreFrom::OtherSavepoint { job: other.clone(), name: name.clone() }
        }
        RestorePoint::Checkpoint { job: other, id } if *other == job.uid => RestoreFrom::Checkpoint(*id),
        RestorePoint::Checkpoint { job: other, id } => {
            RestoreFrom::OtherCheckpoint { job: other.clone(), checkpoint: *id }
        }
        RestorePoint::Nothing => return Err("a job cannot be started without its state yet; submit it under another name".into()),
    })
}

/// The engine's form of a wish to stop.
pub(crate) fn stop_mode(how: StopRequest) -> StopMode {
    match how {
        StopRequest::Checkpoint => StopMode::Checkpoint,
        StopRequest::Savepoint(name) => StopMode::Savepoint(name),
        StopRequest::Now => StopMode::Now,
    }
}

/// A hash of the graph's text, which names every operator with its uid and columns.
fn plan_hash(graph: &JobGraph) -> String {
    format!("{:016x}", tidemill_engine::key::key_hash(graph.explain().as_bytes()))
}
