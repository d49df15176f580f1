//! A disk whose syncs take long: producers wait, nothing is stored twice, readers go on, and what waits is bounded.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tidemill_shards::env::{Clock, Disk, DiskFile, Environment, ManualClock, SeededEntropy, SimDisk};
use tidemill_shards::limits::{BATCH_BYTES_MAX, COMMAND_BYTES_MAX, QUEUE_BYTES_MAX};
use tidemill_shards::{ShardStore, StoreOptions};

use crate::support::*;

/// Holds syncs up for as long as it is closed.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    waiting: usize,
    /// The longest write since the gate was made.
    longest_write: usize,
}

impl Gate {
    fn set(&self, is_closed: bool) {
        self.state.lock().unwrap().is_closed = is_closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        while state.is_closed {
            state = self.changed.wait(state).unwrap();
        }
        state.waiting -= 1;
    }

    async fn is_waited_at(&self) {
        while self.state.lock().unwrap().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Opens the gate when it is dropped.
struct OpenAtLast(Arc<Gate>);

impl Drop for OpenAtLast {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

struct SlowDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

struct SlowFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl SlowDisk {
    fn slow(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SlowFile {
            file,
            gate: self.gate.clone(),
        })
    }
}

impl Disk for SlowDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.slow(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.slow(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk.unlink(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.gate.state.lock().unwrap();
        state.longest_write = state.longest_write.max(bytes.len());
        drop(state);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

#[test]
fn puts_wait_for_a_slow_disk_and_are_stored_once_and_readers_go_on() {
    const PUTTERS: usize = 40;
    const GIVE_UP: usize = 200;
    const RECORD: usize = 1 << 20;
    block_on(async {
        let (disk, gate, clock) = (SimDisk::new(), Arc::new(Gate::default()), ManualClock::new(NOW_MS));
        let environment = Environment {
            disk: Arc::new(SlowDisk {
                disk: disk.clone(),
                gate: gate.clone(),
            }),
            clock: Arc::new(clock.clone()) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(1 << 50)),
        };
        let options = StoreOptions {
            segment_bytes: 32 << 20,
            ..options()
        };
        let store = ShardStore::open_in(environment, options).unwrap();
        create(&store, "s", 1).await;
        put(&store, "s", "k", "before").await;

        // A test that fails must not hang: the store waits for its writer.
        let _opened_again = OpenAtLast(gate.clone());
        gate.set(true);
        let data = |putter: usize| format!("{putter:010}").repeat(RECORD / 10 - 1);
        let first = tokio::spawn({
            let store = store.clone();
            async move { put(&store, "s", "k", "first").await }
        });
        gate.is_waited_at().await;
        // More than the queue takes: the rest waits in front of it.
        let putters: Vec<_> = (0..2 * PUTTERS)
            .map(|putter| {
                let (store, data) = (store.clone(), data(putter));
                tokio::spawn(async move { put(&store, "s", "k", data).await })
            })
            .collect();
        const { assert!(2 * PUTTERS * RECORD > QUEUE_BYTES_MAX) };
        // Whoever does not wait any longer may have put a record, but never two.
        for putter in 0..GIVE_UP {
            let entries = vec![entry("k", format!("given up {putter}"))];
            let gone = tokio::time::timeout(Duration::from_millis(1), store.put_records(&name("s"), entries)).await;
            assert!(gone.is_err(), "acknowledged without a sync");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!first.is_finished() && putters.iter().all(|putter| !putter.is_finished()));
        // Readers and those who ask what there is are not held up, and see only what is durable.
        assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), ["before"]);
        assert_eq!(store.list_streams().len(), 1);

        gate.set(false);
        let mut acknowledged = vec![first.await.unwrap().sequence];
        for putter in putters {
            acknowledged.push(putter.await.unwrap().sequence);
        }
        put(&store, "s", "k", "after").await;
        let at = shard("s", 0);
        let mut from = store.resolve(&at, tidemill_shards::ReadFrom::TrimHorizon).unwrap();
        let mut records = Vec::new();
        loop {
            let batch = store.read(&at, from, ALL).unwrap();
            if batch.records.is_empty() {
                break;
            }
            from = batch.next;
            records.extend(batch.records);
        }
        for sequence in &acknowledged {
            assert_eq!(records.iter().filter(|record| record.sequence == *sequence).count(), 1);
        }
        let mut contents: Vec<&[u8]> = records.iter().map(|record| &record.data[..]).collect();
        contents.sort_unstable();
        assert!(
            contents.windows(2).all(|pair| pair[0] != pair[1]),
            "a record is there twice"
        );
        assert!(contents.len() >= acknowledged.len() + 2);
        // However much waited, one batch is no larger than its limit and the command that went beyond it.
        let longest = gate.state.lock().unwrap().longest_write;
        assert!(longest <= BATCH_BYTES_MAX + COMMAND_BYTES_MAX, "{longest}");
    });
}
