//! Runs a query as a job, with checkpoints to the local disk.

use super::latency::{Watch, Watched};
use super::queries::write_side_input;
use super::{Checkpoint, NexmarkOptions, Query, Ran};
use crate::bench::scratch::Scratch;
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidemill_checkpoints::SnapshotStore;
use tidemill_connectors::ConnectorEnvironment;
use tidemill_engine::job::{CheckpointOptions, JobConfig, JobEnd, start};
use tidemill_engine::status::{CheckpointStatus, JobStatus};

/// How often the job's checkpoints are noted: its status has the newest ten.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(super) async fn run(query: &'static Query, options: &NexmarkOptions, scratch: &Scratch) -> anyhow::Result<Ran> {
    let directory = scratch.path().to_owned();
    write_side_input(&directory)?;
    let environment = ConnectorEnvironment::new().with_data_directory(&directory);
    let pace = options.events_per_second;
    let watch = pace.map(|pace| Watch::new(options.events, pace, options.event_rate));
    let planning = {
        let (options, directory) = (options.clone(), directory.clone());
        let watch = watch.clone();
        tokio::task::spawn_blocking(move || match watch {
            Some(watch) => query.plan(&options, &Watched { environment, watch }, &directory),
            None => query.plan(&options, &environment, &directory),
        })
    };
    let plan = planning.await?.map_err(|error| match (&watch, &error.hint) {
        // The planner knows the query, and the measurement refuses it.
        (Some(_), Some(hint)) => anyhow::anyhow!("{}: {}; {hint}", query.name, error.message),
        _ => anyhow::anyhow!("{} is not supported yet: {}", query.name, error.message),
    })?;
    let mut config = JobConfig::new(format!("nexmark-{}", query.name));
    config.parallelism = options.parallelism;
    config.plan_hash = plan.plan_hash;
    // Also without an interval: a sink of files publishes at the job's end, with its last checkpoint.
    let url = format!("file://{}", directory.join("checkpoints").display());
    let mut checkpoints = CheckpointOptions::new(SnapshotStore::open(&url)?);
    checkpoints.interval = options.checkpoints;
    config.checkpoints = Some(checkpoints);

    let started = Instant::now();
    let handle = start(plan.graph, config, &tokio::runtime::Handle::current())?;
    let mut seen: BTreeMap<u64, CheckpointStatus> = BTreeMap::new();
    let mut note = |status: &JobStatus| {
        seen.extend(
            status
                .checkpoints
                .iter()
                .map(|checkpoint| (checkpoint.id, checkpoint.clone())),
        );
    };
    let end = {
        let mut wait = std::pin::pin!(handle.wait());
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                end = &mut wait => break end,
                _ = look.tick() => note(&handle.status()),
            }
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let status = handle.status();
    note(&status);
    match end.with_context(|| format!("{} failed", query.name))? {
        JobEnd::Finished => {}
        JobEnd::Stopped => bail!("the job was stopped"),
    }
    let sum = |kind: &str, count: fn(&tidemill_engine::metrics::OperatorCounts) -> u64| -> u64 {
        let operators = status
            .operators
            .iter()
            .filter(|operator| operator.name.starts_with(kind));
        operators.map(|operator| count(&operator.counts)).sum()
    };
    let checkpoint = |checkpoint: &CheckpointStatus| Checkpoint {
        id: checkpoint.id,
        state_bytes: checkpoint.state_bytes,
        duration_ms: checkpoint.duration_ms,
        pause_us: checkpoint.pause_us,
    };
    Ok(Ran {
        events: sum("source ", |counts| counts.rows_in),
        seconds,
        rows_out: sum("sink ", |counts| counts.rows_in),
        rows_late: sum("", |counts| counts.rows_late),
        ticks: status.ticks,
        checkpoints: seen.values().map(checkpoint).collect(),
        latency: watch.and_then(|watch| watch.measured()),
    })
}
