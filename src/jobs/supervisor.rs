//! All jobs of a server: finds them by name or uid, keeps names unique, and starts an actor for each.

use super::actor::{self, Context, Origin, Request};
use super::decide::{Instant, Stopped};
use super::definition::{
    CHECKPOINT_INTERVAL_MAX_MS, CHECKPOINT_INTERVAL_MIN_MS, DEFINITION_FORMAT, Desired, JobDefinition, JobName,
    Program, RestoreText, RestoreWish, new_uid,
};
use super::error::JobError;
use super::protocol::message::{IntervalWish, RestorePoint, StopRequest, WorkerCall};
use super::view::JobView;
use crate::settings::{self, PARALLELISM_MAX};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_checkpoints::{ErrorKind, JobUid, RestoreSource};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Jobs of one server at most: each is a process.
pub(crate) const JOBS_MAX: usize = 1_000;
/// Requests that wait for a job's actor.
const REQUESTS_QUEUED_MAX: usize = 32;
/// The longest client token, in characters.
const CLIENT_TOKEN_CHARS_MAX: usize = 128;

/// A job to be submitted, as the user asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Submission {
    /// The name.
    pub(crate) name: String,
    /// What to run.
    pub(crate) program: Program,
    /// The number of worker threads; `None`: as the SQL text says, or else one.
    pub(crate) parallelism: Option<usize>,
    /// How often checkpoints are taken.
    pub(crate) checkpoint_interval: IntervalWish,
    /// Where to start from.
    pub(crate) restore: Option<String>,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    pub(crate) allow_non_restored_state: bool,
    /// Failures in a row after which it is given up.
    pub(crate) restart_attempts: u32,
    /// What the submitter recognises its own repeated request by.
    pub(crate) client_token: Option<String>,
}

/// How a job has stopped.
#[derive(Debug)]
pub(crate) struct StoppedJob {
    /// The job.
    pub(crate) job: JobView,
    /// What the stop left.
    pub(crate) left: Stopped,
    /// The newest checkpoint, at which a start continues; `None` when there is none.
    pub(crate) checkpoint: Result<Option<u64>, String>,
}

/// What became of a submission.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// A new job.
    New(Box<JobView>),
    /// The job that an earlier, equal request had made.
    Repeated(Box<JobView>),
}

#[derive(Clone)]
struct Entry {
    definition: Arc<JobDefinition>,
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<JobView>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// False until its program has been planned.
    is_accepted: bool,
}

/// The jobs of a server.
#[derive(Clone)]
pub(crate) struct Supervisor {
    context: Context,
    jobs: Arc<Mutex<Jobs>>,
}

#[derive(Default)]
struct Jobs {
    by_uid: BTreeMap<String, Entry>,
    shutting_down: bool,
}

impl Supervisor {
    /// Starts the jobs that the registry holds.
    ///
    /// # Errors
    /// When a definition cannot be read.
    pub(crate) fn start(context: Context) -> Result<Self, JobError> {
        let definitions = context.registry.load()?;
        let supervisor = Self {
            context,
            jobs: Arc::default(),
        };
        let mut jobs = supervisor.lock();
        for definition in definitions {
            let entry = supervisor.spawn(definition, Origin::Loaded);
            jobs.by_uid.insert(
                entry.definition.uid.clone(),
                Entry {
                    is_accepted: true,
                    ..entry
                },
            );
        }
        drop(jobs);
        Ok(supervisor)
    }

    /// Submits a job, and answers when its program has been planned and its definition is on disk.
    ///
    /// # Errors
    /// When the request is not valid, the name is taken, the point to restore from is not there, or the program is refused.
    /// There is no such job then.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<Submitted, JobError> {
        let name = submission.name.clone();
        let result = self.try_submit(submission).await;
        let told = result.as_ref().map(|submitted| match submitted {
            Submitted::New(job) => format!("submitted as {}", job.id),
            Submitted::Repeated(job) => format!("the request was repeated; the job is {}", job.id),
        });
        self.log_request("submit", &name, told);
        result
    }

    async fn try_submit(&self, submission: Submission) -> Result<Submitted, JobError> {
        let (definition, repeated) = self.define(&submission)?;
        if let Some(entry) = repeated {
            return Ok(Submitted::Repeated(Box::new(entry.view.borrow().clone())));
        }
        if let Some(wish) = &definition.restore {
            self.check_restorable(&wish.from, submission.restore.as_deref().unwrap_or_default())
                .await?;
        }
        let uid = definition.uid.clone();
        let (reply, answer) = oneshot::channel();
        let entry = {
            // Names are looked up and taken under one lock: of two submissions of one name one wins.
            let mut jobs = self.lock();
            if jobs.shutting_down {
                return Err(JobError::ShuttingDown);
            }
            if jobs.by_uid.len() >= JOBS_MAX {
                return Err(JobError::TooMany(JOBS_MAX));
            }
            if jobs
                .by_uid
                .values()
                .any(|other| other.definition.name == definition.name)
            {
                return Err(JobError::NameTaken(definition.name.to_string()));
            }
            let entry = self.spawn(definition, Origin::Submitted(reply));
            jobs.by_uid.insert(uid.clone(), entry.clone());
            entry
        };
        // A submitter that goes away leaves its job as it would have been: the task below does not depend on it.
        let supervisor = self.clone();
        let waiting = tokio::spawn(async move {
            let result = answer.await.unwrap_or(Err(JobError::ShuttingDown));
            let mut jobs = supervisor.lock();
            if result.is_ok() {
                if let Some(entry) = jobs.by_uid.get_mut(&uid) {
                    entry.is_accepted = true;
                }
            } else {
                jobs.by_uid.remove(&uid);
            }
            result
        });
        waiting
            .await
            .unwrap_or_else(|error| Err(JobError::Failed(error.to_string())))?;
        Ok(Submitted::New(Box::new(entry.view.borrow().clone())))
    }

    /// Returns all jobs, ordered by name.
    pub(crate) fn list(&self) -> Vec<JobView> {
        let jobs = self.lock();
        let mut views: Vec<JobView> = jobs
            .by_uid
            .values()
            .filter(|entry| entry.is_accepted)
            .map(|entry| entry.view.borrow().clone())
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// Returns a job by name or uid.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn get(&self, id: &str) -> Result<JobView, JobError> {
        Ok(self.find(id)?.view.borrow().clone())
    }

    /// Returns the uid of a job by name or uid.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn uid(&self, id: &str) -> Result<String, JobError> {
        Ok(self.find(id)?.definition.uid.clone())
    }

    /// Stops a job, and answers when it has stopped.
    ///
    /// # Errors
    /// When there is no such job, it cannot be stopped like that, or it has stopped and that could not be recorded.
    pub(crate) async fn stop(&self, id: &str, how: StopRequest) -> Result<StoppedJob, JobError> {
        let result = self.try_stop(id, how).await;
        self.log_request("stop", id, result.as_ref().map(StoppedJob::text));
        result
    }

    async fn try_stop(&self, id: &str, how: StopRequest) -> Result<StoppedJob, JobError> {
        let entry = self.find(id)?;
        let left = ask(&entry, |reply| Request::Stop(how, reply)).await?;
        // The store knows best: the job's process may not have lived to tell.
        let checkpoint = match JobUid::new(entry.definition.uid.clone()) {
            Ok(uid) => self.context.snapshots.list_checkpoints(&uid, 1).await,
            Err(error) => Err(error),
        };
        Ok(StoppedJob {
            job: entry.view.borrow().clone(),
            left,
            checkpoint: checkpoint
                .map(|listed| listed.first().map(|newest| newest.manifest.checkpoint.0))
                .map_err(|error| error.to_string()),
        })
    }

    /// Starts a stopped, finished or failed job again.
    ///
    /// # Errors
    /// When there is no such job, the point to start from is not there, or one was given and the job runs.
    pub(crate) async fn start_again(
        &self,
        id: &str,
        restore: Option<&str>,
        allow_non_restored_state: bool,
    ) -> Result<JobView, JobError> {
        let result = self.try_start_again(id, restore, allow_non_restored_state).await;
        let told = result.as_ref().map(|_| match restore {
            Some(point) => format!("starts from {point:?}"),
            None => "starts".to_owned(),
        });
        self.log_request("start", id, told);
        result
    }

    async fn try_start_again(
        &self,
        id: &str,
        restore: Option<&str>,
        allow_non_restored_state: bool,
    ) -> Result<JobView, JobError> {
        let entry = self.find(id)?;
        let wish = match restore {
            None => None,
            Some(text) => {
                let from = self.restore_point(text, Some(&entry.definition.uid))?;
                self.check_restorable(&from, text).await?;
                Some((wish_for(from)?, allow_non_restored_state))
            }
        };
        ask(&entry, |reply| Request::Start(wish, reply)).await?;
        Ok(entry.view.borrow().clone())
    }

    /// Takes a checkpoint or savepoint of a running job and returns its number.
    ///
    /// # Errors
    /// When there is no such job, it does not run, or the attempt fails.
    pub(crate) async fn call(&self, id: &str, call: WorkerCall) -> Result<u64, JobError> {
        let (request, name) = match &call {
            WorkerCall::Checkpoint => ("checkpoint", None),
            WorkerCall::Savepoint(name) => ("savepoint", Some(name.clone())),
        };
        let result = match self.find(id) {
            Ok(entry) => ask(&entry, |reply| Request::Call(call, reply)).await,
            Err(error) => Err(error),
        };
        let told = result.as_ref().map(|number| match &name {
            Some(name) => format!("savepoint {name} is checkpoint {number}"),
            None => format!("checkpoint {number}"),
        });
        self.log_request(request, id, told);
        result
    }

    /// Removes a job; `force` kills it first.
    ///
    /// # Errors
    /// When there is no such job, or it is not stopped.
    pub(crate) async fn delete(&self, id: &str, force: bool) -> Result<(), JobError> {
        let name = self.name(id);
        let result = self.try_delete(id, force).await;
        self.log_request("delete", &name, result.as_ref().map(|()| "deleted".to_owned()));
        result
    }

    async fn try_delete(&self, id: &str, force: bool) -> Result<(), JobError> {
        let entry = self.find(id)?;
        ask(&entry, |reply| Request::Delete(force, reply)).await?;
        let uid = &entry.definition.uid;
        self.lock().by_uid.remove(uid);
        // Its uid is never given again, so what the store remembers of its publishing is of no use to anybody.
        if let Err(error) = self.context.store.store().forget_job(uid).await {
            tracing::warn!(%uid, %error, "the store could not forget what a deleted job had published");
        }
        Ok(())
    }

    /// The name of a job that exists, or else what was asked for.
    fn name(&self, id: &str) -> String {
        self.find(id)
            .map_or_else(|_| id.to_owned(), |entry| entry.definition.name.to_string())
    }

    /// Logs what a user asked for and what came of it. The name is the user's text where there is no such job.
    fn log_request(&self, request: &'static str, id: &str, result: Result<String, &JobError>) {
        let name = self.name(id);
        let name = name.escape_debug();
        match result {
            Ok(result) => tracing::info!(job = %name, request, result, "asked of a job"),
            Err(error) => tracing::info!(job = %name, request, result = "refused", error = %error, "asked of a job"),
        }
    }

    /// Looks whether a point to restore from is there, before anything is changed for it.
    async fn check_restorable(&self, from: &RestorePoint, text: &str) -> Result<(), JobError> {
        let wrong = |reason: String| JobError::Invalid(format!("cannot restore from {text:?}: {reason}"));
        let source = match settings::restore_source(from).map_err(wrong)? {
            None | Some(RestoreSource::Nothing) => return Ok(()),
            Some(source) => source,
        };
        match self.context.snapshots.manifest(&source).await {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(error.kind(), ErrorKind::User | ErrorKind::Corrupt)
                    && !matches!(error, tidemill_checkpoints::Error::Refused { .. }) =>
            {
                Err(wrong(error.to_string()))
            }
            Err(error) => Err(JobError::Failed(format!(
                "it could not be looked up whether {text:?} can be restored: {error}; ask again"
            ))),
        }
    }

    /// Stops all jobs after a last checkpoint, until `deadline`; they run again when the server is back.
    pub(crate) async fn shut_down(&self, deadline: Instant) {
        let entries: Vec<Entry> = {
            let mut jobs = self.lock();
            jobs.shutting_down = true;
            jobs.by_uid.values().cloned().collect()
        };
        for entry in &entries {
            let _ = entry.requests.send(Request::ShutDown(deadline)).await;
        }
        for entry in entries {
            let task = entry.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                let _ = task.await;
            }
        }
    }

    /// Checks a submission and makes its definition, or finds the job that the same request has made before.
    fn define(&self, submission: &Submission) -> Result<(JobDefinition, Option<Entry>), JobError> {
        let name = JobName::new(submission.name.as_str()).map_err(JobError::Invalid)?;
        let invalid = |text: String| Err(JobError::Invalid(text));
        if let Some(parallelism) = submission.parallelism
            && !(1..=PARALLELISM_MAX).contains(&parallelism)
        {
            return invalid(format!(
                "parallelism {parallelism} cannot be; use 1 to {PARALLELISM_MAX}"
            ));
        }
        let intervals = CHECKPOINT_INTERVAL_MIN_MS..=CHECKPOINT_INTERVAL_MAX_MS;
        if let IntervalWish::EveryMs(interval) = submission.checkpoint_interval
            && !intervals.contains(&interval)
        {
            let (min, max) = (intervals.start(), intervals.end());
            return invalid(format!(
                "checkpoint_interval_ms {interval} cannot be; use {min} to {max}, or null for none"
            ));
        }
        if let Some(token) = &submission.client_token
            && !(1..=CLIENT_TOKEN_CHARS_MAX).contains(&token.chars().count())
        {
            return invalid(format!("a client_token has 1 to {CLIENT_TOKEN_CHARS_MAX} characters"));
        }
        let restore = match &submission.restore {
            None => None,
            Some(text) => match self.restore_point(text, None)? {
                RestorePoint::Latest | RestorePoint::Nothing => None, // a new job has none: it starts empty
                from => Some(wish_for(from)?),
            },
        };
        let uid = new_uid(&name).map_err(|error| JobError::Failed(format!("cannot make an id: {error}")))?;
        let definition = JobDefinition {
            format: DEFINITION_FORMAT,
            uid,
            name,
            program: submission.program.clone(),
            parallelism: submission.parallelism,
            checkpoint_interval: submission.checkpoint_interval,
            restart_attempts: submission.restart_attempts,
            allow_non_restored_state: submission.allow_non_restored_state,
            restore,
            client_token: submission.client_token.clone(),
            created_ms: self.context.time.wall_ms(),
            desired: Desired::Running,
            outcome: None,
            last_error: None,
        };
        let jobs = self.lock();
        let same_name = jobs
            .by_uid
            .values()
            .find(|entry| entry.definition.name == definition.name && entry.is_accepted);
        let repeated = match same_name {
            Some(entry) if is_repeated(&entry.definition, &definition) => Some(entry.clone()),
            Some(_) => return Err(JobError::NameTaken(definition.name.to_string())),
            None => None,
        };
        Ok((definition, repeated))
    }

    fn restore_point(&self, text: &str, own: Option<&str>) -> Result<RestorePoint, JobError> {
        let job_of = |job: Option<String>| match (job, own) {
            // A job that was deleted has no name any more; its checkpoints lie under its uid.
            (Some(job), _) => Ok(self.uid(&job).unwrap_or(job)),
            (None, Some(own)) => Ok(own.to_owned()),
            (None, None) => Err(JobError::Invalid(format!(
                "cannot restore from {text:?}: a new job has no checkpoints of its own; write JOB/{text}, where JOB is the \
                 name or id of the job that took it"
            ))),
        };
        Ok(match RestoreText::parse(text).map_err(JobError::Invalid)? {
            RestoreText::Latest => RestorePoint::Latest,
            RestoreText::Nothing => RestorePoint::Nothing,
            RestoreText::Savepoint { job, name } => RestorePoint::Savepoint {
                job: job_of(job)?,
                name,
            },
            RestoreText::Checkpoint { job, id } => RestorePoint::Checkpoint { job: job_of(job)?, id },
        })
    }

    fn spawn(&self, definition: JobDefinition, origin: Origin) -> Entry {
        let (requests, inbox) = mpsc::channel(REQUESTS_QUEUED_MAX);
        let (view_in, view) = watch::channel(actor::first_view(&definition));
        let task = tokio::spawn(actor::run(
            definition.clone(),
            origin,
            self.context.clone(),
            inbox,
            view_in,
        ));
        let task = Arc::new(Mutex::new(Some(task)));
        Entry {
            definition: Arc::new(definition),
            requests,
            view,
            task,
            is_accepted: false,
        }
    }

    fn find(&self, id: &str) -> Result<Entry, JobError> {
        let jobs = self.lock();
        // A name may look like another job's uid; the uid is what was never given twice, so it goes first.
        let by_uid = jobs.by_uid.get(id);
        let by_name = || jobs.by_uid.values().find(|entry| entry.definition.name.as_str() == id);
        match by_uid.or_else(by_name) {
            Some(entry) if entry.is_accepted => Ok(entry.clone()),
            _ => Err(JobError::NotFound(id.to_owned())),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoppedJob {
    /// Says what the stop left, and where a start continues.
    pub(crate) fn text(&self) -> String {
        let how = match &self.left {
            Stopped::Checkpoint => "stopped after a final checkpoint".to_owned(),
            Stopped::Savepoint(name) => format!("stopped after savepoint {name}"),
            Stopped::AtOnce => "stopped at once".to_owned(),
            Stopped::Without(reason) => format!("stopped WITHOUT a new checkpoint or savepoint: {reason}"),
            Stopped::Already => "it was not running".to_owned(),
        };
        let then = match &self.checkpoint {
            Ok(Some(checkpoint)) => format!("its newest checkpoint is {checkpoint}, at which a start continues"),
            Ok(None) => "it has no checkpoint, so a start begins anew".to_owned(),
            Err(error) => format!("its newest checkpoint could not be looked up: {error}"),
        };
        format!("{how}; {then}")
    }
}

fn wish_for(from: RestorePoint) -> Result<RestoreWish, JobError> {
    RestoreWish::new(from).map_err(|error| JobError::Failed(format!("cannot make an id: {error}")))
}

/// Says whether a submission is the one that made a job: the same token and the same wishes.
fn is_repeated(job: &JobDefinition, submitted: &JobDefinition) -> bool {
    submitted.client_token.is_some()
        && job.client_token == submitted.client_token
        && job.program == submitted.program
        && job.parallelism == submitted.parallelism
        && job.checkpoint_interval == submitted.checkpoint_interval
}

async fn ask<T>(entry: &Entry, request: impl FnOnce(actor::Reply<T>) -> Request) -> Result<T, JobError> {
    let (reply, answer) = oneshot::channel();
    let gone = || JobError::NotFound(entry.definition.name.to_string());
    entry.requests.send(request(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}
