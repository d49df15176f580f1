//! A job's process under a server: plans one job, runs it, and does what the server says.
//!
//! The socket to the server is standard input. When it closes, this process ends, whatever it is doing; when the server
//! dies, the kernel kills it as well. So a job never outlives its server.

use crate::environment::JobEnvironment;
use crate::jobs::protocol::frame;
use crate::jobs::protocol::message::{
    Ended, HELLO, Hello, PlannedJob, StartJob, StopRequest, TO_SERVER, TO_WORKER, ToServer, ToWorker, WireStatus,
    WorkerCall,
};
use crate::jobs::protocol::store::StoreEvent;
use crate::jobs::remote_store::{Outbox, RemoteStore};
use crate::logging::{self, LogFormat};
use crate::planning::{self, Planner};
use crate::process::{EXIT_FAILED, EXIT_OK, EXIT_ORPHANED, EXIT_REFUSED, die_with, fail};
use crate::{running, settings};
use nix::unistd::Pid;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::job::{self, JobEnd, JobHandle};
use tidemill_shards::StoreError;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// The first argument of a worker.
pub(crate) const COMMAND: &str = "worker";
/// The time between two looks at the job's status; a change of its phase is told at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Looks after which the status is told although its phase has not changed.
const LOOKS_PER_MESSAGE: u32 = 5;

/// The command line that a server gives a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerArguments {
    /// The server's process.
    pub(crate) server_pid: i32,
    /// The form of log lines.
    pub(crate) log_format: LogFormat,
    /// The filter of log lines.
    pub(crate) log_level: Option<String>,
    /// What is for the job's own code.
    pub(crate) job_arguments: Vec<String>,
}

impl WorkerArguments {
    /// Writes the command line, [`COMMAND`] included.
    #[cfg(feature = "server")]
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![COMMAND.to_owned(), "--server-pid".into(), self.server_pid.to_string()];
        arguments.extend(["--log-format".to_owned(), self.log_format.name().to_owned()]);
        if let Some(level) = &self.log_level {
            arguments.extend(["--log-level".to_owned(), level.clone()]);
        }
        arguments.push("--".into());
        arguments.extend(self.job_arguments.iter().cloned());
        arguments
    }

    /// Reads the command line behind [`COMMAND`].
    ///
    /// # Errors
    /// When no server wrote it.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let wrong = || "a worker is started by a server only; run the job alone with --data-dir".to_owned();
        let mut parsed = Self {
            server_pid: 0,
            log_format: LogFormat::Text,
            log_level: None,
            job_arguments: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            if option == "--" {
                parsed.job_arguments = rest.cloned().collect();
                break;
            }
            let value = rest.next().ok_or_else(wrong)?;
            match option.as_str() {
                "--server-pid" => parsed.server_pid = value.parse().map_err(|_| wrong())?,
                "--log-format" => parsed.log_format = value.parse()?,
                "--log-level" => parsed.log_level = Some(value.clone()),
                _ => return Err(wrong()),
            }
        }
        if parsed.server_pid > 0 {
            Ok(parsed)
        } else {
            Err(wrong())
        }
    }
}

/// Runs a worker to its end.
pub(crate) fn run(arguments: WorkerArguments, planner: Planner) -> ExitCode {
    if let Err(message) = die_with(Pid::from_raw(arguments.server_pid)) {
        return fail(EXIT_ORPHANED, message);
    }
    if let Err(message) = logging::start(arguments.log_format, arguments.log_level.as_deref(), "info") {
        return fail(EXIT_REFUSED, message);
    }
    let socket = match take_socket() {
        Ok(socket) => socket,
        Err(error) => return fail(EXIT_REFUSED, format!("a worker is started by a server only: {error}")),
    };
    let runtime = match running::io_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    let code = match runtime.block_on(serve(socket, planner, arguments.job_arguments)) {
        Ok(code) => ExitCode::from(code),
        Err(message) => fail(EXIT_FAILED, message),
    };
    // What still runs on the runtime belongs to a job that has ended.
    runtime.shutdown_background();
    code
}

/// Takes the socket from standard input and puts nothing in its place, so that the job's own code cannot read from it.
fn take_socket() -> std::io::Result<std::os::unix::net::UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr()?; // not a socket: somebody typed this command
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?).map_err(std::io::Error::from)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn serve(socket: std::os::unix::net::UnixStream, planner: Planner, arguments: Vec<String>) -> Result<u8, String> {
    let (mut from_server, to_server) = UnixStream::from_std(socket)
        .map_err(|error| error.to_string())?
        .into_split();
    let hello = frame::encode(HELLO, &Hello::of_this_program()).map_err(|error| error.to_string())?;
    let writer = Writer::start(to_server);
    writer.send_bytes(hello);
    let start = match frame::read::<ToWorker>(&mut from_server, TO_WORKER).await {
        Ok(ToWorker::Start(start)) => *start,
        Ok(_) => return Err("the server began with something else than a job".into()),
        Err(error) => return Err(error.to_string()),
    };
    let StartJob { name, uid, .. } = &start;
    tracing::debug!(job = %name, %uid, "planning");

    let outbox_writer = writer.clone();
    let outbox: Outbox = Arc::new(move |message| outbox_writer.send(message));
    let store = RemoteStore::new(outbox, Path::new(&start.store_directory));
    let store = Arc::new(store.map_err(|error| error.to_string())?);
    let (control_in, mut control) = mpsc::unbounded_channel();
    tokio::spawn(read_server(from_server, Arc::clone(&store), control_in));

    let connectors = running::connector_environment(Arc::clone(&store) as _, Path::new(&start.data_directory));
    let environment = JobEnvironment::new(connectors, store, arguments);
    let planned = planning::plan(planner, start.sql.clone(), environment).await;
    let planned = planned.and_then(|planned| Ok((settings::effective(&start, &planned.said)?, planned)));
    let checked = match &planned {
        Ok((_, planned)) if start.is_submission => job::check_tables(&planned.graph).await,
        _ => Ok(()),
    };
    let checked = checked.map_err(|error| planning::reject(error.to_string()));
    let (effective, planned) = match checked.and(planned) {
        Ok(planned) => planned,
        Err(rejection) => {
            let _ = writer.send(&ToServer::Rejected(rejection));
            writer.flush().await;
            return Ok(EXIT_REFUSED);
        }
    };
    let _ = writer.send(&ToServer::Planned(PlannedJob {
        explain: planned.explain.clone(),
        parallelism: effective.parallelism,
        checkpoint_interval_ms: effective.checkpoint_interval_ms,
    }));
    let mut stop = None;
    loop {
        match control.recv().await {
            Some(ToWorker::Run) => break,
            Some(ToWorker::Stop(how)) => stop = Some(how),
            Some(_) => {}
            None => return Ok(EXIT_ORPHANED),
        }
    }
    let started = settings::job_config(&start, &effective, &planned).map_err(|error| failed(&error));
    let started = started.and_then(|config| {
        let runtime = tokio::runtime::Handle::current();
        job::start(planned.graph, config, &runtime).map_err(|error| failed(&error))
    });
    let ended = match started {
        Ok(handle) => {
            let handle = Arc::new(handle);
            if let Some(how) = stop {
                ask_to_stop(&handle, how, &writer);
            }
            obey(handle, control, &writer).await
        }
        Err(ended) => ended,
    };
    let code = if matches!(ended, Ended::Failed { .. }) {
        EXIT_FAILED
    } else {
        EXIT_OK
    };
    let _ = writer.send(&ToServer::Ended(ended));
    writer.flush().await;
    Ok(code)
}

/// Does what the server says until the job has ended.
async fn obey(handle: Arc<JobHandle>, mut control: mpsc::UnboundedReceiver<ToWorker>, writer: &Writer) -> Ended {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let (mut silent_looks, mut told) = (0, None);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waiting = Arc::clone(&handle);
    let mut end = tokio::spawn(async move { waiting.wait().await });
    loop {
        tokio::select! {
            ended = &mut end => {
                tell_status(&handle, writer);
                return match ended {
                    Ok(Ok(JobEnd::Finished)) => Ended::Finished,
                    Ok(Ok(JobEnd::Stopped)) => Ended::Stopped,
                    Ok(Err(error)) => failed(&error),
                    Err(error) => Ended::Failed { message: format!("the job's runtime failed: {error}"), retryable: true },
                };
            }
            _ = looks.tick() => {
                let phase = handle.status().phase;
                silent_looks += 1;
                if silent_looks >= LOOKS_PER_MESSAGE || told != Some(phase) {
                    (silent_looks, told) = (0, Some(phase));
                    tell_status(&handle, writer);
                }
            }
            Some(message) = control.recv() => match message {
                ToWorker::Stop(how) => ask_to_stop(&handle, how, writer),
                ToWorker::Call(id, call) => {
                    let (handle, writer) = (Arc::clone(&handle), writer.clone());
                    tokio::spawn(async move {
                        let result = match call {
                            WorkerCall::Checkpoint => handle.checkpoint().await,
                            WorkerCall::Savepoint(name) => handle.savepoint(&name).await,
                        };
                        let _ = writer.send(&ToServer::CallReply(id, result.map_err(|error| error.to_string())));
                    });
                }
                other => tracing::warn!(message = ?other, "the server said something unexpected"),
            },
        }
    }
}

fn ask_to_stop(handle: &Arc<JobHandle>, how: StopRequest, writer: &Writer) {
    let (handle, writer) = (Arc::clone(handle), writer.clone());
    tokio::spawn(async move {
        if let Err(error) = handle.stop(settings::stop_mode(how)).await {
            let _ = writer.send(&ToServer::StopRefused(error.to_string()));
        }
    });
}

fn tell_status(handle: &JobHandle, writer: &Writer) {
    match WireStatus::encode(&handle.status()) {
        Ok(status) => {
            let _ = writer.send(&ToServer::Status(status));
        }
        Err(error) => tracing::error!(%error, "cannot encode the job's status"),
    }
}

fn failed(error: &tidemill_engine::Error) -> Ended {
    Ended::Failed {
        message: error.to_string(),
        retryable: error.is_retryable(),
    }
}

/// Reads what the server says; ends the process when the server is gone.
async fn read_server(mut socket: OwnedReadHalf, store: Arc<RemoteStore>, control: mpsc::UnboundedSender<ToWorker>) {
    loop {
        match frame::read::<ToWorker>(&mut socket, TO_WORKER).await {
            Ok(ToWorker::StoreReply(id, reply)) => store.reply(id, *reply),
            Ok(ToWorker::StoreEvent(StoreEvent::Durable(position))) => store.durable(position),
            Ok(message) => {
                let _ = control.send(message);
            }
            Err(error) => {
                tracing::error!(%error, "the server is gone, so this job ends");
                std::process::exit(i32::from(EXIT_ORPHANED));
            }
        }
    }
}

enum Outgoing {
    Frame(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// Writes frames in the order in which they were sent. The queue has no limit of its own: what may wait in it is limited by
/// the sinks, which stage a limited number of bytes at a time, and by the readers, one call each.
#[derive(Clone)]
struct Writer {
    queue: mpsc::UnboundedSender<Outgoing>,
}

impl Writer {
    fn start(mut socket: OwnedWriteHalf) -> Self {
        let (queue, mut outgoing) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(next) = outgoing.recv().await {
                match next {
                    // A socket that fails is closed, and the reader ends the process.
                    Outgoing::Frame(bytes) => drop(frame::write(&mut socket, &bytes).await),
                    Outgoing::Flush(done) => drop(done.send(())),
                }
            }
        });
        Self { queue }
    }

    fn send(&self, message: &ToServer) -> Result<(), StoreError> {
        let bytes = frame::encode(TO_SERVER, message).map_err(|error| StoreError::Limit(error.to_string()))?;
        self.send_bytes(bytes);
        Ok(())
    }

    fn send_bytes(&self, bytes: Vec<u8>) {
        let _ = self.queue.send(Outgoing::Frame(bytes));
    }

    /// Waits until everything sent before is written.
    async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Outgoing::Flush(done)).is_ok() {
            let _ = written.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "server")]
    fn the_command_line_comes_back_as_it_was_written() {
        let arguments = WorkerArguments {
            server_pid: 42,
            log_format: LogFormat::Json,
            log_level: Some("debug".into()),
            job_arguments: vec!["--a".into(), "--".into(), String::new()],
        };
        let written = arguments.to_arguments();
        assert_eq!(written[0], COMMAND);
        assert_eq!(WorkerArguments::parse(&written[1..]).unwrap(), arguments);
    }

    #[test]
    fn what_a_user_types_is_refused() {
        for typed in [
            vec![],
            vec!["--server-pid"],
            vec!["--server-pid", "x"],
            vec!["--server-pid", "0"],
            vec!["-v", "1"],
        ] {
            let typed: Vec<String> = typed.into_iter().map(str::to_owned).collect();
            assert!(
                WorkerArguments::parse(&typed).unwrap_err().contains("by a server only"),
                "{typed:?}"
            );
        }
    }
}
