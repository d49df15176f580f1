//! Reading a stream that is split and merged meanwhile.
//!
//! [`Job`] does with the source what the engine does: gives out what the enumerator finds, reads, notes ends, takes
//! checkpoints, and after a crash goes on from the last one.

use super::fake::FakeStore;
use super::*;
use proptest::prelude::*;
use tidemill_engine::source::ReadOutcome;

/// The stream `clicks` of some store, and ways to change it.
pub(super) trait Stream {
    /// Stores a row of a key; rows are numbered from 0.
    fn put_row(&self, key: &str);
    /// Returns how many rows were put.
    fn rows(&self) -> usize;
    /// Returns the open shards.
    fn open_shards(&self) -> Vec<u32>;
    /// Splits an open shard in the middle.
    fn split(&self, parent: u32);
    /// Merges two open shards, if they are neighbours.
    fn merge(&self, left: u32, right: u32) -> bool;
    /// Makes the source of a table.
    fn source(&self, options: &[(&str, &str)]) -> Arc<dyn Source>;
}

/// A job that reads one table and keeps its rows in order.
struct Job<'a> {
    reading: &'a Reading<'a>,
    known: BTreeMap<SplitId, SplitState>,
    readers: BTreeMap<SplitId, Box<dyn SplitReader>>,
    rows: Vec<String>,
    checkpoint: (BTreeMap<SplitId, SplitState>, usize),
}

impl<'a> Job<'a> {
    fn new(reading: &'a Reading<'a>) -> Self {
        Self {
            reading,
            known: BTreeMap::new(),
            readers: BTreeMap::new(),
            rows: Vec::new(),
            checkpoint: (BTreeMap::new(), 0),
        }
    }

    fn discover(&mut self) -> Result<usize> {
        let mut enumerator = self.reading.source.enumerator()?;
        let discovery = self.reading.runtime.block_on(enumerator.discover(&self.known))?;
        for id in &discovery.forget {
            let forgotten = self.known.remove(id).expect("a known split");
            assert!(forgotten.ended, "{id}");
        }
        let found = discovery.new;
        for split in &found {
            self.readers.insert(split.id.clone(), self.reading.open(split));
            let position = split.position.clone();
            self.known
                .insert(split.id.clone(), SplitState { position, ended: false });
        }
        Ok(found.len())
    }

    /// Asks one reader once; says whether it had anything.
    fn read(&mut self, id: &SplitId, rows_max: usize) -> Result<bool> {
        let Some(reader) = self.readers.get_mut(id) else {
            return Ok(false);
        };
        let ended = match reader.read(rows_max, 1 << 20)? {
            ReadOutcome::Rows(batch) => {
                self.rows.extend(lines(&[batch]));
                false
            }
            ReadOutcome::Pending => return Ok(false),
            ReadOutcome::Ended => true,
        };
        let position = reader.position();
        self.known.insert(id.clone(), SplitState { position, ended });
        if ended {
            self.readers.remove(id);
        }
        Ok(true)
    }

    fn take_checkpoint(&mut self) {
        self.checkpoint = (self.known.clone(), self.rows.len());
    }

    /// Forgets everything since the last checkpoint and goes on from there.
    fn crash(&mut self) {
        self.readers.clear();
        self.known = self.checkpoint.0.clone();
        self.rows.truncate(self.checkpoint.1);
        for (id, state) in self.known.iter().filter(|(_, state)| !state.ended) {
            let (id, position) = (id.clone(), state.position.clone());
            self.readers
                .insert(id.clone(), self.reading.open(&Split { id, position }));
        }
    }

    /// Reads until there are so many rows and nothing is left to be found.
    fn drain(&mut self, rows: usize) -> Result<()> {
        loop {
            let seen = self.reading.wakes.count();
            let ids: Vec<SplitId> = self.readers.keys().cloned().collect();
            let mut busy = self.discover()? > 0;
            for id in ids {
                busy |= self.read(&id, 2)?;
            }
            if !busy && self.rows.len() >= rows {
                return Ok(());
            }
            if !busy && !self.readers.values_mut().any(|reader| reader.is_ready()) {
                self.reading.wakes.wait_beyond(seen);
            }
        }
    }
}

/// Checks that every row was read once, and those of each key in their order.
fn check(job: &Job<'_>, rows: usize) {
    assert_eq!(numbers(&job.rows), (0..rows).collect::<Vec<_>>());
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &job.rows {
        let (id, key) = row.split_once('|').unwrap();
        let id: usize = id.parse().unwrap();
        if let Some(before) = last.insert(key, id) {
            assert!(before < id, "key {key}: {before} and then {id}");
        }
    }
}

pub(super) const FROM_THE_START: (&str, &str) = ("source.init.position", "TRIM_HORIZON");

fn put_rows(store: &impl Stream, rows: usize) {
    for row in 0..rows {
        store.put_row(&format!("k{}", row % 7));
    }
}

pub(super) fn check_parents_are_read_before_their_children(store: &impl Stream) {
    put_rows(store, 20);
    store.split(0);
    put_rows(store, 20);
    assert!(store.merge(1, 2));
    put_rows(store, 20);
    let source = store.source(&[FROM_THE_START]);
    let reading = Reading::new(source.as_ref());
    let mut job = Job::new(&reading);
    assert_eq!(job.discover().unwrap(), 1, "only the oldest has its turn");
    job.drain(60).unwrap();
    check(&job, 60);
    assert_eq!(job.readers.len(), 1, "the shard that is open");
    assert_eq!(job.known.values().filter(|state| state.ended).count(), 3);
}

#[test]
fn parents_are_read_before_their_children() {
    check_parents_are_read_before_their_children(&FakeStore::new(1, 1));
}

/// `create` makes a stream of one shard.
pub(super) fn check_a_checkpoint_that_coincides_with_a_split<S: Stream>(create: impl Fn() -> S) {
    // Where the checkpoint is taken: the parent read halfway, read to its last row, ended, its children found.
    for moment in 0..4 {
        let store = create();
        put_rows(&store, 6);
        let source = store.source(&[FROM_THE_START]);
        let reading = Reading::new(source.as_ref());
        let mut job = Job::new(&reading);
        let parent = SplitId("shardId-000000000000".to_owned());
        let read_until = |job: &mut Job<'_>, done: &dyn Fn(&Job<'_>) -> bool| {
            while !done(job) {
                let seen = reading.wakes.count();
                if !job.read(&parent, 1).unwrap() {
                    reading.wakes.wait_beyond(seen);
                }
            }
        };
        job.discover().unwrap();
        read_until(&mut job, &|job| job.rows.len() == 3);
        store.split(0);
        put_rows(&store, 6);
        if moment >= 1 {
            read_until(&mut job, &|job| job.rows.len() == 6);
        }
        if moment >= 2 {
            read_until(&mut job, &|job| job.known[&parent].ended);
        }
        if moment >= 3 {
            assert_eq!(job.discover().unwrap(), 2);
        }
        job.take_checkpoint();
        job.drain(12).unwrap();
        job.crash();
        job.drain(12).unwrap();
        check(&job, 12);
    }
}

#[test]
fn a_checkpoint_that_coincides_with_a_split_loses_nothing() {
    check_a_checkpoint_that_coincides_with_a_split(|| FakeStore::new(1, 1));
}

#[test]
fn children_of_a_stream_that_is_read_from_its_latest_are_read_from_their_beginning() {
    let store = FakeStore::new(1, 1);
    put_rows(&store, 5);
    let source = store.source(&[]);
    let reading = Reading::new(source.as_ref());
    let mut job = Job::new(&reading);
    job.discover().unwrap();
    job.take_checkpoint();
    // All of this happens while the job is down.
    put_rows(&store, 5);
    store.split(0);
    put_rows(&store, 5);
    assert!(store.merge(1, 2));
    put_rows(&store, 5);
    job.crash();
    job.drain(15).unwrap();
    assert_eq!(numbers(&job.rows), (5..20).collect::<Vec<_>>());
}

#[test]
fn a_shard_that_expired_unread_is_data_loss() {
    let store = FakeStore::new(2, 1);
    put_rows(&store, 20);
    let source = store.source(&[FROM_THE_START]);
    let reading = Reading::new(source.as_ref());
    let mut job = Job::new(&reading);
    job.discover().unwrap();
    job.take_checkpoint();
    store.split(0);
    put_rows(&store, 20);
    store.expire(0);
    job.crash();
    let error = job.discover().unwrap_err().to_string();
    assert!(
        error.contains("data loss: shard shardId-000000000000 has expired"),
        "{error}"
    );
    assert!(error.contains("source.on-data-loss"), "{error}");
    let reader = job
        .readers
        .get_mut(&SplitId("shardId-000000000000".to_owned()))
        .unwrap();
    let error = reading.next(reader.as_mut(), 5).unwrap_err().to_string();
    assert!(error.contains("data loss"), "{error}");

    let source = store.source(&[FROM_THE_START, ("source.on-data-loss", "continue")]);
    let reading = Reading::new(source.as_ref());
    let lost = store.records_of(0);
    assert!(lost > 0);
    let mut continued = Job::new(&reading);
    continued.checkpoint = job.checkpoint.clone();
    continued.crash();
    continued.drain(40 - lost).unwrap();
    assert_eq!(continued.rows.len(), 40 - lost, "everything but what has expired");
}

#[test]
fn records_that_expired_unread_are_data_loss_but_not_at_a_beginning_that_moves_on() {
    let store = FakeStore::new(1, 1);
    put_rows(&store, 50);
    let source = store.source(&[FROM_THE_START]);
    let reading = Reading::new(source.as_ref());
    let first = reading.discover(&BTreeMap::new()).remove(0);
    // The beginning moves on before anything is read, and while the reader is close to it.
    store.expire_records(2);
    let mut reader = reading.open(&first);
    let rows = lines(&[reading.next(reader.as_mut(), 1).unwrap().unwrap()]);
    assert_eq!(numbers(&rows), [2]);
    let position = reader.position();
    // More than is fetched ahead.
    store.expire_records(40);
    let mut found = Vec::new();
    while found.last() != Some(&49) {
        found.extend(numbers(&lines(&[reading.next(reader.as_mut(), 100).unwrap().unwrap()])));
    }
    assert!(
        found.ends_with(&(40..50).collect::<Vec<_>>()) && !found.contains(&39),
        "{found:?}"
    );
    // A checkpoint tells what was read: what expired behind it is lost.
    let held = Split {
        id: first.id.clone(),
        position,
    };
    let mut reader = reading.open(&held);
    let error = reading.next(reader.as_mut(), 5).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("data loss: records of clicks/shardId-000000000000 behind 1@4"),
        "{error}"
    );
    assert!(!error.is_retryable(), "{error:?}");
    let lenient = store.source(&[FROM_THE_START, ("source.on-data-loss", "continue")]);
    let reading = Reading::new(lenient.as_ref());
    let mut reader = reading.open(&held);
    let rows = lines(&[reading.next(reader.as_mut(), 100).unwrap().unwrap()]);
    assert_eq!(numbers(&rows)[0], 40);
}

#[test]
fn shards_that_were_read_and_have_expired_leave_the_checkpoint_and_stay_read() {
    let store = FakeStore::new(1, 1);
    put_rows(&store, 20);
    store.split(0);
    put_rows(&store, 20);
    let source = store.source(&[FROM_THE_START]);
    let reading = Reading::new(source.as_ref());
    let mut job = Job::new(&reading);
    job.drain(40).unwrap();
    let ids = |job: &Job<'_>| job.known.keys().map(|id| id.0[19..].to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&job), ["0", "1", "2"]);
    let expired = store.expire(0);
    // While there is a shard that was not begun, nothing is forgotten.
    assert!(store.merge(1, 2));
    job.discover().unwrap();
    assert_eq!(ids(&job), ["0", "1", "2"]);
    // The ends of its parents are found out in the background.
    while !ids(&job).iter().any(|id| id == "3") {
        job.drain(40).unwrap();
    }
    job.discover().unwrap();
    assert_eq!(ids(&job), ["1", "2", "3"]);
    job.take_checkpoint();
    // It is described again, as when the retention of its stream is made longer: it is not read again.
    store.bring_back(expired);
    job.crash();
    assert_eq!(job.discover().unwrap(), 0);
    put_rows(&store, 5);
    job.drain(45).unwrap();
    check(&job, 45);
    for shard in 0..3 {
        store.expire(shard);
    }
    job.discover().unwrap();
    assert_eq!(ids(&job), ["3"]);
    job.discover().unwrap();
}

#[test]
fn a_generation_of_shards_that_came_and_went_unread_is_data_loss() {
    let store = FakeStore::new(1, 1);
    put_rows(&store, 4);
    let source = store.source(&[FROM_THE_START]);
    let reading = Reading::new(source.as_ref());
    let mut job = Job::new(&reading);
    store.split(0);
    job.discover().unwrap();
    while !job.known.values().all(|state| state.ended) {
        let seen = reading.wakes.count();
        if !job.read(&SplitId("shardId-000000000000".to_owned()), 10).unwrap() {
            reading.wakes.wait_beyond(seen);
        }
    }
    job.take_checkpoint();
    put_rows(&store, 4);
    assert!(store.merge(1, 2));
    store.expire(0);
    store.expire(1);
    store.expire(2);
    job.crash();
    let error = job.discover().unwrap_err().to_string();
    assert!(
        error.contains("appeared and expired without having been read"),
        "{error}"
    );
    // A job that starts afresh reads what is there.
    let mut fresh = Job::new(&reading);
    assert_eq!(fresh.discover().unwrap(), 1);
}

#[test]
fn a_stream_that_was_created_again_with_fewer_shards_is_told() {
    let store = FakeStore::new(2, 1);
    let source = store.source(&[FROM_THE_START]);
    let reading = Reading::new(source.as_ref());
    let mut job = Job::new(&reading);
    job.discover().unwrap();
    job.take_checkpoint();
    let other = FakeStore::new(1, 100);
    let source = other.source(&[FROM_THE_START, ("source.on-data-loss", "continue")]);
    let reading = Reading::new(source.as_ref());
    let mut again = Job::new(&reading);
    again.known = job.checkpoint.0.clone();
    let error = again.discover().unwrap_err().to_string();
    assert!(error.contains("deleted and created again"), "{error}");
    assert!(error.contains("the restore point \"nothing\""), "{error}");
    // Not there is not expired, when what is there is another stream.
    let lost = SplitId("shardId-000000000001".to_owned());
    let mut reader = reading.open(&Split {
        position: job.checkpoint.0[&lost].position.clone(),
        id: lost.clone(),
    });
    let error = reading.next(reader.as_mut(), 5).unwrap_err();
    assert!(error.to_string().contains("deleted and created again"), "{error}");
    assert!(!error.is_retryable(), "{error:?}");
    again.known.retain(|id, _| *id == lost);
    let error = again.discover().unwrap_err().to_string();
    assert!(error.contains("deleted and created again"), "{error}");
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Put(u8),
    Split(usize),
    Merge(usize, usize),
    Discover,
    Read(usize, usize),
    Checkpoint,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0u8..12).prop_map(Action::Put),
        1 => (0usize..8).prop_map(Action::Split),
        1 => (0usize..8, 0usize..8).prop_map(|(left, right)| Action::Merge(left, right)),
        2 => Just(Action::Discover),
        6 => (0usize..8, 1usize..5).prop_map(|(split, rows)| Action::Read(split, rows)),
        1 => Just(Action::Checkpoint),
        1 => Just(Action::Crash),
    ]
}

pub(super) fn actions() -> impl Strategy<Value = Vec<Action>> {
    proptest::collection::vec(action(), 1..120)
}

/// Whatever is split, merged, read, saved and lost in whatever order: every row once, keys in their order.
pub(super) fn check_any_resharding(store: &impl Stream, actions: Vec<Action>) {
    let source = store.source(&[FROM_THE_START]);
    let reading = Reading::new(source.as_ref());
    let mut job = Job::new(&reading);
    for action in actions {
        match action {
            Action::Put(key) => store.put_row(&format!("k{key}")),
            Action::Split(at) => {
                let open = store.open_shards();
                if open.len() < 8 {
                    store.split(open[at % open.len()]);
                }
            }
            Action::Merge(left, right) => {
                let open = store.open_shards();
                store.merge(open[left % open.len()], open[right % open.len()]);
            }
            Action::Discover => {
                job.discover().unwrap();
            }
            Action::Read(at, rows) => {
                let ids: Vec<SplitId> = job.readers.keys().cloned().collect();
                if !ids.is_empty() {
                    job.read(&ids[at % ids.len()], rows).unwrap();
                }
            }
            Action::Checkpoint => job.take_checkpoint(),
            Action::Crash => job.crash(),
        }
    }
    job.drain(store.rows()).unwrap();
    check(&job, store.rows());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_resharding_keeps_every_row_and_the_order_of_keys(actions in actions()) {
        check_any_resharding(&FakeStore::new(2, 1), actions);
    }
}
