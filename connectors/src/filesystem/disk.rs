//! The task that writes a worker's files, in order, off the worker's thread.

use super::storage::{create, sync_folder};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Bytes on the way to the disk above which ticks are held back.
const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// Commands that are done in one go.
const COMMANDS_MAX: usize = 64;

/// What the task is asked for. Files are named by number.
enum Command {
    Create(u64, PathBuf),
    Append(u64, Vec<u8>),
    /// Makes a file durable and closes it.
    Close(u64),
    /// Answers when everything before is done.
    Flush(oneshot::Sender<Result<(), String>>),
}

/// The writer's end.
pub(super) struct Disk {
    commands: mpsc::UnboundedSender<Command>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    in_flight_bytes: AtomicUsize,
    failure: Mutex<Option<String>>,
}

impl Disk {
    /// Starts the task. It ends when the writer goes.
    pub(super) fn start(runtime: &tokio::runtime::Handle, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let state = Arc::<State>::default();
        let (commands, receiver) = mpsc::unbounded_channel();
        runtime.spawn(run(receiver, Arc::clone(&state), wake));
        Self { commands, state }
    }

    /// Creates a file, with its folder. It must not exist.
    pub(super) fn create(&self, file: u64, path: PathBuf) {
        self.send(Command::Create(file, path));
    }

    /// Appends to a file.
    pub(super) fn append(&self, file: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.state.in_flight_bytes.fetch_add(bytes.len(), Ordering::AcqRel);
            self.send(Command::Append(file, bytes));
        }
    }

    /// Makes a file durable and closes it.
    pub(super) fn close(&self, file: u64) {
        self.send(Command::Close(file));
    }

    /// Waits for everything before.
    pub(super) fn flush(&self) -> oneshot::Receiver<Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Flush(reply));
        answer
    }

    fn send(&self, command: Command) {
        // A task that is gone drops the command; its failure, or the lost reply, tells.
        let _ = self.commands.send(command);
    }

    /// Returns why a file could not be written, if one could not.
    pub(super) fn failure(&self) -> Option<String> {
        let failure = self
            .state
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        failure.or_else(|| {
            self.commands
                .is_closed()
                .then(|| "the task that writes files is gone".to_owned())
        })
    }

    /// Says whether ticks should be held back; the worker is woken when that changes.
    pub(super) fn is_full(&self) -> bool {
        self.state.in_flight_bytes.load(Ordering::Acquire) > IN_FLIGHT_BYTES_MAX
    }
}

async fn run(mut commands: mpsc::UnboundedReceiver<Command>, state: Arc<State>, wake: Arc<dyn Fn() + Send + Sync>) {
    let mut files: HashMap<u64, (PathBuf, File)> = HashMap::new();
    let mut batch = Vec::new();
    while commands.recv_many(&mut batch, COMMANDS_MAX).await > 0 {
        let (todo, state) = (std::mem::take(&mut batch), Arc::clone(&state));
        let mut open = std::mem::take(&mut files);
        let done = tokio::task::spawn_blocking(move || {
            for command in todo {
                perform(command, &mut open, &state);
            }
            open
        });
        match done.await {
            Ok(open) => files = open,
            // The runtime is shutting down, or the disk code panicked: the writer sees the closed channel.
            Err(_) => return,
        }
        wake();
    }
}

/// Does one command; after a failure nothing more is written.
fn perform(command: Command, files: &mut HashMap<u64, (PathBuf, File)>, state: &State) {
    let failure = state.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let outcome = match command {
        Command::Flush(reply) => {
            let _ = reply.send(failure.map_or(Ok(()), Err));
            return;
        }
        Command::Append(file, bytes) => {
            state.in_flight_bytes.fetch_sub(bytes.len(), Ordering::AcqRel);
            match files.get_mut(&file) {
                Some((path, file)) if failure.is_none() => {
                    file.write_all(&bytes).map_err(|error| (path.clone(), error))
                }
                _ => return,
            }
        }
        _ if failure.is_some() => return,
        Command::Create(file, path) => create(&path)
            .map(|created| files.insert(file, (path.clone(), created)).map_or((), drop))
            .map_err(|error| (path, error)),
        Command::Close(file) => match files.remove(&file) {
            Some((path, file)) => file
                .sync_all()
                .and_then(|()| sync_folder(&path))
                .map_err(|error| (path, error)),
            None => return,
        },
    };
    if let Err((path, error)) = outcome {
        let message = format!("{} cannot be written: {error}", path.display());
        state
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(message);
    }
}
