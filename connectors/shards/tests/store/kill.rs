//! The store killed with SIGKILL under load: a child process puts records and tells which are acknowledged; whatever it
//! told is there afterwards, in order, under its sequence number; also when segments move to objects all the while.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use tidemill_shards::{
    ObjectTier, ReadFrom, RetentionOptions, SequenceNumber, ShardStore, StoreOptions, StoreUsage, TierError,
};

use crate::support::*;

const DIRECTORY: &str = "TIDEMILL_SHARDS_KILL_DIRECTORY";
const TIER: &str = "TIDEMILL_SHARDS_KILL_TIER";
const PUTTERS: usize = 32;
const SHARDS: u32 = 2;

/// Smaller segments with a tier, so that many of them move.
fn options(tier: Option<&Path>) -> StoreOptions {
    StoreOptions {
        segment_bytes: if tier.is_some() { 64 << 10 } else { 512 << 10 },
        retention: RetentionOptions {
            check_interval_ms: 20,
            local_retention_ms: 0,
            ..RetentionOptions::default()
        },
        ..StoreOptions::default()
    }
}

/// Objects as files of a directory.
struct Files(PathBuf);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name.replace('/', "_"))
    }
}

fn unavailable(error: std::io::Error) -> TierError {
    match error.kind() {
        std::io::ErrorKind::NotFound => TierError::NotFound,
        _ => TierError::Unavailable(error.to_string()),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "objects of a test; nothing but this process is killed"
)]
impl ObjectTier for Files {
    fn create(&self, name: &str, bytes: Bytes) -> Result<(), TierError> {
        let path = self.path(name);
        if name.ends_with("/store") && path.exists() {
            return Ok(());
        }
        assert!(!path.exists(), "a name is used once");
        let unfinished = path.with_extension("tmp");
        std::fs::write(&unfinished, &bytes).map_err(unavailable)?;
        std::fs::rename(&unfinished, &path).map_err(unavailable)
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, TierError> {
        let bytes = Bytes::from(std::fs::read(self.path(name)).map_err(unavailable)?);
        let end = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(end)..end))
    }

    fn delete(&self, name: &str) -> Result<(), TierError> {
        match std::fs::remove_file(self.path(name)).map_err(unavailable) {
            Ok(()) | Err(TierError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}

fn open_at(directory: &Path, tier: Option<&Path>) -> ShardStore {
    let opened = match tier {
        Some(objects) => ShardStore::open_with_tier(directory, options(tier), Arc::new(Files(objects.to_owned()))),
        None => ShardStore::open(directory, options(tier)),
    };
    opened.unwrap()
}

/// Runs in the child: puts until it is killed.
#[test]
#[ignore = "the child process of acknowledged_records_survive_sigkill"]
fn child_that_puts_until_it_is_killed() {
    let directory = std::env::var(DIRECTORY).expect("set by the parent");
    block_on(async {
        let store = open_at(
            Path::new(&directory),
            std::env::var(TIER).ok().as_deref().map(Path::new),
        );
        if store.describe_stream(&name("s")).is_err() {
            create(&store, "s", SHARDS).await;
        }
        let generation = store.list_streams()[0].created_ms ^ store.now_ms();
        let putters: Vec<_> = (0..PUTTERS)
            .map(|putter| {
                let store = store.clone();
                tokio::spawn(async move {
                    for index in 0.. {
                        let data = format!("{generation}/{putter}/{index}/{}", "x".repeat(index % 2000));
                        let receipt = put(&store, "s", &format!("{putter}"), data.clone()).await;
                        let line = format!("ack {} {} {data}\n", receipt.shard.0, receipt.sequence);
                        // One write per line, so that a kill cannot mix them.
                        std::io::stderr().write_all(line.as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for putter in putters {
            putter.await.unwrap();
        }
    });
}

#[test]
fn acknowledged_records_survive_sigkill() {
    kill_again_and_again(None);
}

#[test]
fn acknowledged_records_survive_sigkill_while_segments_move_to_objects() {
    let objects = tempfile::tempdir().unwrap();
    let usage = kill_again_and_again(Some(objects.path()));
    assert!(usage.tiered_objects > 0, "{usage:?}");
    // Nothing is left over that the log does not name.
    let left = std::fs::read_dir(objects.path()).unwrap();
    let left = left
        .filter(|file| file.as_ref().unwrap().path().extension().is_none())
        .count();
    assert_eq!(left as u64, usage.tiered_objects + 1, "and the mark");
}

fn kill_again_and_again(tier: Option<&Path>) -> StoreUsage {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<(u32, SequenceNumber), String> = BTreeMap::new();
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kill::child_that_puts_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(DIRECTORY, directory.path())
            .envs(tier.map(|tier| (TIER, tier)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut count = 0;
        while let Some(Ok(line)) = lines.next() {
            // Killed after another number of acknowledgements each time; what is still in the pipe counts as well.
            if let Some(acknowledgement) = line.strip_prefix("ack ") {
                let mut parts = acknowledgement.splitn(3, ' ');
                let shard = parts.next().unwrap().parse().unwrap();
                let (sequence, data) = (parts.next(), parts.next());
                if let (Some(sequence), Some(data)) = (sequence, data)
                    && let Ok(sequence) = sequence.parse()
                {
                    assert_eq!(
                        acknowledged.insert((shard, sequence), data.to_owned()),
                        None,
                        "a number was given twice"
                    );
                }
                count += 1;
                if count == 100 + round * 137 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(count >= 100, "round {round}: the child ended by itself");

        let store = open_at(directory.path(), tier);
        assert!(store.damage().is_empty());
        let mut found = BTreeMap::new();
        for id in 0..SHARDS {
            let shard = shard("s", id);
            let from = store.resolve(&shard, ReadFrom::TrimHorizon).unwrap();
            let records = read_from(&store, &shard, from).unwrap();
            assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
            found.extend(records.iter().map(|record| (id, record.sequence)).zip(texts(&records)));
        }
        for (place, data) in &acknowledged {
            assert_eq!(found.get(place), Some(data), "round {round}");
        }
    }
    let store = open_at(directory.path(), tier);
    block_on(async {
        // Twice: what the first round finds to be garbage the second one deletes at the latest.
        for _ in 0..2 {
            store.tier().await.unwrap();
        }
    });
    store.usage()
}
