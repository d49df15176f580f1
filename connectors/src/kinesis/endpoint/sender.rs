//! The task that sends a writer's records to an endpoint: several requests at once, each with many records.
//!
//! ```text
//!  rows ──▶ queue ── full, old enough, or flushed ──▶ up to n requests ── refused ones go back to the front ──▶ queue
//! ```
//! The records of a partition key are never in two requests at once, so those of a key keep their order, with one
//! exception that the API does not let us close: where a request is taken in part, the records that were refused come
//! behind those that were taken. After a refusal there is a pause, and the next requests begin with what was refused.

use super::super::error::StreamError;
use super::super::options::sink::{BatchingOptions, Refused};
use super::client::Backoff;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_shards::PutEntry;
use tidemill_shards::limits::PUT_BYTES_MAX;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes that are not yet acknowledged, above which ticks are held back.
const UNACKNOWLEDGED_BYTES_MAX: usize = 16 << 20;

/// Makes one request.
#[async_trait::async_trait]
pub(in crate::kinesis) trait PutRecords: Send + Sync + 'static {
    /// Looks once whether the stream is there; returns its ARN.
    async fn find(&self) -> Result<String, StreamError>;

    /// Looks now and then whether the stream is still the one that it was.
    ///
    /// # Errors
    /// When it is not, or is not there. What may pass by itself is not told.
    async fn look_again(&self) -> Result<(), StreamError>;

    /// Puts records within the limits of a request; answers for each of them, `None` when it is stored.
    ///
    /// # Errors
    /// When no record was stored, or it is not known of any.
    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<Option<PutError>>, PutError>;
}

/// Why a record, or a request, was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kinesis) enum PutError {
    /// It may be later.
    Later(String),
    /// It will not be by itself.
    Final(StreamError),
}

enum Command {
    Put(Vec<PutEntry>),
    Flush(oneshot::Sender<Result<(), StreamError>>),
}

/// The writer's end.
pub(in crate::kinesis) struct Sender {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    records_max: usize,
}

#[derive(Default)]
struct Shared {
    records: AtomicUsize,
    bytes: AtomicUsize,
    failure: Mutex<Option<StreamError>>,
}

impl Shared {
    fn failure(&self) -> Option<StreamError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sender {
    /// Starts the task. It ends when the writer goes.
    pub(in crate::kinesis) fn start(
        target: Arc<dyn PutRecords>,
        options: BatchingOptions,
        runtime: &tokio::runtime::Handle,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = Task {
            target,
            options,
            shared: Arc::clone(&shared),
            wake,
            queue: VecDeque::new(),
            queued_bytes: 0,
            busy: HashSet::new(),
            epoch: 0,
            unacknowledged: BTreeMap::new(),
            flushes: VecDeque::new(),
            requests: JoinSet::new(),
            backoff: Backoff::default(),
            not_before: None,
        };
        runtime.spawn(task.run(receiver));
        Self {
            commands,
            shared,
            records_max: options.buffered_max,
        }
    }

    /// Sends records, soon.
    pub(in crate::kinesis) fn put(&self, entries: Vec<PutEntry>) {
        if entries.is_empty() {
            return;
        }
        self.shared.records.fetch_add(entries.len(), Ordering::AcqRel);
        self.shared
            .bytes
            .fetch_add(entries.iter().map(bytes_of).sum(), Ordering::AcqRel);
        // A task that is gone drops them; its failure, or the lost reply, tells.
        let _ = self.commands.send(Command::Put(entries));
    }

    /// Sends everything before now; answers when all of it is acknowledged.
    pub(in crate::kinesis) fn flush(&self) -> oneshot::Receiver<Result<(), StreamError>> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Flush(reply));
        answer
    }

    /// Returns why it has given up, if it has.
    pub(in crate::kinesis) fn failure(&self) -> Option<StreamError> {
        let gone = || StreamError::Failed("the task that sends records is gone".to_owned());
        self.shared.failure().or_else(|| self.commands.is_closed().then(gone))
    }

    /// Says whether ticks should be held back; the worker is woken when that changes.
    pub(in crate::kinesis) fn is_full(&self) -> bool {
        self.shared.records.load(Ordering::Acquire) > self.records_max
            || self.shared.bytes.load(Ordering::Acquire) > UNACKNOWLEDGED_BYTES_MAX
    }
}

fn bytes_of(entry: &PutEntry) -> usize {
    entry.data.len() + entry.partition_key.len()
}

/// A record that waits.
struct Queued {
    entry: PutEntry,
    key: u64,
    /// The flushes before it.
    epoch: u64,
    since: Instant,
}

type Outcome = (Vec<Queued>, Result<Vec<Option<PutError>>, PutError>);

struct Task {
    target: Arc<dyn PutRecords>,
    options: BatchingOptions,
    shared: Arc<Shared>,
    wake: Arc<dyn Fn() + Send + Sync>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// Hashes of the partition keys in requests that are on their way.
    busy: HashSet<u64>,
    epoch: u64,
    /// Records that are not acknowledged, by epoch.
    unacknowledged: BTreeMap<u64, usize>,
    flushes: VecDeque<(u64, oneshot::Sender<Result<(), StreamError>>)>,
    requests: JoinSet<Outcome>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let due = self.send_what_is_due();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Put(entries)) => self.queue(entries),
                    Some(Command::Flush(reply)) => self.flush(reply),
                    None => return,
                },
                Some(outcome) = self.requests.join_next() => match outcome {
                    Ok(outcome) => self.settle(outcome),
                    Err(error) => self.fail(StreamError::Failed(format!("a request ended by itself: {error}"))),
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn queue(&mut self, entries: Vec<PutEntry>) {
        if self.shared.failure().is_some() {
            return;
        }
        *self.unacknowledged.entry(self.epoch).or_default() += entries.len();
        let since = Instant::now();
        for entry in entries {
            let mut hasher = DefaultHasher::new();
            entry.partition_key.hash(&mut hasher);
            self.queued_bytes += bytes_of(&entry);
            self.queue.push_back(Queued {
                key: hasher.finish(),
                entry,
                epoch: self.epoch,
                since,
            });
        }
    }

    fn flush(&mut self, reply: oneshot::Sender<Result<(), StreamError>>) {
        self.flushes.push_back((self.epoch, reply));
        self.epoch += 1;
        self.answer_flushes();
    }

    /// Answers the flushes before which everything is acknowledged.
    fn answer_flushes(&mut self) {
        let failure = self.shared.failure();
        while let Some((epoch, _)) = self.flushes.front() {
            let is_done = self.unacknowledged.range(..=*epoch).next().is_none();
            if failure.is_none() && !is_done {
                return;
            }
            if let Some((_, reply)) = self.flushes.pop_front() {
                let _ = reply.send(failure.clone().map_or(Ok(()), Err));
            }
        }
    }

    /// Makes requests of what is due; returns when to look again, if time alone changes something.
    fn send_what_is_due(&mut self) -> Option<Instant> {
        while self.requests.len() < self.options.requests_max {
            let now = Instant::now();
            if let Some(not_before) = self.not_before.filter(|&at| at > now) {
                return Some(not_before);
            }
            let front = self.queue.front()?;
            let is_flushed = self.flushes.back().is_some_and(|(epoch, _)| front.epoch <= *epoch);
            let is_full = self.queue.len() >= self.options.records_max || self.queued_bytes >= self.options.bytes_max;
            let due = front.since + self.options.wait_max;
            if !is_flushed && !is_full && due > now {
                return Some(due);
            }
            let batch = self.take_batch();
            if batch.is_empty() {
                // All that waits is of keys that are on their way; their answers bring us back.
                return None;
            }
            let target = Arc::clone(&self.target);
            self.requests.spawn(async move {
                let entries: Vec<PutEntry> = batch.iter().map(|queued| queued.entry.clone()).collect();
                let outcome = target.put(&entries).await;
                (batch, outcome)
            });
        }
        None
    }

    /// Takes the records of a request: the oldest, of keys that are not on their way.
    fn take_batch(&mut self) -> Vec<Queued> {
        let (mut batch, mut bytes, mut keys) = (Vec::new(), 0, HashSet::new());
        let mut left = VecDeque::new();
        while let Some(queued) = self.queue.pop_front() {
            let size = bytes_of(&queued.entry);
            let is_full = batch.len() >= self.options.records_max
                || !batch.is_empty() && bytes + size > self.options.bytes_max.min(PUT_BYTES_MAX);
            if is_full {
                self.queue.push_front(queued);
                break;
            }
            if self.busy.contains(&queued.key) {
                left.push_back(queued);
                continue;
            }
            bytes += size;
            keys.insert(queued.key);
            batch.push(queued);
        }
        left.append(&mut self.queue);
        self.queue = left;
        self.queued_bytes -= bytes;
        self.busy.extend(keys);
        batch
    }

    /// Takes the answer to a request.
    fn settle(&mut self, (batch, outcome): Outcome) {
        for queued in &batch {
            self.busy.remove(&queued.key);
        }
        if self.shared.failure().is_some() {
            return;
        }
        let mut refused = Vec::new();
        let mut reason = None;
        let mut acknowledged = 0;
        match outcome {
            Ok(outcomes) => {
                for (queued, outcome) in batch.into_iter().zip(outcomes) {
                    match outcome {
                        None => {
                            acknowledged += 1;
                            self.acknowledge(&queued);
                        }
                        Some(PutError::Later(message)) => {
                            reason.get_or_insert(message);
                            refused.push(queued);
                        }
                        Some(PutError::Final(error)) => return self.fail(error),
                    }
                }
            }
            Err(PutError::Later(message)) => {
                reason = Some(message);
                refused = batch;
            }
            Err(PutError::Final(error)) => return self.fail(error),
        }
        if acknowledged > 0 {
            self.backoff.reset();
        }
        if let Some(reason) = reason {
            if self.options.refused == Refused::Fail {
                return self.fail(StreamError::Failed(reason));
            }
            let Some(wait) = self.backoff.wait() else {
                return self.fail(StreamError::Failed(reason));
            };
            tracing::debug!(refused = refused.len(), reason, ?wait, "records are sent again");
            self.not_before = Some(Instant::now() + wait);
            for queued in refused.into_iter().rev() {
                self.queued_bytes += bytes_of(&queued.entry);
                self.queue.push_front(queued);
            }
        }
        self.answer_flushes();
        (self.wake)();
    }

    fn acknowledge(&mut self, queued: &Queued) {
        if let Some(count) = self.unacknowledged.get_mut(&queued.epoch) {
            *count -= 1;
            if *count == 0 {
                self.unacknowledged.remove(&queued.epoch);
            }
        }
        self.shared.records.fetch_sub(1, Ordering::AcqRel);
        self.shared.bytes.fetch_sub(bytes_of(&queued.entry), Ordering::AcqRel);
    }

    /// Gives up: the job is about to end.
    fn fail(&mut self, error: StreamError) {
        self.shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.queue.clear();
        self.queued_bytes = 0;
        self.answer_flushes();
        (self.wake)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Wakes, runtime};
    use std::time::Duration;

    /// Takes what its script says, and everything when that is over.
    #[derive(Default)]
    struct Target {
        script: Mutex<VecDeque<Answer>>,
        stored: Mutex<Vec<(String, String)>>,
        requests: Mutex<Vec<Vec<String>>>,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
    }

    enum Answer {
        Unavailable,
        /// Refuses every record whose data ends with this.
        Refuse(&'static str),
        Final,
    }

    #[async_trait::async_trait]
    impl PutRecords for Target {
        async fn find(&self) -> Result<String, StreamError> {
            Ok("arn:aws:kinesis:us-east-1:000000000000:stream/clicks".to_owned())
        }

        async fn look_again(&self) -> Result<(), StreamError> {
            Ok(())
        }

        async fn put(&self, entries: &[PutEntry]) -> Result<Vec<Option<PutError>>, PutError> {
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            let text = |entry: &PutEntry| String::from_utf8(entry.data.to_vec()).unwrap();
            self.requests.lock().unwrap().push(entries.iter().map(text).collect());
            let answer = self.script.lock().unwrap().pop_front();
            let outcome = |entry: &PutEntry| match answer {
                Some(Answer::Refuse(end)) if text(entry).ends_with(end) => Some(PutError::Later("slow".to_owned())),
                Some(Answer::Final) => Some(PutError::Final(StreamError::Failed("never".to_owned()))),
                _ => {
                    self.stored
                        .lock()
                        .unwrap()
                        .push((entry.partition_key.clone(), text(entry)));
                    None
                }
            };
            if matches!(answer, Some(Answer::Unavailable)) {
                return Err(PutError::Later("away".to_owned()));
            }
            Ok(entries.iter().map(outcome).collect())
        }
    }

    fn entries(range: std::ops::Range<usize>, keys: usize) -> Vec<PutEntry> {
        let entry = |n: usize| PutEntry {
            partition_key: format!("k{}", n % keys),
            explicit_hash_key: None,
            data: n.to_string().into_bytes().into(),
        };
        range.map(entry).collect()
    }

    fn options() -> BatchingOptions {
        BatchingOptions {
            records_max: 10,
            wait_max: Duration::from_secs(3_600),
            ..BatchingOptions::default()
        }
    }

    struct Fixture {
        runtime: tokio::runtime::Runtime,
        wakes: Wakes,
        target: Arc<Target>,
        sender: Sender,
    }

    fn fixture(options: BatchingOptions, script: Vec<Answer>) -> Fixture {
        let (runtime, wakes) = (runtime(), Wakes::default());
        let target = Arc::new(Target {
            script: Mutex::new(script.into()),
            ..Target::default()
        });
        let sender = Sender::start(Arc::clone(&target) as _, options, runtime.handle(), wakes.waker());
        Fixture {
            runtime,
            wakes,
            target,
            sender,
        }
    }

    impl Fixture {
        fn flush(&self) -> Result<(), StreamError> {
            self.runtime.block_on(self.sender.flush()).unwrap()
        }

        fn stored(&self) -> Vec<usize> {
            let stored = self.target.stored.lock().unwrap();
            let mut stored: Vec<usize> = stored.iter().map(|(_, data)| data.parse().unwrap()).collect();
            stored.sort_unstable();
            stored
        }
    }

    #[test]
    fn keys_keep_their_order_over_many_requests_and_outages() {
        let script = || (0..5).map(|_| Answer::Unavailable);
        let test = fixture(options(), script().collect());
        for start in (0..1_000).step_by(50) {
            test.sender.put(entries(start..start + 50, 7));
        }
        test.flush().unwrap();
        assert_eq!(test.stored(), (0..1_000).collect::<Vec<_>>());
        let mut last = std::collections::HashMap::new();
        for (key, data) in test.target.stored.lock().unwrap().iter() {
            let number: usize = data.parse().unwrap();
            assert!(
                last.insert(key.clone(), number).is_none_or(|before| before < number),
                "{key}"
            );
        }
        assert!(
            test.target
                .requests
                .lock()
                .unwrap()
                .iter()
                .all(|request| request.len() <= 10)
        );
        assert!(!test.sender.is_full());
    }

    #[test]
    fn refused_records_are_sent_again_and_only_they() {
        let test = fixture(options(), vec![Answer::Refuse("3"), Answer::Refuse("3")]);
        test.sender.put(entries(0..10, 10));
        test.flush().unwrap();
        assert_eq!(test.stored(), (0..10).collect::<Vec<_>>());
        let requests = test.target.requests.lock().unwrap();
        assert_eq!(requests[1..], [vec!["3"], vec!["3"]]);
    }

    #[test]
    fn small_batches_wait_for_a_flush_or_their_time() {
        let test = fixture(options(), Vec::new());
        test.sender.put(entries(0..5, 5));
        test.sender.put(entries(5..9, 5));
        assert!(test.stored().is_empty());
        test.flush().unwrap();
        assert_eq!(test.target.requests.lock().unwrap().len(), 1);
        // A flush of nothing is answered at once.
        test.flush().unwrap();

        let soon = BatchingOptions {
            wait_max: Duration::from_millis(1),
            ..options()
        };
        let test = fixture(soon, Vec::new());
        let seen = test.wakes.count();
        test.sender.put(entries(0..1, 1));
        test.wakes.wait_beyond(seen);
        assert_eq!(test.stored(), [0]);
    }

    #[test]
    fn requests_are_as_many_at_once_as_allowed() {
        let two = BatchingOptions {
            requests_max: 2,
            records_max: 1,
            ..options()
        };
        let test = fixture(two, Vec::new());
        test.sender.put(entries(0..40, 40));
        test.flush().unwrap();
        assert_eq!(test.target.most_at_once.load(Ordering::SeqCst), 2);
        assert_eq!(test.stored().len(), 40);
    }

    #[test]
    fn a_request_is_not_larger_than_asked_for() {
        let small = BatchingOptions {
            bytes_max: 100,
            ..options()
        };
        let test = fixture(small, Vec::new());
        let entry = |n: usize| PutEntry {
            partition_key: n.to_string(),
            explicit_hash_key: None,
            data: vec![b'0'; 40].into(),
        };
        test.sender.put((0..6).map(entry).collect());
        test.flush().unwrap();
        assert!(
            test.target
                .requests
                .lock()
                .unwrap()
                .iter()
                .all(|request| request.len() <= 2)
        );
    }

    #[test]
    fn more_records_than_allowed_hold_back_ticks() {
        let few = BatchingOptions {
            buffered_max: 10,
            ..options()
        };
        let test = fixture(few, Vec::new());
        test.sender.put(entries(0..5, 5));
        assert!(!test.sender.is_full());
        test.sender.put(entries(5..11, 6));
        assert!(test.sender.is_full());
        test.flush().unwrap();
        assert!(!test.sender.is_full());
    }

    #[test]
    fn what_can_never_be_stored_fails_the_writer() {
        for (refused, script) in [(Refused::Repeat, Answer::Final), (Refused::Fail, Answer::Refuse("3"))] {
            let test = fixture(BatchingOptions { refused, ..options() }, vec![script]);
            test.sender.put(entries(0..10, 10));
            let error = test.flush().unwrap_err();
            assert_eq!(test.sender.failure(), Some(error));
            // A later flush does not hide it.
            assert!(test.flush().is_err());
        }
    }
}
