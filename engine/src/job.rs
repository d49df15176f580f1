//! Running a job: its configuration, and the handle on it while it runs.

use crate::error::{Error, Result};
use crate::graph::{JobGraph, NodeKind};
use crate::key::{KEY_GROUPS_DEFAULT, KEY_GROUPS_MAX};
use crate::runtime::{JobShared, Request, launch, panic_message};
use crate::status::{JobPhase, JobStatus};
use crate::time::{SystemTime, TimeSource};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints::{Failpoints, RestoreFrom, SavepointName, SnapshotKind, SnapshotStore};
use tokio::sync::{oneshot, watch};

/// The greatest number of worker threads: a worker without a key group would have nothing to do.
pub const PARALLELISM_MAX: usize = KEY_GROUPS_DEFAULT as usize;

/// How ticks are opened and closed.
#[derive(Clone, Debug)]
pub struct TickOptions {
    /// Ticks in flight at most (K), at least 1.
    pub in_flight_max: usize,
    /// The least time between two ticks while there is a trickle of data; full ticks follow one another at once.
    pub interval_min: Duration,
    /// Rows that a worker takes in per tick, over all its sources; up to twice as many while others have not as many.
    pub rows_max: usize,
    /// Bytes of input that a worker takes in per tick, or up to twice as many.
    pub bytes_max: usize,
    /// Rows that an operator emits per call.
    pub output_rows_max: usize,
}

impl Default for TickOptions {
    fn default() -> Self {
        Self {
            in_flight_max: 4,
            interval_min: Duration::from_millis(2),
            rows_max: 32 * 1024,
            bytes_max: 4 * 1024 * 1024,
            output_rows_max: 32 * 1024,
        }
    }
}

/// Where and how often checkpoints are taken.
#[derive(Clone)]
pub struct CheckpointOptions {
    /// Where they are kept.
    pub store: SnapshotStore,
    /// The time between two checkpoints; `None`: only savepoints and the final one.
    pub interval: Option<Duration>,
    /// An upload that takes longer is given up and repeated; a hold or a sink that is not through by then fails the job.
    pub timeout: Duration,
    /// Checkpoints kept.
    pub retained: usize,
    /// Attempts that may fail in a row before the job fails.
    pub failures_max: u32,
    /// What to start from.
    pub restore: RestoreFrom,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    pub allow_non_restored_state: bool,
}

impl CheckpointOptions {
    /// Makes the default options: every 10 s, 10 minutes at most, 3 kept, 5 failures in a row allowed.
    #[must_use]
    pub fn new(store: SnapshotStore) -> Self {
        Self {
            store,
            interval: Some(Duration::from_secs(10)),
            timeout: Duration::from_secs(600),
            retained: 3,
            failures_max: 5,
            restore: RestoreFrom::Latest,
            allow_non_restored_state: false,
        }
    }
}

/// A job's configuration.
#[derive(Clone)]
pub struct JobConfig {
    /// The job's name, for people.
    pub name: String,
    /// The job's stable identity, `[A-Za-z0-9_.-]{1,128}`: its checkpoints and staged output belong to it.
    pub uid: String,
    /// The number of worker threads, at least 1.
    pub parallelism: usize,
    /// Checkpoints; without them an exactly-once sink is refused.
    pub checkpoints: Option<CheckpointOptions>,
    /// How ticks are opened and closed.
    pub ticks: TickOptions,
    /// The number of key groups of a new job; a restored one keeps its own.
    pub key_groups: u16,
    /// Where time comes from.
    pub time: Arc<dyn TimeSource>,
    /// A hash of the plan, stored in checkpoints.
    pub plan_hash: String,
    /// Named points at which tests let the job fail.
    pub failpoints: Failpoints,
}

impl JobConfig {
    /// Makes the default configuration: one worker, no checkpoints, the machine's clock.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            uid: name.clone(),
            name,
            parallelism: 1,
            checkpoints: None,
            ticks: TickOptions::default(),
            key_groups: KEY_GROUPS_DEFAULT,
            time: Arc::new(SystemTime::default()),
            plan_hash: String::new(),
            failpoints: Failpoints::default(),
        }
    }
}

/// How a job is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// After a last checkpoint, so that a restart continues there.
    Checkpoint,
    /// After a savepoint of this name.
    Savepoint(String),
    /// At once; a restart continues at the newest checkpoint.
    Now,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// All its tables have ended and everything is published.
    Finished,
    /// It was stopped.
    Stopped,
}

/// A running job. Dropping the handle stops the job at once.
pub struct JobHandle {
    shared: Arc<JobShared>,
    ended: watch::Receiver<Option<Result<JobEnd>>>,
    keeps_checkpoints: bool,
}

impl std::fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobHandle")
            .field("ended", &*self.ended.borrow())
            .finish_non_exhaustive()
    }
}

/// Starts a job; its workers run on threads of their own, its I/O on `runtime`.
///
/// # Errors
/// When the graph or the configuration is not valid. Failures after that are told by [`JobHandle::wait`].
pub fn start(graph: JobGraph, config: JobConfig, runtime: &tokio::runtime::Handle) -> Result<JobHandle> {
    graph.validate()?;
    check(&config)?;
    let keeps_checkpoints = config.checkpoints.is_some();
    let shared = Arc::new(JobShared::new(&graph, config.parallelism, Arc::clone(&config.time)));
    let (sender, ended) = watch::channel(None);
    let (for_thread, runtime) = (Arc::clone(&shared), runtime.clone());
    let run = move || {
        let launched = std::panic::catch_unwind(AssertUnwindSafe(|| launch(graph, config, &runtime, &for_thread)));
        let launched = launched.unwrap_or_else(|panic| {
            let message = panic_message(&*panic);
            Err(Error::Internal(format!("the job's thread panicked: {message}")))
        });
        let end = match launched {
            Ok(end) => {
                for_thread.update_status(|status| status.phase = JobPhase::Ended);
                Ok(end)
            }
            Err(error) => {
                for_thread.fail(error);
                Err(for_thread
                    .error()
                    .unwrap_or_else(|| Error::Internal("an error got lost".into())))
            }
        };
        // Nobody may be waiting. Whoever asks from now on sees the end; whoever asked before is answered.
        let _ = sender.send(Some(end));
        for_thread.answer_all(&Error::Checkpoint("the job has ended".into()));
    };
    std::thread::Builder::new()
        .name("tidemill-job".to_owned())
        .spawn(run)
        .map_err(|error| Error::Limit(format!("the job's thread could not be started: {error}")))?;
    Ok(JobHandle {
        shared,
        ended,
        keeps_checkpoints,
    })
}

/// Looks whether what the tables of a job that was just planned name is there, so that the job is refused at once and not
/// started in vain.
///
/// # Errors
/// The first error that a restart could not mend. What may be over soon is left to the start.
pub async fn check_tables(graph: &JobGraph) -> Result<()> {
    for node in graph.nodes() {
        let checked = match &node.kind {
            NodeKind::Source(source) => source.source.check().await,
            NodeKind::Sink(sink) => sink.sink.check().await,
            _ => Ok(()),
        };
        match checked {
            Err(error) if !error.is_retryable() => return Err(error),
            Err(error) => tracing::warn!(%error, "a table could not be looked at before the start"),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn check(config: &JobConfig) -> Result<()> {
    let refused = |message: &str| Err(Error::Graph(message.to_owned()));
    if config.parallelism == 0 {
        return refused("the parallelism must be at least 1");
    }
    if config.ticks.in_flight_max == 0 || config.ticks.rows_max == 0 || config.ticks.bytes_max == 0 {
        return refused("ticks in flight, rows and bytes per tick must be at least 1");
    }
    if config.ticks.output_rows_max == 0 {
        return refused("an operator must be allowed to emit at least 1 row per call");
    }
    if config.key_groups == 0 || config.key_groups > KEY_GROUPS_MAX {
        return Err(Error::Graph(format!(
            "key groups must be 1 to {KEY_GROUPS_MAX}, not {}",
            config.key_groups
        )));
    }
    Ok(())
}

impl JobHandle {
    /// Returns what the job is doing; cheap enough to call every second.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.shared.status()
    }

    /// Takes a checkpoint now and returns its number once it exists and is published.
    ///
    /// # Errors
    /// When the attempt fails or the job ends first.
    pub async fn checkpoint(&self) -> Result<u64> {
        self.ask(SnapshotKind::Periodic).await
    }

    /// Takes a savepoint and returns the number of its checkpoint.
    ///
    /// # Errors
    /// When the name is taken or not valid, or the attempt fails, or the job ends first.
    pub async fn savepoint(&self, name: &str) -> Result<u64> {
        self.ask(SnapshotKind::Savepoint(savepoint_name(name)?)).await
    }

    async fn ask(&self, kind: SnapshotKind) -> Result<u64> {
        self.check_store()?;
        let (answer, answered) = oneshot::channel();
        self.shared.ask(Request::Checkpoint { kind, answer });
        self.answered(answered).await
    }

    async fn answered(&self, answered: oneshot::Receiver<Result<u64>>) -> Result<u64> {
        if self.ended.borrow().is_some() {
            return Err(Error::Checkpoint("the job has ended".into()));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(Error::Checkpoint("the job has ended".into())))
    }

    fn check_store(&self) -> Result<()> {
        if self.keeps_checkpoints {
            return Ok(());
        }
        let message = "the job keeps no checkpoints; configure a place for them, or stop it at once";
        Err(Error::Checkpoint(message.into()))
    }

    /// Stops the job. Returns once the last checkpoint is published, or at once for [`StopMode::Now`];
    /// [`JobHandle::wait`] tells when the job has ended.
    ///
    /// # Errors
    /// When the last checkpoint cannot be: the job keeps none, or the savepoint's name is taken or not valid. The job then
    /// goes on.
    pub async fn stop(&self, mode: StopMode) -> Result<()> {
        let kind = match mode {
            StopMode::Now => {
                self.shared.update_status(|status| status.phase = JobPhase::Stopping);
                self.shared.ask(Request::StopNow);
                return Ok(());
            }
            StopMode::Checkpoint => SnapshotKind::Final,
            StopMode::Savepoint(name) => SnapshotKind::Savepoint(savepoint_name(&name)?),
        };
        self.check_store()?;
        self.shared.update_status(|status| status.phase = JobPhase::Stopping);
        let (answer, answered) = oneshot::channel();
        self.shared.ask(Request::StopAfter { kind, answer });
        self.answered(answered).await.map(|_| ())
    }

    /// Waits until the job has ended; may be called again and from several tasks.
    ///
    /// # Errors
    /// When it failed.
    pub async fn wait(&self) -> Result<JobEnd> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(JobEnd::Stopped)),
            Err(_) => Err(Error::Internal("the job's thread ended without a word".into())),
        }
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.shared.stop_now();
    }
}

fn savepoint_name(name: &str) -> Result<SavepointName> {
    SavepointName::new(name).map_err(|error| Error::Checkpoint(error.to_string()))
}
