//! Starting a job: claim, restore, replay publishing, then run the workers to their end.

use super::clock::{ClockStart, SplitRestore, TableOptions};
use super::coordinator::{self, Committers, Coordinator, JobFacts, Message};
use super::discovery::{KnownSplits, discover};
use super::shared::{JobShared, panic_message};
use super::worker::{self, Blueprint};
use crate::error::{Error, Result};
use crate::graph::{JobGraph, NodeKind};
use crate::job::{CheckpointOptions, JobConfig, JobEnd};
use crate::sink::{CommitterContext, DeliveryGuarantee};
use crate::source::{SplitId, SplitState};
use crate::status::JobPhase;
use crate::time::Watermark;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_checkpoints as checkpoints;
use tidemill_checkpoints::{JobUid, Manifest, Nonce, OperatorUid, StartOptions, StateReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Runs a job on this thread until it ends.
pub(crate) fn launch(
    graph: JobGraph,
    config: JobConfig,
    runtime: &tokio::runtime::Handle,
    shared: &Arc<JobShared>,
) -> Result<JobEnd> {
    let committers = committers(&graph, &config, runtime)?;
    let (protocol, restored) = match &config.checkpoints {
        Some(options) => {
            let (protocol, restored) = runtime.block_on(claim(&graph, &config, options, &committers))?;
            (Some(protocol), restored)
        }
        None => (None, None),
    };
    let generation = protocol.as_ref().map_or(0, |protocol| protocol.generation().0);
    let lineage = protocol
        .as_ref()
        .map(checkpoints::Coordinator::lineage)
        .unwrap_or_default();
    let key_groups = restored
        .as_ref()
        .map_or(config.key_groups, |manifest| manifest.snapshot.key_group_count);
    if config.parallelism > usize::from(key_groups) {
        let workers = config.parallelism;
        return Err(Error::Limit(format!(
            "a parallelism of {workers} is more than the job's {key_groups} key groups; lower the parallelism"
        ))
        .permanent());
    }
    let tables: Vec<TableOptions> = table_options(&graph);
    let start = restored.as_ref().map_or_else(
        || ClockStart {
            tick: 1,
            ..ClockStart::default()
        },
        |m| clock_start(m, &tables),
    );
    shared.update_status(|status| {
        status.generation = generation;
        status.restored_from = restored.as_ref().map(|manifest| manifest.checkpoint.0);
        if status.phase == JobPhase::Restoring {
            status.phase = JobPhase::Running;
        }
    });

    let mut found = Vec::new();
    for node in graph.nodes() {
        if let NodeKind::Source(source) = &node.kind {
            let splits = start.splits.get(found.len()).map(known_splits).unwrap_or_default();
            found.push((
                source.table.clone(),
                source.source.enumerator()?,
                Arc::new(KnownSplits::new(splits)),
            ));
        }
    }
    // Dropped, and with it aborted, when this function returns.
    let mut discovery = JoinSet::new();
    let mut known = Vec::new();
    for (index, (table, enumerator, splits)) in found.into_iter().enumerate() {
        known.push(Arc::clone(&splits));
        discovery.spawn_on(discover(index, table, enumerator, splits, Arc::clone(shared)), runtime);
    }
    let facts = JobFacts {
        plan_hash: config.plan_hash.clone(),
        operators: stateful(&graph),
        key_groups,
        workers: config.parallelism,
    };
    let state = match (&config.checkpoints, &restored) {
        (Some(options), Some(manifest)) => Some(StateReader::new(options.store.clone(), manifest)),
        _ => None,
    };
    let (sender, messages) = mpsc::unbounded_channel::<Message>();
    let coordinator = Coordinator {
        protocol: protocol.zip(config.checkpoints.clone()),
        committers,
        facts,
        shared: Arc::clone(shared),
        messages,
        carried: BTreeMap::new(),
        failures: 0,
        unstored: 0,
    };
    let serving = runtime.spawn(coordinator.serve());

    let time = Arc::clone(&config.time);
    let for_time = Arc::clone(shared);
    time.on_advance(Arc::new(move || for_time.wake_clock()));
    let workers = config.parallelism;
    let blueprint = Blueprint {
        graph,
        config,
        key_groups,
        generation,
        lineage,
        state,
        start,
        tables,
        known,
        runtime: runtime.clone(),
        shared: Arc::clone(shared),
        coordinator: sender,
    };
    let finished = run_workers(workers, blueprint, shared);
    drop(discovery);
    if shared.must_end() {
        // An attempt under way ends where it is: before its decision nothing exists, after it a restart publishes.
        serving.abort();
    }
    let _ = runtime.block_on(serving);
    match shared.error() {
        Some(error) => Err(error),
        None if finished? => Ok(JobEnd::Finished),
        None => Ok(JobEnd::Stopped),
    }
}

/// Runs the workers; the blueprint, and with it the way to the coordinator, is gone when they have ended.
fn run_workers(workers: usize, blueprint: Blueprint, shared: &Arc<JobShared>) -> Result<bool> {
    let for_workers = Arc::clone(shared);
    let guards = timely::execute(timely::Config::process(workers), move |timely| {
        let index = timely.index();
        let run = std::panic::AssertUnwindSafe(|| worker::run(timely, &blueprint));
        match std::panic::catch_unwind(run) {
            Ok(finished) => finished,
            Err(panic) => {
                let message = panic_message(&*panic);
                for_workers.fail(Error::Panic { worker: index, message });
                std::panic::resume_unwind(panic)
            }
        }
    });
    let guards = guards.map_err(|error| Error::Internal(format!("the workers could not be started: {error}")))?;
    let mut finished = false;
    for (index, end) in guards.join().into_iter().enumerate() {
        match end {
            Ok(of_worker) => finished |= of_worker,
            Err(message) => shared.fail(Error::Panic { worker: index, message }),
        }
    }
    Ok(finished && !shared.was_stopped_now())
}

/// Makes the committers of exactly-once sinks.
fn committers(graph: &JobGraph, config: &JobConfig, runtime: &tokio::runtime::Handle) -> Result<Committers> {
    let mut committers = Committers::new();
    for node in graph.nodes() {
        let NodeKind::Sink(sink) = &node.kind else { continue };
        if sink.sink.guarantee() == DeliveryGuarantee::ExactlyOnce && config.checkpoints.is_none() {
            return Err(Error::Graph(format!(
                "sink {} delivers exactly once, which needs checkpoints; configure them or set \
                 'sink.delivery-guarantee' = 'at-least-once'",
                sink.name
            )));
        }
        let context = CommitterContext {
            uid: node.uid.clone(),
            job: config.uid.clone(),
            runtime: runtime.clone(),
        };
        if let Some(committer) = sink.sink.committer(context)? {
            committers.insert(OperatorUid(node.uid.clone()), committer);
        }
    }
    Ok(committers)
}

/// Claims the job, finds what to restore, and repeats its publishing before one record is read.
async fn claim(
    graph: &JobGraph,
    config: &JobConfig,
    options: &CheckpointOptions,
    committers: &Committers,
) -> Result<(checkpoints::Coordinator, Option<Manifest>)> {
    let failed = |error: checkpoints::Error| Error::of_checkpoints(&error);
    let start = StartOptions {
        job: JobUid::new(config.uid.clone()).map_err(failed)?,
        nonce: Nonce::random(),
        restore: options.restore.clone(),
        started_ms: config.time.wall_ms(),
        failpoints: config.failpoints.clone(),
    };
    let (protocol, restore) = checkpoints::Coordinator::start(options.store.clone(), start)
        .await
        .map_err(failed)?;
    let Some(restore) = restore else {
        return Ok((protocol, None));
    };
    if !options.allow_non_restored_state {
        check_everything_is_restored(graph, &restore.manifest)?;
    }
    for manifest in &restore.replay {
        config.failpoints.reach("restore.replay_commit").await.map_err(failed)?;
        let committables = &manifest.snapshot.committables;
        if let Some(uid) = committables.keys().find(|uid| !committers.contains_key(uid))
            && !options.allow_non_restored_state
        {
            return Err(Error::Checkpoint(format!(
                "checkpoint {} has output of sink {uid} that is not published yet, and the job no longer has that sink; \
                 run the old job once more, or give the output up with allow_non_restored_state",
                manifest.checkpoint.0
            ))
            .permanent());
        }
        coordinator::publish(&protocol, committers, manifest.checkpoint, committables).await?;
    }
    Ok((protocol, Some(restore.manifest)))
}

fn stateful(graph: &JobGraph) -> BTreeSet<OperatorUid> {
    let is_stateful = |kind: &NodeKind| match kind {
        NodeKind::WindowAggregate(_) | NodeKind::GroupAggregate(_) | NodeKind::Custom(_) => true,
        NodeKind::Source(_) | NodeKind::Calc(_) | NodeKind::Union | NodeKind::Async(_) | NodeKind::Sink(_) => false,
    };
    graph
        .nodes()
        .iter()
        .filter(|node| is_stateful(&node.kind))
        .map(|node| OperatorUid(node.uid.clone()))
        .collect()
}

fn check_everything_is_restored(graph: &JobGraph, manifest: &Manifest) -> Result<()> {
    let present = stateful(graph);
    let mut lost: Vec<String> = Vec::new();
    let sections = manifest.snapshot.state.iter().flat_map(|state| &state.sections);
    for operator in sections.map(|section| &section.operator).collect::<BTreeSet<_>>() {
        if !present.contains(operator) {
            lost.push(format!("operator {operator}"));
        }
    }
    let tables: BTreeSet<&str> = graph
        .nodes()
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::Source(source) => Some(source.table.as_str()),
            _ => None,
        })
        .collect();
    lost.extend(
        manifest
            .snapshot
            .sources
            .keys()
            .filter(|t| !tables.contains(t.as_str()))
            .map(|t| format!("table {t}")),
    );
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::Checkpoint(format!(
        "checkpoint {} holds state that the job has no place for: {}; restore the job it was taken from, or start \
         without that state (allow_non_restored_state)",
        manifest.checkpoint.0,
        lost.join(", ")
    ))
    .permanent())
}

fn table_options(graph: &JobGraph) -> Vec<TableOptions> {
    let options = graph.nodes().iter().filter_map(|node| match &node.kind {
        NodeKind::Source(source) => Some(TableOptions {
            name: source.table.clone(),
            has_event_time: source.event_time.is_some(),
            idle_timeout: source.event_time.as_ref().and_then(|time| time.idle_timeout),
            max_drift_ms: source.event_time.as_ref().and_then(|time| time.max_drift_ms),
        }),
        _ => None,
    });
    options.collect()
}

fn clock_start(manifest: &Manifest, tables: &[TableOptions]) -> ClockStart {
    let snapshot = &manifest.snapshot;
    let watermark = |ms: Option<i64>| ms.map_or(Watermark::NONE, Watermark);
    let of_table = |table: &TableOptions| -> BTreeMap<SplitId, SplitRestore> {
        let splits = snapshot.sources.get(&table.name).into_iter().flatten();
        let restore = |(id, split): (&String, &checkpoints::SplitPosition)| {
            let position = split.position.clone();
            (
                SplitId(id.clone()),
                SplitRestore {
                    position,
                    watermark: watermark(split.watermark_ms),
                    ended: split.ended,
                },
            )
        };
        splits.map(restore).collect()
    };
    ClockStart {
        tick: snapshot.tick + 1,
        wall_time_ms: snapshot.wall_time_ms,
        watermarks: tables
            .iter()
            .map(|t| watermark(snapshot.watermarks.get(&t.name).copied().flatten()))
            .collect(),
        splits: tables.iter().map(of_table).collect(),
    }
}

fn known_splits(splits: &BTreeMap<SplitId, SplitRestore>) -> BTreeMap<SplitId, SplitState> {
    let state = |split: &SplitRestore| SplitState {
        position: split.position.clone(),
        ended: split.ended,
    };
    splits.iter().map(|(id, split)| (id.clone(), state(split))).collect()
}
