//! The store killed with SIGKILL under load: a child process puts records and tells which are acknowledged; whatever it
//! told is there afterwards, in order, under its sequence number.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tidemill_shards::{ReadFrom, SequenceNumber, ShardStore, StoreOptions};

use crate::support::*;

const DIRECTORY: &str = "TIDEMILL_SHARDS_KILL_DIRECTORY";
const PUTTERS: usize = 32;
const SHARDS: u32 = 2;

fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 512 << 10,
        ..StoreOptions::default()
    }
}

/// Runs in the child: puts until it is killed.
#[test]
#[ignore = "the child process of acknowledged_records_survive_sigkill"]
fn child_that_puts_until_it_is_killed() {
    let directory = std::env::var(DIRECTORY).expect("set by the parent");
    block_on(async {
        let store = ShardStore::open(Path::new(&directory), options()).unwrap();
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

        let store = ShardStore::open(directory.path(), options()).unwrap();
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
}
