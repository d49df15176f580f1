//! A job whose streams are split and merged while producers write and while its process is killed, before, during and
//! right after the change, and right after a checkpoint that coincides with it.

use super::endpoint::{CREDENTIALS, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_tests::{Kinesis, Server, eventually};

const KEYS: usize = 13;
/// Rows that are put at once.
const ROWS: usize = 26;
/// The highest hash key.
const HASH_KEY_MAX: u128 = u128::MAX;

/// How the job gets at its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Embedded,
    Endpoint,
}

/// What is written exactly once to `exact`, and through an endpoint at least once to `there`.
fn job(access: Access, url: &str) -> String {
    let endpoint = match access {
        Access::Embedded => String::new(),
        Access::Endpoint => format!("'aws.endpoint' = '{url}', 'aws.region' = 'us-east-1',"),
    };
    let (source, sink) = match access {
        Access::Embedded => ("", ""),
        Access::Endpoint => (
            "'source.reader.empty-records-fetch-interval' = '10 ms', 'source.reader.nonempty-records-fetch-interval' = '5 ms',",
            "'sink.flush-buffer.timeout' = '20 ms',",
        ),
    };
    format!(
        "CREATE TABLE input (name STRING, n BIGINT) WITH (
           'connector' = 'kinesis', 'stream' = 'input', 'format' = 'json', {endpoint} {source}
           'source.init.position' = 'TRIM_HORIZON', 'source.shard.discovery.interval' = '100 ms'
         );
         CREATE TABLE exact (name STRING, n BIGINT) PARTITIONED BY (name)
         WITH ('connector' = 'kinesis', 'stream' = 'exact', 'format' = 'json');
         CREATE TABLE there (name STRING, n BIGINT) PARTITIONED BY (name)
         WITH ('connector' = 'kinesis', 'stream' = 'there', 'format' = 'json', {endpoint} {sink}
           'sink.delivery-guarantee' = 'at-least-once');
         INSERT INTO exact SELECT name, n FROM input;
         INSERT INTO there SELECT name, n FROM input;"
    )
}

/// Puts rows until it is told to stop; each key's rows are numbered from 0, and put in that order.
struct Producer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Producer {
    fn start(kinesis: Kinesis) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut rows = 0;
            while !stopped.load(Ordering::Relaxed) {
                let names: Vec<(String, Value)> = (rows..rows + ROWS)
                    .map(|row| {
                        let name = format!("key-{}", row % KEYS);
                        (name.clone(), json!({"name": name, "n": row / KEYS}))
                    })
                    .collect();
                let records: Vec<(&str, Value)> = names.iter().map(|(key, row)| (key.as_str(), row.clone())).collect();
                kinesis.put("input", &records).await;
                rows += ROWS;
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
            (rows / KEYS) as u64
        });
        Self { stop, task }
    }

    /// Returns how many rows each key has.
    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the producer puts all its rows")
    }
}

/// The open shards with their ranges of hash keys, in the order of the keys.
async fn open_shards(kinesis: &Kinesis, stream: &str) -> Vec<(String, u128, u128)> {
    let listed = kinesis.must("ListShards", &json!({ "StreamName": stream })).await;
    let key = |shard: &Value, name: &str| shard["HashKeyRange"][name].as_str().unwrap().parse::<u128>().unwrap();
    let mut open: Vec<(String, u128, u128)> = listed["Shards"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|shard| shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null())
        .map(|shard| {
            let id = shard["ShardId"].as_str().unwrap().to_owned();
            (id, key(shard, "StartingHashKey"), key(shard, "EndingHashKey"))
        })
        .collect();
    open.sort_by_key(|(_, start, _)| *start);
    assert_eq!(open.first().map(|shard| shard.1), Some(0));
    assert_eq!(open.last().map(|shard| shard.2), Some(HASH_KEY_MAX));
    open
}

/// Splits the first open shard, or merges the first two when there are more than two.
async fn reshard(kinesis: &Kinesis, stream: &str) {
    let open = open_shards(kinesis, stream).await;
    if open.len() > 2 {
        let body = json!({"StreamName": stream, "ShardToMerge": open[0].0, "AdjacentShardToMerge": open[1].0});
        kinesis.must("MergeShards", &body).await;
    } else {
        let (id, start, end) = &open[0];
        let middle = start + (end - start) / 2;
        let body = json!({"StreamName": stream, "ShardToSplit": id, "NewStartingHashKey": middle.to_string()});
        kinesis.must("SplitShard", &body).await;
    }
    eventually("the stream to be ACTIVE", || async {
        let body = json!({ "StreamName": stream });
        let summary = kinesis.must("DescribeStreamSummary", &body).await;
        (summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE").then_some(())
    })
    .await;
}

/// The newest checkpoint of the job's process; 0 when it has taken none yet.
async fn newest_checkpoint(server: &Server) -> u64 {
    let job = server.job("reshard").await;
    let newest = job["checkpoints"].as_array().and_then(|checkpoints| checkpoints.last());
    newest.and_then(|checkpoint| checkpoint["id"].as_u64()).unwrap_or(0)
}

/// Waits for a checkpoint that was begun after now.
async fn next_checkpoint(server: &Server) {
    let before = newest_checkpoint(server).await;
    eventually("a checkpoint", || async {
        (newest_checkpoint(server).await > before + 1).then_some(())
    })
    .await;
}

/// The rows of each key, in the order of the stream: shards are listed parents first.
async fn rows(kinesis: &Kinesis, stream: &str) -> BTreeMap<String, Vec<u64>> {
    let mut rows: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in kinesis.read_all(stream).await {
        let name = row["name"].as_str().expect("a name").to_owned();
        rows.entry(name).or_default().push(row["n"].as_u64().expect("a number"));
    }
    rows
}

/// Runs a job on streams that change all the time; what it writes must be exact.
async fn check(access: Access, parallelism: usize) {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--restart-delay-max", "200ms"];
    let server = Server::start_in(&directory.path().join("data"), &arguments, &CREDENTIALS);
    let kinesis = server.kinesis();
    for stream in ["input", "exact", "there"] {
        kinesis.create_stream(stream, 2).await;
    }
    let producer = Producer::start(kinesis.clone());
    let request = json!({
        "name": "reshard", "sql": job(access, server.url()), "parallelism": parallelism,
        "checkpoint_interval_ms": 60, "restart_attempts": 1_000_000,
    });
    let submitted = server.post("/v1/jobs", &request).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    server.wait_for_state("reshard", "running").await;
    let mut kills = 0;
    for round in 0..8 {
        next_checkpoint(&server).await;
        match round % 4 {
            // Down while the streams change.
            0 => {
                kill_process(&server).await;
                reshard(&kinesis, "input").await;
                reshard(&kinesis, "exact").await;
            }
            // At the same time.
            1 => {
                tokio::join!(
                    reshard(&kinesis, "input"),
                    reshard(&kinesis, "exact"),
                    kill_process(&server)
                );
            }
            // Right behind a change, before or while a checkpoint holds it.
            2 => {
                reshard(&kinesis, "input").await;
                kill_process(&server).await;
            }
            // Behind a checkpoint that coincides with it.
            _ => {
                tokio::join!(
                    reshard(&kinesis, "input"),
                    reshard(&kinesis, "there"),
                    next_checkpoint(&server)
                );
                kill_process(&server).await;
            }
        }
        kills += 1;
    }
    next_checkpoint(&server).await;
    let each = producer.finish().await;
    let exact = eventually("all rows exactly once", || async {
        let found = rows(&kinesis, "exact").await;
        let count: usize = found.values().map(Vec::len).sum();
        (count >= each as usize * KEYS).then_some(found)
    })
    .await;
    let all: Vec<u64> = (0..each).collect();
    assert_eq!(exact.len(), KEYS);
    for (name, mut numbers) in exact {
        // Workers write side by side: only one of them keeps the order of the shards that it reads.
        if parallelism > 1 {
            numbers.sort_unstable();
        }
        assert_eq!(numbers, all, "{name}");
    }
    let there = eventually("all rows at least once", || async {
        let mut found = rows(&kinesis, "there").await;
        // Of rows that were written again, the first time counts.
        for numbers in found.values_mut() {
            let mut seen = std::collections::BTreeSet::new();
            numbers.retain(|number| seen.insert(*number));
        }
        (found.values().map(Vec::len).sum::<usize>() >= each as usize * KEYS).then_some(found)
    })
    .await;
    for (name, mut numbers) in there {
        if parallelism > 1 {
            numbers.sort_unstable();
        }
        assert_eq!(numbers, all, "{name}");
    }
    let job = server.job("reshard").await;
    assert_eq!(job["state"], "running", "{job}");
    assert!(job["restarts"].as_u64() >= Some(kills), "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_killed_while_its_streams_are_split_and_merged_is_exact_and_keeps_the_order_of_keys() {
    check(Access::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_two_workers_that_is_killed_while_its_streams_are_split_and_merged_is_exact() {
    check(Access::Embedded, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_an_endpoint_a_job_that_is_killed_while_its_streams_change_is_exact_and_keeps_the_order_of_keys() {
    check(Access::Endpoint, 1).await;
}
