//! What the writer must not wait for: preparing the next segment (64 MiB of zeros and a sync) and writing the index of
//! a sealed one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::index_file::IndexFile;
use super::names;
use super::segment::Segment;
use crate::env::Environment;
use crate::error::StoreError;
use crate::ids::{SegmentNumber, Uuid};
use crate::view::View;

/// Where housekeeping is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Housekeeping {
    /// By a thread of its own.
    #[default]
    Background,
    /// By the writer, when it needs the result: slower, and the same order of disk operations every time.
    Inline,
}

enum Task {
    Prepare { number: SegmentNumber, capacity: u64 },
    Seal(IndexFile),
    Unlink(Vec<String>),
}

struct Worker {
    tasks: Sender<Task>,
    prepared: Receiver<Result<Segment, StoreError>>,
    thread: JoinHandle<()>,
}

/// The writer's hand on its housekeeper.
pub(crate) struct Housekeeper {
    environment: Environment,
    store: Uuid,
    view: Arc<View>,
    worker: Option<Worker>,
    /// The segment that is being prepared.
    requested: Option<SegmentNumber>,
}

impl Housekeeper {
    pub(crate) fn start(
        mode: Housekeeping,
        environment: &Environment,
        store: Uuid,
        view: &Arc<View>,
    ) -> Result<Self, StoreError> {
        let worker = match mode {
            Housekeeping::Inline => None,
            Housekeeping::Background => {
                // At most one segment is asked for at a time, and one is sealed for each.
                let (tasks, queue) = unbounded();
                let (done, prepared) = bounded(1);
                let (own, view) = (environment.clone(), Arc::clone(view));
                let thread = std::thread::Builder::new()
                    .name("shards-housekeeping".to_owned())
                    .spawn(move || {
                        let mut failing = false;
                        for task in queue {
                            match task {
                                Task::Prepare { number, capacity } => {
                                    let prepared = prepare(&own, store, number, capacity);
                                    // The first failure comes while there is room in the segment in use: a warning.
                                    if let Err(error) = &prepared
                                        && !failing
                                    {
                                        tracing::warn!(%error, "could not prepare the next log segment ahead of its use");
                                    }
                                    failing = prepared.is_err();
                                    if done.send(prepared).is_err() {
                                        return;
                                    }
                                }
                                Task::Seal(index) => seal(&own, &index),
                                Task::Unlink(names) => unlink(&own, names, &view),
                            }
                        }
                    })
                    .map_err(|error| StoreError::io("start", "the log's housekeeping thread", &error))?;
                Some(Worker {
                    tasks,
                    prepared,
                    thread,
                })
            }
        };
        Ok(Self {
            environment: environment.clone(),
            store,
            view: Arc::clone(view),
            worker,
            requested: None,
        })
    }

    /// Asks for a segment ahead of its use.
    pub(crate) fn request(&mut self, number: SegmentNumber, capacity: u64) {
        if let Some(worker) = &self.worker
            && self.requested.is_none()
            && worker.tasks.send(Task::Prepare { number, capacity }).is_ok()
        {
            self.requested = Some(number);
        }
    }

    /// Waits for a segment. After an error it can be asked for again.
    pub(crate) fn take(&mut self, number: SegmentNumber, capacity: u64) -> Result<Segment, StoreError> {
        if self.requested == Some(number) {
            // That was tried ahead of its use, perhaps long ago: after a failure there may be room by now.
            if let Ok(segment) = self.receive() {
                return Ok(segment);
            }
        }
        self.request(number, capacity);
        if self.requested == Some(number) {
            return self.receive();
        }
        prepare(&self.environment, self.store, number, capacity)
    }

    /// Waits for the segment that was asked for.
    fn receive(&mut self) -> Result<Segment, StoreError> {
        self.requested = None;
        let prepared = self.worker.as_ref().and_then(|worker| worker.prepared.recv().ok());
        prepared.unwrap_or(Err(StoreError::Closed))
    }

    /// Whether a segment is being prepared.
    pub(crate) fn is_preparing(&self) -> bool {
        self.requested.is_some()
    }

    /// Has files removed that the log says are gone, behind the indexes that are still to be written.
    pub(crate) fn unlink(&self, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        match &self.worker {
            Some(worker) => {
                // What is left over is removed at the next start.
                let _ = worker.tasks.send(Task::Unlink(names));
            }
            None => unlink(&self.environment, names, &self.view),
        }
    }

    /// Has the index of a sealed segment written.
    pub(crate) fn seal(&self, index: IndexFile) {
        match &self.worker {
            Some(worker) => {
                // A lost thread means a lost index, which is rebuilt at the next start.
                let _ = worker.tasks.send(Task::Seal(index));
            }
            None => seal(&self.environment, &index),
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        if let Some(Worker {
            tasks,
            prepared,
            thread,
        }) = self.worker.take()
        {
            drop(tasks);
            drop(prepared);
            if thread.join().is_err() {
                tracing::error!("the log's housekeeping thread panicked");
            }
        }
    }
}

fn prepare(
    environment: &Environment,
    store: Uuid,
    number: SegmentNumber,
    capacity: u64,
) -> Result<Segment, StoreError> {
    Segment::prepare(environment, store, number, capacity).inspect_err(|_| {
        // Gives back the space that the unfinished file took.
        let _ = environment.disk.create(&names::unfinished(&names::segment(number)));
    })
}

fn unlink(environment: &Environment, names: Vec<String>, view: &View) {
    let disk = &*environment.disk;
    let failed = names
        .into_iter()
        .filter_map(|name| match disk.unlink(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Some((name, error)),
            _ => None,
        })
        .chain(disk.sync_dir().err().map(|error| (disk.describe(), error)));
    for (name, error) in failed {
        tracing::warn!(%name, %error, "could not remove a log segment that has expired; the next start tries again");
        view.usage.failures.fetch_add(1, Ordering::Relaxed);
    }
}

fn seal(environment: &Environment, index: &IndexFile) {
    if let Err(error) = index.write(&*environment.disk) {
        tracing::warn!(segment = %names::segment(index.segment), %error, "could not write the index of a segment");
    }
}
