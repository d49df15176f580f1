//! A job small enough to be checked: it reads the numbers 1, 2, 3, ... and its sink publishes them.
//!
//! Its state is the sum of what it has read, in a state object per worker; its committable is the run of numbers read since the
//! checkpoint before. Exactly-once means: what the sink has published is 1, 2, 3, ... without a gap and without a repetition, up to
//! the restored position, whatever happened in between.

use crate::faulty::Faulty;
use crate::test_support::{job, snapshot};
use crate::{
    CheckpointId, Committable, Coordinator, Error, Failpoints, Lineage, Manifest, Nonce, Permit, Restore, RestoreFrom,
    Result, SnapshotKind, SnapshotStore, SplitPosition, StartOptions, StateReader, StateWriter,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How many numbers one checkpoint covers, and how many workers there are.
const STEP: u64 = 3;
const WORKERS: u32 = 2;

/// What outlives every process: the object store, and the sink's side of the world.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) objects: Faulty,
    pub(crate) sink: Arc<Mutex<Sink>>,
    nonces: Arc<Mutex<u8>>,
}

/// A sink as the design wants it: publishing is idempotent, old permits are refused, and a lineage that it does not know is a new run.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) published: Vec<u64>,
    last: Option<Permit>,
    retired: Vec<Lineage>,
}

impl Sink {
    fn publish(&mut self, permit: &Permit, numbers: impl Iterator<Item = u64>) {
        assert!(
            !self.retired.contains(&permit.lineage),
            "{permit:?} came after {:?}",
            self.last
        );
        let last = self.last.as_ref().filter(|last| last.lineage == permit.lineage);
        if last.is_none_or(|last| permit.checkpoint > last.checkpoint) {
            self.published.extend(numbers);
            let before = self.last.replace(permit.clone()).map(|before| before.lineage);
            self.retired.extend(before.filter(|before| *before != permit.lineage));
        } else if let Some(last) = last {
            let of = |permit: &Permit| (permit.checkpoint, permit.decided_by);
            assert_eq!(
                of(permit),
                of(last),
                "a permit for an older checkpoint, or for another content"
            );
        }
    }
}

/// A running process of the job.
pub(crate) struct Process {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) position: u64,
    sink: Arc<Mutex<Sink>>,
}

impl World {
    pub(crate) fn store(&self) -> SnapshotStore {
        SnapshotStore::from_object_store(Arc::new(self.objects.clone()))
    }

    /// Returns the same world as seen by a process whose store works.
    pub(crate) fn without_faults(&self) -> Self {
        Self {
            objects: self.objects.without_faults(),
            ..self.clone()
        }
    }

    pub(crate) fn options(&self, failpoints: &Failpoints, restore: RestoreFrom) -> StartOptions {
        let mut nonces = self.nonces.lock().unwrap();
        *nonces += 1;
        let nonce = Nonce::from_bytes([*nonces; 16]);
        StartOptions {
            job: job(),
            nonce,
            restore,
            started_ms: 0,
            failpoints: failpoints.clone(),
        }
    }

    /// Starts a process, restores, and publishes again what has to be.
    pub(crate) async fn start(&self, failpoints: &Failpoints) -> Result<Process> {
        self.start_from(failpoints, RestoreFrom::Latest).await
    }

    pub(crate) async fn start_from(&self, failpoints: &Failpoints, restore: RestoreFrom) -> Result<Process> {
        let (mut coordinator, restore) = Coordinator::start(self.store(), self.options(failpoints, restore)).await?;
        // Often, so that it takes part in the tests.
        coordinator.rebase_after = 2;
        let mut process = Process {
            coordinator: Arc::new(coordinator),
            position: 0,
            sink: Arc::clone(&self.sink),
        };
        if let Some(restore) = restore {
            process.restore(self.store(), restore).await?;
        }
        Ok(process)
    }

    /// Checks that nothing is missing and nothing twice, up to `position` at most.
    pub(crate) fn check_output(&self, position: u64) {
        let sink = self.sink.lock().unwrap();
        let count = sink.published.len() as u64;
        assert_eq!(sink.published, (1..=count).collect::<Vec<_>>());
        assert!(count <= position, "{count} numbers are published, {position} are read");
    }

    pub(crate) async fn names(&self, prefix: &str) -> Vec<String> {
        let clean = SnapshotStore::from_object_store(self.objects.inner.clone());
        let mut names: Vec<String> = clean
            .list(prefix)
            .await
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names
    }

    /// Checks that every manifest that must be restorable has all its state.
    pub(crate) async fn check_reachable(&self, keep: usize) {
        let store = SnapshotStore::from_object_store(self.objects.inner.clone());
        let mut live = store.list_checkpoints(&job(), keep).await.unwrap();
        live.extend(store.list_savepoints(&job()).await.unwrap());
        for listed in live {
            assert!(listed.restorable, "{} has lost its state", listed.object);
            assert_eq!(
                read_sum(store.clone(), &listed.manifest).await.unwrap(),
                sum_to(read_position(&listed.manifest))
            );
        }
    }
}

impl Process {
    async fn restore(&mut self, store: SnapshotStore, restore: Restore) -> Result<()> {
        for manifest in &restore.replay {
            self.publish(manifest).await?;
        }
        self.position = read_position(&restore.manifest);
        assert_eq!(read_sum(store, &restore.manifest).await?, sum_to(self.position));
        Ok(())
    }

    /// Reads some numbers and takes a checkpoint of them.
    pub(crate) async fn checkpoint(&mut self, kind: SnapshotKind) -> Result<CheckpointId> {
        let manifest = self.decide(kind).await?;
        self.publish(&manifest).await?;
        Ok(manifest.checkpoint)
    }

    /// Takes a checkpoint and does not publish it.
    pub(crate) async fn decide(&mut self, kind: SnapshotKind) -> Result<Manifest> {
        let before = self.position;
        let position = before + STEP;
        let attempt = self.coordinator.begin().await?;
        let mut snapshot = snapshot(position);
        snapshot.kind = kind;
        for worker in 0..WORKERS {
            let mut writer = StateWriter::new();
            // Dealt out so that both workers hold a part.
            let part = (sum_to(position) + u64::from(worker)) / u64::from(WORKERS);
            writer.append(&"sum".into(), "part", None, part.to_le_bytes().to_vec())?;
            snapshot
                .state
                .push(self.coordinator.put_state(&attempt, worker, writer.finish()).await?);
        }
        let split = SplitPosition {
            position: position.to_string(),
            watermark_ms: None,
            ended: false,
        };
        snapshot.sources = BTreeMap::from([("numbers".into(), BTreeMap::from([("0".into(), split)]))]);
        let numbers = (before + 1..=position).map(|number| Committable(number.to_le_bytes().to_vec()));
        snapshot.committables.insert("sink".into(), numbers.collect());
        let manifest = self.coordinator.decide(&attempt, snapshot).await?;
        self.position = position;
        Ok(manifest)
    }

    pub(crate) async fn publish(&self, manifest: &Manifest) -> Result<()> {
        let permit = self.coordinator.permit(manifest.checkpoint).await?;
        let numbers = manifest.snapshot.committables.values().flatten();
        let numbers = numbers.map(|number| u64::from_le_bytes(number.0.as_slice().try_into().unwrap()));
        self.sink.lock().unwrap().publish(&permit, numbers);
        self.coordinator.mark_committed(manifest.checkpoint).await
    }
}

fn sum_to(position: u64) -> u64 {
    position * (position + 1) / 2
}

pub(crate) fn read_position(manifest: &Manifest) -> u64 {
    manifest.snapshot.sources["numbers"]["0"].position.parse().unwrap()
}

pub(crate) async fn read_sum(store: SnapshotStore, manifest: &Manifest) -> Result<u64, Error> {
    let parts = StateReader::new(store, manifest).read(&"sum".into(), None).await?;
    Ok(parts
        .iter()
        .map(|part| u64::from_le_bytes(part.content.as_ref().try_into().unwrap()))
        .sum())
}
