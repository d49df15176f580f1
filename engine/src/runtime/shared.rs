//! What the job's handle, its workers and its coordinator share.

use super::clock::{Event, Wish};
use crate::error::Error;
use crate::graph::{JobGraph, WatermarkExpr};
use crate::metrics::{OperatorCounts, OperatorMetrics};
use crate::status::{CheckpointStatus, JobPhase, JobStatus, OperatorStatus};
use crate::time::{TimeSource, Watermark};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use tidemill_checkpoints::SnapshotKind;
use tokio::sync::oneshot;

/// Checkpoints kept in the status.
const CHECKPOINTS_SHOWN: usize = 10;

/// A wish of the job's owner.
pub(crate) enum Request {
    /// Take a checkpoint; answered once it is published.
    Checkpoint {
        kind: SnapshotKind,
        answer: oneshot::Sender<Result<u64, Error>>,
    },
    /// Stop after a checkpoint of this kind; answered once it is published, or refused.
    StopAfter {
        kind: SnapshotKind,
        answer: oneshot::Sender<Result<u64, Error>>,
    },
    /// Stop at once.
    StopNow,
}

/// Returns what a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}

/// See the module's documentation.
pub(crate) struct JobShared {
    failed: AtomicBool,
    stopped: AtomicBool,
    error: Mutex<Option<Error>>,
    threads: Mutex<Vec<Thread>>,
    /// Events for the clock, from other threads.
    inbox: Mutex<Vec<Event>>,
    /// Who waits for checkpoints that were asked for, by the number of the request.
    answers: Mutex<BTreeMap<u64, oneshot::Sender<Result<u64, Error>>>>,
    requests: AtomicU64,
    status: Mutex<JobStatus>,
    operators: Vec<OperatorInfo>,
    tick: AtomicU64,
    ticks: AtomicU64,
    watermarks: Mutex<Vec<Watermark>>,
    pub(super) time: Arc<dyn TimeSource>,
}

struct OperatorInfo {
    uid: String,
    name: String,
    watermark: WatermarkExpr,
    metrics: Vec<Arc<OperatorMetrics>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JobShared {
    pub(crate) fn new(graph: &JobGraph, parallelism: usize, time: Arc<dyn TimeSource>) -> Self {
        let operators = graph
            .nodes()
            .iter()
            .map(|node| OperatorInfo {
                uid: node.uid.clone(),
                name: node.name(),
                watermark: node.watermark.clone(),
                metrics: (0..parallelism).map(|_| Arc::default()).collect(),
            })
            .collect();
        Self {
            failed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            error: Mutex::default(),
            threads: Mutex::default(),
            inbox: Mutex::default(),
            answers: Mutex::default(),
            requests: AtomicU64::new(0),
            status: Mutex::new(JobStatus {
                parallelism,
                ..JobStatus::default()
            }),
            operators,
            tick: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            watermarks: Mutex::default(),
            time,
        }
    }

    /// Ends the job with an error; the first one counts.
    pub(crate) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Ends the job at once, without an error.
    pub(crate) fn stop_now(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake_all();
    }

    /// True once the job has failed or is to end at once: operators do nothing any more.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn must_end(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn was_stopped_now(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn error(&self) -> Option<Error> {
        lock(&self.error).clone()
    }

    pub(super) fn metrics(&self, node: usize, worker: usize) -> Arc<OperatorMetrics> {
        Arc::clone(&self.operators[node].metrics[worker])
    }

    /// Makes a worker's thread known, to be woken; worker 0 is the first.
    pub(super) fn register_thread(&self, worker: usize, thread: Thread) {
        let mut threads = lock(&self.threads);
        threads.push(thread);
        if worker == 0 {
            let last = threads.len() - 1;
            threads.swap(0, last);
        }
    }

    /// Sends an event to the clock.
    pub(super) fn send(&self, event: Event) {
        lock(&self.inbox).push(event);
        self.wake_clock();
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.inbox))
    }

    /// Wakes worker 0, which turns the clock. Before its thread is known there is nothing to wake.
    pub(super) fn wake_clock(&self) {
        self.wake_all();
    }

    fn wake_all(&self) {
        lock(&self.threads).iter().for_each(Thread::unpark);
    }

    pub(super) fn tick_closed(&self, tick: u64, watermarks: &[Watermark]) {
        self.tick.store(tick, Ordering::Relaxed);
        self.ticks.fetch_add(1, Ordering::Relaxed);
        let mut shown = lock(&self.watermarks);
        shown.clear();
        shown.extend_from_slice(watermarks);
    }

    pub(crate) fn update_status(&self, update: impl FnOnce(&mut JobStatus)) {
        update(&mut lock(&self.status));
    }

    pub(super) fn checkpoint_done(&self, checkpoint: CheckpointStatus) {
        self.update_status(|status| {
            status.checkpoint_error = None;
            status.checkpoints.push(checkpoint);
            let surplus = status.checkpoints.len().saturating_sub(CHECKPOINTS_SHOWN);
            status.checkpoints.drain(..surplus);
        });
    }

    pub(crate) fn status(&self) -> JobStatus {
        let mut status = lock(&self.status).clone();
        status.tick = self.tick.load(Ordering::Relaxed);
        status.ticks = self.ticks.load(Ordering::Relaxed);
        let watermarks = lock(&self.watermarks).clone();
        let wall_ms = self.time.wall_ms();
        for operator in &self.operators {
            let mut counts = OperatorCounts::default();
            for metrics in &operator.metrics {
                counts += &metrics.counts();
            }
            let watermark = if watermarks.is_empty() {
                Watermark::NONE
            } else {
                operator.watermark.evaluate(&watermarks)
            };
            let known = watermark != Watermark::NONE && watermark != Watermark::END;
            status.operators.push(OperatorStatus {
                uid: operator.uid.clone(),
                name: operator.name.clone(),
                counts,
                watermark_ms: known.then_some(watermark.0),
                watermark_lag_ms: known.then(|| wall_ms.saturating_sub(watermark.0)),
            });
        }
        status.error = self.error().map(|error| error.to_string());
        if status.error.is_some() {
            status.phase = JobPhase::Failed;
        }
        status
    }

    /// Answers a request, if somebody waits for it.
    pub(super) fn answer(&self, request: Option<u64>, result: &Result<u64, Error>) {
        let answer = request.and_then(|request| lock(&self.answers).remove(&request));
        if let Some(answer) = answer {
            // Whoever asked may have gone away.
            let _ = answer.send(result.clone());
        }
    }

    /// Tells all who still wait that the job has ended.
    pub(crate) fn answer_all(&self, error: &Error) {
        for (_, answer) in std::mem::take(&mut *lock(&self.answers)) {
            let _ = answer.send(Err(error.clone()));
        }
    }

    pub(crate) fn ask(&self, request: Request) {
        let enlist = |answer| {
            let number = self.requests.fetch_add(1, Ordering::Relaxed);
            lock(&self.answers).insert(number, answer);
            Some(number)
        };
        match request {
            Request::Checkpoint { kind, answer } => {
                let request = enlist(answer);
                self.send(Event::CheckpointWanted(Wish {
                    kind,
                    request,
                    ends_job: false,
                }));
            }
            Request::StopAfter { kind, answer } => {
                let request = enlist(answer);
                self.send(Event::StopWanted(Wish {
                    kind,
                    request,
                    ends_job: true,
                }));
            }
            Request::StopNow => self.stop_now(),
        }
    }
}
