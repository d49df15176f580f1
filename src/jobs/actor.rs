//! The task that owns one job: it sees, decides and does, one thing after the other.
//!
//! Everything that decides lies in [`super::decide`]; this file performs. The definition on disk is written before what it
//! says is done, so that a server that dies in between does it again rather than forgets it.

use super::child::{ChildEvent, ChildProcess, Launch, exit_text};
use super::decide::{self, Decision, Exit, Instant, JobState, Observed, Process, RestartPolicy, Stopped};
use super::definition::{Desired, JobDefinition, LastError, Outcome, Program, RestoreWish};
use super::error::JobError;
use super::protocol::message::{Ended, Rejection, RestorePoint, StartJob, StopRequest, WorkerCall};
use super::registry::Registry;
use super::spawner::Spawner;
use super::store_service::StoreService;
use super::view::{JobView, Runtime};
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints::SnapshotStore;
use tidemill_engine::status::JobPhase;
use tidemill_engine::time::TimeSource;
use tokio::sync::{mpsc, oneshot, watch};

/// Within this time after `stop now` a process must be gone.
const STOP_NOW_TIMEOUT: Duration = Duration::from_secs(10);

/// What all jobs of a server share.
#[derive(Clone)]
pub(crate) struct Context {
    /// Where definitions lie.
    pub(crate) registry: Registry,
    /// Starts processes.
    pub(crate) spawner: Spawner,
    /// What processes use of the shard store.
    pub(crate) store: StoreService,
    /// When failed jobs are started again.
    pub(crate) policy: RestartPolicy,
    /// Against which relative paths of tables are resolved.
    pub(crate) data_directory: String,
    /// Where checkpoints are kept.
    pub(crate) checkpoint_url: String,
    /// The same, opened.
    pub(crate) snapshots: SnapshotStore,
    /// Checkpoints kept per job.
    pub(crate) checkpoints_retained: usize,
    /// Makes the command line of a job's process.
    pub(crate) launcher: Arc<dyn Fn(&JobDefinition) -> Result<Launch, String> + Send + Sync>,
    /// The time.
    pub(crate) time: Arc<dyn TimeSource>,
}

/// The answer to a request.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, JobError>>;

/// What can be asked of a job.
#[derive(Debug)]
pub(crate) enum Request {
    /// Stop; answered when it has stopped, with what that left.
    Stop(StopRequest, Reply<Stopped>),
    /// Start again, from a point if one is given; answered when that is on disk.
    Start(Option<(RestoreWish, bool)>, Reply<()>),
    /// Take a checkpoint or savepoint; answered with its number when it is complete.
    Call(WorkerCall, Reply<u64>),
    /// Remove the job; `true` also if it has to be killed for that.
    Delete(bool, Reply<()>),
    /// The server goes down: stop until then, and leave what the user wants as it is.
    ShutDown(Instant),
}

/// Whether a job is new.
pub(crate) enum Origin {
    /// It was just submitted: it comes to exist when its program has been planned, and then this is answered.
    Submitted(Reply<()>),
    /// It was found on disk.
    Loaded,
}

struct Actor {
    definition: JobDefinition,
    context: Context,
    inbox: mpsc::Receiver<Request>,
    view: watch::Sender<JobView>,
    child: Option<ChildProcess>,
    process: Process,
    /// When the running process was told to run.
    ran_since: Instant,
    failed_at: Option<Instant>,
    runtime: Runtime,
    shutting_down: Option<Instant>,
    /// How the process is to be asked to stop.
    stop: Option<StopRequest>,
    /// How it was asked to.
    stop_asked: Option<StopRequest>,
    /// Why it could not stop as it was asked to.
    stop_refused: Option<String>,
    stop_replies: Vec<(StopRequest, Reply<Stopped>)>,
    /// Why the newest definition is not on disk.
    unsaved: Option<String>,
    submission: Option<Reply<()>>,
    /// What the process said last about its end, or what it was killed for.
    verdict: Option<Ended>,
    killed_for: Option<String>,
    /// It was killed as the way to stop it.
    killed_as_stop: bool,
    delete: Option<Reply<()>>,
    /// The job was deleted, or never came to exist: nothing is left to do.
    is_gone: bool,
}

/// Runs a job until it is deleted, refused, or the server has gone down.
pub(crate) async fn run(
    definition: JobDefinition,
    origin: Origin,
    context: Context,
    inbox: mpsc::Receiver<Request>,
    view: watch::Sender<JobView>,
) {
    let submission = match origin {
        Origin::Submitted(reply) => Some(reply),
        Origin::Loaded => None,
    };
    let mut actor = Actor {
        definition,
        context,
        inbox,
        view,
        child: None,
        process: Process::None,
        ran_since: Duration::ZERO,
        failed_at: None,
        runtime: Runtime::default(),
        shutting_down: None,
        stop: None,
        stop_asked: None,
        stop_refused: None,
        stop_replies: Vec::new(),
        unsaved: None,
        submission,
        verdict: None,
        killed_for: None,
        killed_as_stop: false,
        delete: None,
        is_gone: false,
    };
    actor.run().await;
}

/// The view of a job that has just been made or read.
pub(crate) fn first_view(definition: &JobDefinition) -> JobView {
    let seen = Observed {
        now: Duration::ZERO,
        desired: definition.desired,
        shutting_down: false,
        outcome: definition.outcome.clone(),
        process: Process::None,
        failures: 0,
        failures_max: definition.restart_attempts,
        failed_at: None,
    };
    JobView::new(definition, decide::state(&seen, false), &Runtime::default())
}

impl Actor {
    async fn run(&mut self) {
        loop {
            let seen = self.observe();
            self.publish(&seen);
            let wake = match decide::decide(&seen, &self.context.policy) {
                Decision::Wait => None,
                Decision::WaitUntil(then) => Some(then),
                decision => {
                    self.perform(decision).await;
                    if self.is_gone {
                        return;
                    }
                    continue;
                }
            };
            // Whoever waits for the end of a stop has it before the server goes.
            if seen.shutting_down && seen.process == Process::None {
                return;
            }
            let sleep = wake.map(|then| then.saturating_sub(seen.now));
            tokio::select! {
                request = self.inbox.recv() => match request {
                    Some(request) => self.request(request).await,
                    None => return, // the supervisor is gone, and with it the server
                },
                event = next_event(&mut self.child) => self.event(event).await,
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            }
            if self.is_gone {
                return;
            }
        }
    }

    fn observe(&self) -> Observed {
        Observed {
            now: self.context.time.monotonic(),
            desired: self.definition.desired,
            shutting_down: self.shutting_down.is_some(),
            outcome: self.definition.outcome.clone(),
            process: self.process.clone(),
            failures: self.runtime.failures,
            failures_max: self.definition.restart_attempts,
            failed_at: self.failed_at,
        }
    }

    fn publish(&self, seen: &Observed) {
        let ticks = self
            .runtime
            .status
            .as_ref()
            .is_some_and(|s| s.phase == JobPhase::Running);
        let view = JobView::new(&self.definition, decide::state(seen, ticks), &self.runtime);
        self.view.send_replace(view);
    }

    fn state(&self) -> JobState {
        self.view.borrow().state
    }

    async fn perform(&mut self, decision: Decision) {
        match decision {
            Decision::Wait | Decision::WaitUntil(_) => {}
            Decision::Start => self.start().await,
            Decision::AskToStop => self.ask_to_stop(),
            // Nothing is lost with a process that only plans: that is a stop like any other.
            Decision::Kill(_) if matches!(self.process, Process::Planning { .. }) && !self.is_wanted() => {
                self.kill_as_stop()
            }
            Decision::Kill(reason) => {
                self.killed_for = Some(reason);
                self.kill();
            }
            Decision::NoteStopped => self.note_stopped().await,
            Decision::NoteFailure { message, .. } | Decision::NoteOutcome(Outcome::Failed(message))
                if self.submission.is_some() =>
            {
                let stderr = self.child.as_ref().map(ChildProcess::stderr).unwrap_or_default();
                self.refuse(JobError::PlanningFailed { message, stderr });
            }
            Decision::NoteFailure { message, failures } => {
                tracing::warn!(job = %self.definition.name, failures, error = %message, "a job failed and will be restarted");
                self.runtime.failures = failures;
                self.failed_at = Some(self.context.time.monotonic());
                self.note_error(message);
                self.runtime.restarts += 1;
                self.process = Process::None;
                self.child = None;
                self.runtime.process_ids.clear();
                self.save_or_log().await;
            }
            Decision::NoteOutcome(outcome) => {
                match &outcome {
                    Outcome::Finished => tracing::info!(job = %self.definition.name, "a job has finished"),
                    Outcome::Failed(reason) => {
                        tracing::error!(job = %self.definition.name, reason, "a job was given up");
                        self.note_error(reason.clone());
                    }
                }
                self.definition.outcome = Some(outcome);
                self.note_stopped().await;
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.definition.desired == Desired::Running && self.shutting_down.is_none()
    }

    async fn start(&mut self) {
        self.verdict = None;
        self.killed_for = None;
        (self.stop_asked, self.stop_refused) = (None, None);
        self.runtime.begin_process();
        let now = self.context.time.monotonic();
        let failed = |message| {
            Process::Gone(Exit::Failed {
                message,
                retryable: true,
                ran: Duration::ZERO,
            })
        };
        let launch = match (self.context.launcher)(&self.definition) {
            Ok(launch) => launch,
            Err(message) => {
                self.process = failed(message);
                return;
            }
        };
        let job = self.start_job();
        match ChildProcess::start(&launch, &job, &self.context.spawner, &self.context.store).await {
            Ok(child) => {
                tracing::info!(job = %self.definition.name, pid = child.pid(), "a job's process was started");
                self.runtime.process_ids = vec![child.pid()];
                self.child = Some(child);
                self.process = Process::Planning { since: now };
            }
            Err(error) => self.process = failed(format!("cannot start {}: {error}", launch.program.display())),
        }
    }

    fn start_job(&self) -> StartJob {
        let definition = &self.definition;
        let (restore, restore_request) = match &definition.restore {
            Some(wish) => (wish.from.clone(), wish.request.clone()),
            None => (RestorePoint::Latest, String::new()),
        };
        StartJob {
            name: definition.name.to_string(),
            uid: definition.uid.clone(),
            sql: match &definition.program {
                Program::Sql(sql) => Some(sql.clone()),
                Program::Executable { .. } => None,
            },
            is_submission: self.submission.is_some(),
            parallelism: definition.parallelism,
            checkpoint_url: self.context.checkpoint_url.clone(),
            checkpoint_interval: definition.checkpoint_interval,
            checkpoints_retained: self.context.checkpoints_retained,
            restore,
            restore_request,
            allow_non_restored_state: definition.allow_non_restored_state,
            store_directory: self.context.store.directory().to_owned(),
            data_directory: self.context.data_directory.clone(),
        }
    }

    fn ask_to_stop(&mut self) {
        let heard = self.context.time.monotonic();
        let how = self.stop.clone().unwrap_or(StopRequest::Checkpoint);
        let deadline = match (&how, self.shutting_down) {
            (_, Some(deadline)) => Some(deadline),
            (StopRequest::Now, None) => Some(heard + STOP_NOW_TIMEOUT),
            _ => None,
        };
        self.stop_asked = Some(how.clone());
        if let Some(child) = &self.child {
            child.stop(how);
        }
        self.process = Process::Stopping { deadline, heard };
    }

    /// The job could not stop as asked. When a savepoint was the point it goes on; else it is stopped without.
    async fn note_stop_refused(&mut self, reason: &str) {
        if !matches!(self.stop, Some(StopRequest::Savepoint(_))) {
            tracing::warn!(job = %self.definition.name, reason, "a job takes no final checkpoint and is stopped without");
            self.stop = Some(StopRequest::Now);
            self.stop_refused = Some(reason.to_owned());
            self.ask_to_stop();
            return;
        }
        self.definition.desired = Desired::Running;
        (self.stop, self.stop_asked) = (None, None);
        self.process = Process::Running {
            heard: self.context.time.monotonic(),
        };
        self.save_or_log().await;
        let text = format!("the savepoint was not taken, and the job goes on: {reason}");
        self.answer_stops(|_| Err(JobError::Failed(text.clone())));
    }

    /// The process is gone, and the job is not to be started again by itself.
    async fn note_stopped(&mut self) {
        let savepoint = matches!(self.stop, Some(StopRequest::Savepoint(_)));
        let took_it = matches!(self.process, Process::Gone(Exit::Stopped | Exit::Finished));
        let died_of = match &self.process {
            Process::Gone(Exit::Failed { message, .. }) => Some(message.clone()),
            _ => None,
        };
        let exit = match &self.process {
            Process::Gone(exit) => exit.clone(),
            _ => Exit::Stopped,
        };
        let (asked, refused) = (self.stop_asked.take(), self.stop_refused.take());
        let killed = std::mem::take(&mut self.killed_as_stop);
        let left = |wanted: &StopRequest| decide::stopped(wanted, asked.as_ref(), &exit, killed, refused.as_deref());
        self.process = Process::None;
        self.child = None;
        self.runtime.process_ids.clear();
        self.runtime.failures = 0;
        self.failed_at = None;
        let stop = self.stop.take();
        if let Some(reply) = self.delete.take() {
            let result = self.remove().await;
            let done = result.is_ok();
            let _ = reply.send(result);
            if done {
                self.answer_stops(|wanted| Ok(left(wanted)));
                self.is_gone = true;
                return;
            }
        }
        if self.submission.is_some() {
            self.refuse(JobError::ShuttingDown);
            return;
        }
        if let Some(message) = died_of {
            if stop.is_some() && stop != Some(StopRequest::Now) {
                self.note_error(message.clone());
            }
            if savepoint && !took_it && self.shutting_down.is_none() {
                // The savepoint was the point: without it the job goes on.
                self.definition.desired = Desired::Running;
                self.save_or_log().await;
                let text = format!("the savepoint was not taken, and the job goes on: {message}");
                self.answer_stops(|_| Err(JobError::Failed(text.clone())));
                return;
            }
        }
        self.save_or_log().await;
        self.publish(&self.observe());
        match self.not_recorded() {
            None => self.answer_stops(|wanted| Ok(left(wanted))),
            Some(text) => self.answer_stops(|_| Err(JobError::Failed(text.clone()))),
        }
    }

    /// Says that the job has stopped but the next server would not know it, if that is so.
    fn not_recorded(&self) -> Option<String> {
        self.unsaved.as_ref().map(|error| {
            format!(
                "job {} has stopped, but that could not be recorded: {error}; then stop it once more, or it runs again when \
                 the server is started again",
                self.definition.name
            )
        })
    }

    fn answer_stops(&mut self, answer: impl Fn(&StopRequest) -> Result<Stopped, JobError>) {
        for (wanted, reply) in self.stop_replies.drain(..) {
            let _ = reply.send(answer(&wanted));
        }
    }

    /// A new job that could not be planned, or not be written down, never was. Its process goes with the actor.
    fn refuse(&mut self, error: JobError) {
        if let Some(reply) = self.submission.take() {
            let _ = reply.send(Err(error));
        }
        self.is_gone = true;
    }

    async fn event(&mut self, event: ChildEvent) {
        let now = self.context.time.monotonic();
        match event {
            ChildEvent::Planned(plan) => {
                self.runtime.plan = Some(plan);
                if matches!(self.process, Process::Planning { .. }) {
                    self.planned(now).await;
                }
            }
            ChildEvent::Rejected(rejection) if self.submission.is_some() => self.refuse(JobError::Rejected(rejection)),
            ChildEvent::Rejected(rejection) => {
                let message = format!("its program is refused: {}", describe(&rejection));
                self.verdict = Some(Ended::Failed {
                    message,
                    retryable: false,
                });
            }
            ChildEvent::Status(status) => {
                self.runtime.tell(*status);
                match &mut self.process {
                    Process::Running { heard } | Process::Stopping { heard, .. } => *heard = now,
                    _ => {}
                }
            }
            ChildEvent::StopRefused(reason) if matches!(self.process, Process::Stopping { .. }) => {
                self.note_stop_refused(&reason).await;
            }
            ChildEvent::StopRefused(_) => {}
            ChildEvent::Ended(ended) => self.verdict = Some(ended),
            ChildEvent::Garbled(message) => {
                self.process = Process::Dying;
                self.verdict = Some(Ended::Failed {
                    message,
                    retryable: true,
                });
            }
            ChildEvent::Exited(status) => {
                let ran = match self.process {
                    Process::Planning { .. } | Process::None => Duration::ZERO,
                    _ => now.saturating_sub(self.ran_since),
                };
                let exit = match (self.killed_for.take(), self.verdict.take()) {
                    (Some(message), _) => Exit::Failed {
                        message,
                        retryable: true,
                        ran,
                    },
                    (None, Some(Ended::Finished)) => Exit::Finished,
                    (None, Some(Ended::Stopped)) => Exit::Stopped,
                    (None, Some(Ended::Failed { message, retryable })) => Exit::Failed {
                        message,
                        retryable,
                        ran,
                    },
                    (None, None) => Exit::Failed {
                        message: self.death(status),
                        retryable: true,
                        ran,
                    },
                };
                self.process = Process::Gone(exit);
            }
        }
    }

    /// Says what a process died of that did not say it itself: a panic's message if there is one.
    fn death(&self, status: std::process::ExitStatus) -> String {
        let what = match self.process {
            Process::Planning { .. } => "while the job was planned, ",
            _ => "",
        };
        let stderr = self.child.as_ref().map(ChildProcess::stderr).unwrap_or_default();
        let telling = ["panicked at", "has overflowed its stack", "memory allocation of"];
        let last = stderr.iter().rposition(|line| telling.iter().any(|t| line.contains(t)));
        let said = last.map(|at| stderr[at..].iter().take(2).cloned().collect::<Vec<_>>().join(" "));
        match said {
            Some(said) => format!("{what}{}: {said}", exit_text(status)),
            None => format!("{what}{}", exit_text(status)),
        }
    }

    async fn planned(&mut self, now: Instant) {
        if self.submission.is_some()
            && let Err(error) = self.save().await
        {
            self.refuse(error);
            return;
        }
        self.ran_since = now;
        self.process = Process::Running { heard: now };
        if let Some(reply) = self.submission.take() {
            // Whoever submitted it looks at it next, and sees what was planned.
            self.publish(&self.observe());
            let _ = reply.send(Ok(()));
        }
        if let Some(child) = &self.child {
            child.run();
        }
    }

    async fn request(&mut self, request: Request) {
        match request {
            Request::Stop(how, reply) => self.request_stop(how, reply).await,
            Request::Start(wish, reply) => {
                let result = self.request_start(wish).await;
                let _ = reply.send(result);
            }
            Request::Call(call, reply) => match (&self.process, &mut self.child) {
                (Process::Running { .. }, Some(child)) => {
                    let answer = child.call(call);
                    tokio::spawn(async move {
                        let result = match answer.await {
                            Ok(result) => result.map_err(JobError::Failed),
                            Err(_) => Err(JobError::Failed("the job's process ended first; ask again".into())),
                        };
                        let _ = reply.send(result);
                    });
                }
                _ => {
                    let _ = reply.send(Err(
                        self.not_running("a checkpoint or savepoint is taken of a running job")
                    ));
                }
            },
            Request::Delete(force, reply) => {
                if self.state().is_active() && !force {
                    let text = format!(
                        "job {} is not stopped; stop it first, or delete it with force",
                        self.definition.name
                    );
                    let _ = reply.send(Err(JobError::Conflict(text)));
                    return;
                }
                self.delete = Some(reply);
                self.definition.desired = Desired::Stopped;
                self.stop = Some(StopRequest::Now);
                if self.child.is_some() {
                    self.kill_as_stop();
                } else {
                    self.process = Process::Gone(Exit::Stopped);
                }
            }
            Request::ShutDown(deadline) => {
                self.shutting_down = Some(deadline);
                if let Process::Stopping { deadline: limit, .. } = &mut self.process {
                    *limit = Some(limit.map_or(deadline, |limit| limit.min(deadline)));
                }
            }
        }
    }

    /// Kills the process, as the way to stop it.
    fn kill_as_stop(&mut self) {
        self.verdict = Some(Ended::Stopped);
        self.killed_as_stop = true;
        self.kill();
    }

    fn kill(&mut self) {
        self.process = Process::Dying;
        if let Some(child) = &self.child {
            child.kill();
        }
    }

    async fn request_stop(&mut self, how: StopRequest, reply: Reply<Stopped>) {
        let is_savepoint = matches!(how, StopRequest::Savepoint(_));
        let runs = matches!(self.process, Process::Running { .. });
        if is_savepoint && !runs {
            let _ = reply.send(Err(
                self.not_running("a savepoint is taken of a running job; stop it without one")
            ));
            return;
        }
        let (before, was_active) = (self.definition.desired, self.state().is_active());
        self.definition.desired = Desired::Stopped;
        if before != Desired::Stopped || self.unsaved.is_some() {
            // Also when it cannot be recorded the job stops: that is what was asked for, and the answer tells the rest.
            self.save_or_log().await;
        }
        match &mut self.process {
            Process::None => {
                let answer = match (self.not_recorded(), was_active, &how, &self.definition.last_error) {
                    (Some(text), ..) => Err(JobError::Failed(text)),
                    (None, false, ..) => Ok(Stopped::Already),
                    (None, true, StopRequest::Now, _) => Ok(Stopped::AtOnce),
                    (None, true, _, Some(error)) => Ok(Stopped::Without(format!(
                        "it had failed and was about to be started again: {}",
                        error.message
                    ))),
                    (None, true, _, None) => Ok(Stopped::Without("it was not running yet".into())),
                };
                self.publish(&self.observe());
                let _ = reply.send(answer);
                return;
            }
            // It stops already: only a harder way changes that.
            Process::Stopping { .. } if how == StopRequest::Now => {
                self.stop = Some(how.clone());
                self.kill_as_stop();
            }
            Process::Stopping { .. } => {}
            _ => self.stop = Some(how.clone()),
        }
        self.stop_replies.push((how, reply));
    }

    async fn request_start(&mut self, wish: Option<(RestoreWish, bool)>) -> Result<(), JobError> {
        if self.definition.desired == Desired::Running && self.definition.outcome.is_none() {
            if wish.is_some() {
                let text = format!(
                    "job {} is not stopped; stop it before it is started from another point",
                    self.definition.name
                );
                return Err(JobError::Conflict(text));
            }
            return Ok(());
        }
        if self.process != Process::None {
            let text = format!(
                "job {} is still stopping; ask again when it has stopped",
                self.definition.name
            );
            return Err(JobError::Conflict(text));
        }
        let before = self.definition.clone();
        self.definition.desired = Desired::Running;
        self.definition.outcome = None;
        if let Some((wish, allow_non_restored_state)) = wish {
            self.definition.restore = Some(wish);
            self.definition.allow_non_restored_state = allow_non_restored_state;
        }
        if let Err(error) = self.save().await {
            self.definition = before;
            return Err(error);
        }
        self.runtime.failures = 0;
        self.failed_at = None;
        Ok(())
    }

    fn not_running(&self, rule: &str) -> JobError {
        let state = serde_json::to_value(self.state()).unwrap_or_default();
        let state = state.as_str().unwrap_or("not running").to_owned();
        JobError::Conflict(format!("job {} is {state}; {rule}", self.definition.name))
    }

    fn note_error(&mut self, message: String) {
        let stderr = self.child.as_ref().map(ChildProcess::stderr).unwrap_or_default();
        self.definition.last_error = Some(LastError {
            message,
            at_ms: self.context.time.wall_ms(),
            stderr,
        });
    }

    async fn save(&mut self) -> Result<(), JobError> {
        let (registry, definition) = (self.context.registry.clone(), self.definition.clone());
        blocking(move || registry.save(&definition)).await?;
        self.unsaved = None;
        Ok(())
    }

    /// Saves what the job does also when it cannot be saved.
    async fn save_or_log(&mut self) {
        if let Err(error) = self.save().await {
            tracing::error!(job = %self.definition.name, %error, "cannot write a job's definition");
            self.unsaved = Some(error.to_string());
        }
    }

    async fn remove(&self) -> Result<(), JobError> {
        let (registry, uid) = (self.context.registry.clone(), self.definition.uid.clone());
        blocking(move || registry.remove(&uid)).await
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), super::registry::RegistryError> + Send + 'static,
) -> Result<(), JobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(JobError::Failed(error.to_string())),
    }
}

/// Waits for what the process tells; for ever when there is none.
async fn next_event(child: &mut Option<ChildProcess>) -> ChildEvent {
    if let Some(child) = child
        && let Some(event) = child.event().await
    {
        return event;
    }
    std::future::pending().await
}

fn describe(rejection: &Rejection) -> String {
    let mut text = rejection.message.clone();
    if let (Some(line), Some(column)) = (rejection.line, rejection.column) {
        text = format!("line {line}, column {column}: {text}");
    }
    if let Some(hint) = &rejection.hint {
        text = format!("{text}; {hint}");
    }
    text
}
