//! A job's process, as the server sees it: started, spoken with, and gone.
//!
//! ```text
//!   actor ── Control ──▶ writer task ──▶ socket ──▶ process
//!     ▲                      ▲ replies
//!     │ ChildEvent       store session ◀── reader task ◀── socket ◀── process
//!     └───────────── reader task, and the task that waits for the process's end
//! ```
//! Whatever happens, the last event is [`ChildEvent::Exited`], after everything that the process had said.

use super::log::{self, StderrTail};
use super::protocol::frame::{self, FrameError};
use super::protocol::message::{
    Ended, HELLO, Hello, PlannedJob, Rejection, RequestId, StartJob, StopRequest, TO_SERVER, TO_WORKER, ToServer,
    ToWorker, WorkerCall,
};
use super::spawner::Spawner;
use super::store_service::{StoreService, StoreSession};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_engine::status::JobStatus;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};

/// Frames to a process that wait for its socket.
const FRAMES_QUEUED_MAX: usize = 64;
/// How long the output of a process that is gone is still read, in case somebody else holds its other end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new process may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// How to start a job's process.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// The file for what it prints.
    pub(crate) output: PathBuf,
}

/// What a process tells.
#[derive(Debug)]
pub(crate) enum ChildEvent {
    /// Its job can run.
    Planned(PlannedJob),
    /// Its job cannot run.
    Rejected(Rejection),
    /// What its job does.
    Status(Box<JobStatus>),
    /// Its job could not be stopped as asked, for this reason, and goes on.
    StopRefused(String),
    /// How its job ended.
    Ended(Ended),
    /// It said something that could not be understood, and was killed.
    Garbled(String),
    /// It is gone.
    Exited(ExitStatus),
}

type Calls = Arc<Mutex<HashMap<RequestId, oneshot::Sender<Result<u64, String>>>>>;

/// A job's process. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    pid: u32,
    control: mpsc::UnboundedSender<Vec<u8>>,
    events: mpsc::Receiver<ChildEvent>,
    kill: watch::Sender<bool>,
    calls: Calls,
    next_call: u64,
    stderr: StderrTail,
}

impl ChildProcess {
    /// Starts a process and has it plan a job.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) async fn start(
        launch: &Launch,
        job: &StartJob,
        spawner: &Spawner,
        store: &StoreService,
    ) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the server's terminal is for the server, which stops its jobs in order.
            .process_group(0);
        let mut child = spawner.spawn(command).await?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the process was gone at once"))?;
        let start = frame::encode(TO_WORKER, &ToWorker::Start(Box::new(job.clone()))).map_err(io::Error::other)?;

        // Control frames are few and small, and their order matters; store frames are many and wait for room.
        let (control, mut control_queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let (frames, mut store_queue) = mpsc::channel::<Vec<u8>>(FRAMES_QUEUED_MAX);
        let (events_in, events) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (kill, mut killed) = watch::channel(false);
        let calls = Calls::default();
        let stderr = StderrTail::default();
        let (read_half, mut write_half) = socket.into_split();

        let writer = tokio::spawn(async move {
            loop {
                let bytes = tokio::select! {
                    biased;
                    Some(bytes) = control_queue.recv() => bytes,
                    Some(bytes) = store_queue.recv() => bytes,
                    else => break,
                };
                if frame::write(&mut write_half, &bytes).await.is_err() {
                    break; // the process is gone, as its exit will tell
                }
            }
        });
        let reader = Reader {
            events: events_in.clone(),
            calls: Arc::clone(&calls),
        };
        let (store, uid) = (store.clone(), job.uid.clone());
        let reader_kill = kill.clone();
        let first = control.clone();
        let reader = tokio::spawn(async move {
            let begin = move || {
                let _ = first.send(start);
                // News of the store must not come before the job: control frames go first.
                store.session(uid, frames)
            };
            if let Err(message) = reader.run(read_half, begin).await {
                let _ = reader.events.send(ChildEvent::Garbled(message)).await;
                reader_kill.send_replace(true);
            }
        });
        let out = child
            .stdout
            .take()
            .map(|stream| tokio::spawn(log::store_stdout(stream, launch.output.clone())));
        let err = child
            .stderr
            .take()
            .map(|stream| tokio::spawn(log::pass_stderr(stream, stderr.clone())));

        tokio::spawn(async move {
            let by_itself = tokio::select! {
                status = child.wait() => Some(status),
                // Also when the sender is gone: then nobody looks after this process any more.
                () = async { let _ = killed.wait_for(|&killed| killed).await; } => None,
            };
            let status = match by_itself {
                Some(status) => status,
                None => {
                    let _ = child.start_kill();
                    child.wait().await
                }
            };
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, async {
                let _ = reader.await;
                for task in [out, err].into_iter().flatten() {
                    let _ = task.await;
                }
            })
            .await;
            writer.abort();
            let status = status.unwrap_or_else(|_| std::os::unix::process::ExitStatusExt::from_raw(0x7f00));
            let _ = events_in.send(ChildEvent::Exited(status)).await;
        });
        Ok(Self {
            pid,
            control,
            events,
            kill,
            calls,
            next_call: 0,
            stderr,
        })
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for what the process tells; `None` after [`ChildEvent::Exited`]. Safe to cancel.
    pub(crate) async fn event(&mut self) -> Option<ChildEvent> {
        self.events.recv().await
    }

    /// Has the process run what it planned.
    pub(crate) fn run(&self) {
        self.send(&ToWorker::Run);
    }

    /// Asks the process to stop its job.
    pub(crate) fn stop(&self, how: StopRequest) {
        self.send(&ToWorker::Stop(how));
    }

    /// Asks the process for a checkpoint or savepoint; the receiver gets its number, or an error when the process is gone
    /// first.
    pub(crate) fn call(&mut self, call: WorkerCall) -> oneshot::Receiver<Result<u64, String>> {
        let id = RequestId(self.next_call);
        self.next_call += 1;
        let (reply, answer) = oneshot::channel();
        lock(&self.calls).insert(id, reply);
        self.send(&ToWorker::Call(id, call));
        answer
    }

    /// Kills the process; [`ChildEvent::Exited`] follows.
    pub(crate) fn kill(&self) {
        self.kill.send_replace(true);
    }

    /// Returns the last lines of the process's standard error.
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.lines()
    }

    fn send(&self, message: &ToWorker) {
        match frame::encode(TO_WORKER, message) {
            Ok(bytes) => {
                let _ = self.control.send(bytes); // a process that is gone is told of by its exit
            }
            Err(error) => tracing::error!(%error, "cannot encode a message to a job"),
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Reader {
    events: mpsc::Sender<ChildEvent>,
    calls: Calls,
}

impl Reader {
    /// Reads frames until the socket closes, which is no error. When the process has said who it is, `begin` gives it its job.
    async fn run(&self, mut socket: OwnedReadHalf, begin: impl FnOnce() -> StoreSession) -> Result<(), String> {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, frame::read::<Hello>(&mut socket, HELLO)).await;
        match hello {
            Ok(Ok(hello)) => hello.check()?,
            Ok(Err(FrameError::Closed)) => return Ok(()),
            Ok(Err(error)) => return Err(format!("its program is not a tidemill job: {error}")),
            Err(_) => {
                return Err("its program did not say that it is a tidemill job; call tidemill::run_job in main".into());
            }
        }
        let session = begin();
        loop {
            let message = match frame::read::<ToServer>(&mut socket, TO_SERVER).await {
                Ok(message) => message,
                // A process that dies within a frame says the same as one that dies between two.
                Err(FrameError::Closed | FrameError::Io(_)) => break,
                Err(error) => return Err(error.to_string()),
            };
            let event = match message {
                ToServer::Planned(plan) => ChildEvent::Planned(plan),
                ToServer::Rejected(rejection) => ChildEvent::Rejected(rejection),
                ToServer::Status(status) => ChildEvent::Status(Box::new(status.decode().map_err(|e| e.to_string())?)),
                ToServer::StopRefused(reason) => ChildEvent::StopRefused(reason),
                ToServer::Ended(ended) => ChildEvent::Ended(ended),
                ToServer::CallReply(id, result) => {
                    if let Some(reply) = lock(&self.calls).remove(&id) {
                        let _ = reply.send(result);
                    }
                    continue;
                }
                ToServer::Store(id, call) => {
                    session.handle(id, call).await;
                    continue;
                }
            };
            if self.events.send(event).await.is_err() {
                break;
            }
        }
        lock(&self.calls).clear();
        Ok(())
    }
}

fn lock(calls: &Calls) -> std::sync::MutexGuard<'_, HashMap<RequestId, oneshot::Sender<Result<u64, String>>>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says in words how a process ended.
pub(crate) fn exit_text(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("its process ended with exit code {code}"),
        (None, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("unknown", nix::sys::signal::Signal::as_str);
            format!("its process was killed by signal {signal} ({name})")
        }
        (None, None) => "its process ended in an unknown way".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn exits_are_told_in_words() {
        assert_eq!(
            exit_text(ExitStatus::from_raw(9)),
            "its process was killed by signal 9 (SIGKILL)"
        );
        assert_eq!(
            exit_text(ExitStatus::from_raw(101 << 8)),
            "its process ended with exit code 101"
        );
    }
}
