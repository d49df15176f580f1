//! Segments of the streams' log that move to a real object store: everybody reads them back, whatever fails meanwhile.

use super::sql::COUNTS;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_checkpoints::doubles::{Cloud, Double};
use tidemill_tests::{Kinesis, PATIENCE, Server, binary, eventually};
use url::Url;

/// A server whose segments are small and move at once.
struct World {
    directory: tempfile::TempDir,
    /// Where they move, when it is no directory.
    cloud: Option<Double>,
    more: Vec<String>,
}

impl World {
    fn new(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("objects")).unwrap();
        Self {
            directory,
            cloud: None,
            more: more.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    fn in_cloud(cloud: Cloud, more: &[&str]) -> Self {
        Self {
            cloud: Some(Double::start(cloud)),
            ..Self::new(more)
        }
    }

    fn cloud(&self) -> &Double {
        self.cloud.as_ref().unwrap()
    }

    fn tier_url(&self) -> String {
        match &self.cloud {
            Some(cloud) => cloud.url("tier"),
            None => Url::from_file_path(self.objects()).unwrap().to_string(),
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn objects(&self) -> PathBuf {
        self.directory.path().join("objects")
    }

    fn start(&self) -> Server {
        let url = self.tier_url();
        let mut arguments = vec!["--store-tier-url", &url];
        arguments.extend(["--store-segment-bytes", "128KiB", "--store-check-interval", "50ms"]);
        arguments.extend(["--store-local-retention", "1ms"]);
        arguments.extend(self.more.iter().map(String::as_str));
        let environment = self.cloud.as_ref().map(Double::environment).unwrap_or_default();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        Server::start_in(&self.data(), &arguments, &environment)
    }

    /// What the server has logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.data().with_extension("log")).unwrap()
    }

    /// Segment files on the local disk.
    fn segments(&self) -> usize {
        let files = std::fs::read_dir(self.data().join("store")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".log")).count()
    }

    /// All objects but the store's mark.
    fn object_files(&self) -> BTreeSet<PathBuf> {
        let found = match &self.cloud {
            Some(cloud) => cloud
                .objects()
                .into_keys()
                .filter(|name| name.starts_with("tier/"))
                .map(PathBuf::from)
                .collect(),
            None => files(&self.objects()),
        };
        found
            .into_iter()
            .filter(|file| file.file_name().is_some_and(|name| name != "store"))
            .collect()
    }

    /// Waits until all segments that may move have moved, and what is not needed is deleted.
    async fn settled(&self, server: &Server) -> u64 {
        let found = std::cell::RefCell::new(String::new());
        let look = || async {
            let objects = metric(server, "tidemill_store_tiered_objects").await;
            let garbage = metric(server, "tidemill_store_tier_garbage").await;
            let (segments, files) = (self.segments(), self.object_files().len());
            *found.borrow_mut() = format!("{segments} segments, {objects} objects, {garbage} garbage, {files} files");
            (segments <= 4 && garbage == 0 && files as u64 == objects && objects > 0).then_some(objects)
        };
        let start = std::time::Instant::now();
        loop {
            if let Some(objects) = look().await {
                return objects;
            }
            let found = found.borrow().clone();
            assert!(
                start.elapsed() < PATIENCE,
                "{found}, {:?}",
                files(self.directory.path())
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path());
        }
    }
    found
}

async fn metric(server: &Server, name: &str) -> u64 {
    let answer = tidemill_tests::server::http_client()
        .get(format!("{}/metrics", server.url()))
        .send()
        .await
        .unwrap();
    let text = answer.text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    let value = line.unwrap_or_else(|| panic!("{name} is missing")).rsplit(' ').next();
    value.unwrap().parse::<f64>().unwrap() as u64
}

/// A click of a page in a second of an hour, large enough to fill segments.
fn click(page: &str, second: u32) -> Value {
    let ts = format!("2026-01-01 00:{:02}:{:02}.000", second / 60, second % 60);
    json!({"page": page, "ts": ts, "padding": format!("{second:01500}")})
}

fn clicks(seconds: std::ops::Range<u32>) -> Vec<(&'static str, Value)> {
    seconds
        .flat_map(|second| ["/a", "/b"].map(|page| (page, click(page, second))))
        .collect()
}

/// Puts a few at a time: a large batch makes one large segment.
async fn put(kinesis: &Kinesis, records: &[(&str, Value)]) {
    for records in records.chunks(20) {
        kinesis.put("clicks", records).await;
    }
}

fn sorted(records: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut texts: Vec<String> = records.into_iter().map(|record| record.to_string()).collect();
    texts.sort();
    texts
}

/// One answer from a place in a shard.
async fn get(kinesis: &Kinesis, from: Value) -> (u16, Vec<Value>) {
    let iterator = kinesis.must("GetShardIterator", &from).await["ShardIterator"].clone();
    let (status, answer) = kinesis.call("GetRecords", &json!({ "ShardIterator": iterator })).await;
    (status, answer["Records"].as_array().cloned().unwrap_or_default())
}

fn oldest(stream: &str) -> Value {
    json!({ "StreamName": stream, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON" })
}

#[tokio::test]
async fn records_that_moved_are_read_back_over_http_by_a_job_and_by_tail() {
    let world = World::new(&[]);
    let mut server = world.start();
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 2).await;
    kinesis.create_stream("counts", 1).await;
    let all = clicks(0..600);
    put(&kinesis, &all).await;
    let expected = sorted(all.into_iter().map(|(_, record)| record));
    assert!(world.settled(&server).await >= 10);

    for kill in [false, true] {
        if kill {
            server.kill();
            server = world.start();
        }
        let found = server.kinesis().read_all("clicks").await;
        assert_eq!(sorted(found), expected);
    }

    // A process of its own, which has no access to the objects.
    let job = json!({"name": "counts", "sql": COUNTS, "parallelism": 2, "checkpoint_interval_ms": 200});
    let submitted = server.post("/v1/jobs", &job).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let kinesis = server.kinesis();
    let rows = eventually("the counts of all windows but the open ones", || async {
        let rows = kinesis.read_all("counts").await;
        (rows.len() >= 2 * 598).then_some(rows)
    })
    .await;
    assert!(rows.iter().all(|row| row["clicks"] == 1), "{rows:?}");

    let tail = Command::new(binary())
        .args(["stream", "tail", "clicks", "--from", "trim-horizon", "--no-follow"])
        .env("TIDEMILL_SERVER", server.url())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(tail.status.success(), "{}", String::from_utf8_lossy(&tail.stderr));
    let lines = String::from_utf8(tail.stdout).unwrap();
    let printed = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    assert_eq!(sorted(printed), expected);
}

/// Segments and checkpoints in one bucket, with the server killed in between and the cloud away for a while.
#[tokio::test(flavor = "multi_thread")]
async fn segments_and_checkpoints_in_a_cloud_outlive_the_server_and_a_cloud_that_is_away() {
    for cloud in Cloud::ALL {
        let mut world = World::in_cloud(cloud, &[]);
        let checkpoints = world.cloud().url("checkpoints");
        world.more = vec!["--checkpoint-url".to_owned(), checkpoints];
        let mut server = world.start();
        let kinesis = server.kinesis();
        kinesis.create_stream("clicks", 2).await;
        kinesis.create_stream("counts", 1).await;
        let mut all = clicks(0..300);
        put(&kinesis, &all).await;
        let job = json!({"name": "counts", "sql": COUNTS, "checkpoint_interval_ms": 100});
        let submitted = server.post("/v1/jobs", &job).await;
        assert_eq!(submitted.status, 201, "{:?}", submitted.body);
        assert!(world.settled(&server).await >= 5);
        let decided = || {
            world
                .cloud()
                .objects()
                .into_keys()
                .any(|name| name.contains("/checkpoint/"))
        };
        eventually("a checkpoint in the cloud", || async { decided().then_some(()) }).await;

        server.kill();
        // Before the next one reads anything, for what was read is kept for a while.
        world.cloud().set_away(true);
        server = world.start();
        let kinesis = server.kinesis();
        assert_eq!(get(&kinesis, oldest("clicks")).await.0, 500);
        let more = clicks(300..600);
        put(&kinesis, &more).await;
        all.extend(more);
        world.cloud().set_away(false);
        world.settled(&server).await;
        let expected = sorted(all.into_iter().map(|(_, record)| record));
        assert_eq!(sorted(kinesis.read_all("clicks").await), expected);
        // Each window once, although the server was killed and the job could not keep checkpoints.
        let rows = eventually("the counts of all windows but the open ones", || async {
            let rows = kinesis.read_all("counts").await;
            (rows.len() >= 2 * 598).then_some(rows)
        })
        .await;
        let windows: BTreeSet<String> = rows.iter().map(Value::to_string).collect();
        assert_eq!(windows.len(), rows.len(), "{cloud:?}");
        assert!(rows.iter().all(|row| row["clicks"] == 1), "{rows:?}");
        assert!(server.terminate().success());
        assert_eq!(world.cloud().uploads(), 0);
        assert!(world.cloud().odd().is_empty(), "{cloud:?}: {:?}", world.cloud().odd());
    }
}

#[tokio::test]
async fn a_job_that_runs_alone_reads_what_a_server_has_moved() {
    let world = World::new(&[]);
    let mut server = world.start();
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 1).await;
    put(&kinesis, &clicks(0..300)).await;
    world.settled(&server).await;
    assert!(server.terminate().success());
    let output = world.directory.path().join("output");
    let sql = format!(
        "CREATE TABLE clicks (page STRING, ts TIMESTAMP(3))
         WITH ('connector' = 'kinesis', 'stream' = 'clicks', 'source.init.position' = 'TRIM_HORIZON', 'format' = 'json');
         CREATE TABLE output (page STRING) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
         INSERT INTO output SELECT page FROM clicks;",
        output.display()
    );
    let text = world.directory.path().join("job.sql");
    std::fs::write(&text, sql).unwrap();
    let url = world.tier_url();
    let mut job = Command::new(binary());
    job.args([
        "run",
        "--checkpoint-interval",
        "200ms",
        "--store-segment-bytes",
        "128KiB",
    ]);
    job.args(["--store-tier-url", &url, "--data-dir"])
        .arg(world.data())
        .arg(&text);
    let mut job = job.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lines = eventually("all rows", || async {
        let lines: usize = files(&output)
            .iter()
            .filter(|file| file.parent() == Some(&output))
            .map(|file| std::fs::read_to_string(file).unwrap_or_default().lines().count())
            .sum();
        (lines >= 600).then_some(lines)
    })
    .await;
    tidemill_tests::process::signal(job.id(), nix::sys::signal::Signal::SIGTERM);
    job.wait().unwrap();
    assert_eq!(lines, 600);
}

/// Puts numbered records until it is stopped or the server is gone; gives those that were acknowledged.
async fn put_until(kinesis: Kinesis, first: u64, stop: Arc<AtomicBool>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let mut number = first;
    while !stop.load(Ordering::SeqCst) {
        let numbers: Vec<u64> = (number..number + 10).collect();
        number += 10;
        let records: Vec<Value> = numbers
            .iter()
            .map(|number| {
                let data = json!({"number": number, "padding": format!("{number:01000}")});
                json!({"PartitionKey": "k", "Data": BASE64.encode(data.to_string())})
            })
            .collect();
        let request = json!({"StreamName": "s", "Records": records});
        // When the server is killed the call panics, and so ends its task.
        let call = tokio::spawn({
            let kinesis = kinesis.clone();
            async move { kinesis.call("PutRecords", &request).await }
        });
        match call.await {
            Ok((200, answer)) if answer["FailedRecordCount"] == 0 => acknowledged.extend(numbers),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    acknowledged
}

async fn numbers(kinesis: &Kinesis, stream: &str) -> Vec<u64> {
    let records = kinesis.read_all(stream).await;
    records
        .iter()
        .map(|record| record["number"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_while_segments_move_and_are_read_loses_nothing_and_leaves_nothing() {
    sigkill_while_segments_move(&World::new(&[]), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_while_segments_move_to_a_cloud_loses_nothing_and_leaves_nothing() {
    for cloud in Cloud::ALL {
        let world = World::in_cloud(cloud, &[]);
        sigkill_while_segments_move(&world, 4).await;
        assert!(world.cloud().odd().is_empty(), "{:?}", world.cloud().odd());
    }
}

async fn sigkill_while_segments_move(world: &World, rounds: u64) {
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let mut server = world.start();
        if round == 0 {
            server.kinesis().create_stream("s", 1).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let putting = tokio::spawn(put_until(server.kinesis(), round * 1_000_000, stop.clone()));
        let reading = tokio::spawn({
            let kinesis = server.kinesis();
            async move {
                loop {
                    let _ = get(&kinesis, oldest("s")).await;
                }
            }
        });
        // Killed as soon as an object appears, or is being written, that was not there before: it is uploaded, and what
        // follows is done or not. In other rounds a few objects later.
        let before = world.object_files();
        let more = 1 + round as usize % 4 * 3;
        while world.object_files().difference(&before).count() < more {
            assert!(!putting.is_finished());
            tokio::task::yield_now().await;
        }
        server.kill();
        stop.store(true, Ordering::SeqCst);
        acknowledged.extend(putting.await.unwrap());
        reading.abort();
        let _ = reading.await;
    }
    let server = world.start();
    world.settled(&server).await;
    let found = numbers(&server.kinesis(), "s").await;
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    let found: BTreeSet<u64> = found.into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|number| !found.contains(number)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(acknowledged.len() > 1_000, "{}", acknowledged.len());
    let half_written = files(&world.objects());
    assert!(
        !half_written.iter().any(|file| file.to_string_lossy().contains('#')),
        "{half_written:?}"
    );
}

#[tokio::test]
async fn an_object_store_that_is_away_delays_reads_of_the_past_and_loses_nothing() {
    let world = World::new(&["--store-max-bytes", "1MiB"]);
    let server = world.start();
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 1).await;
    kinesis.create_stream("counts", 1).await;
    let first = clicks(0..200);
    put(&kinesis, &first).await;
    world.settled(&server).await;

    let away = world.directory.path().join("away");
    std::fs::rename(world.objects(), &away).unwrap();
    assert_eq!(get(&kinesis, oldest("clicks")).await.0, 500);
    assert!(world.log().contains("is the place mounted"), "{}", world.log());
    // The newest records are on the local disk, and more are taken, as far as the bound of the disk goes.
    let job = json!({"name": "counts", "sql": COUNTS, "checkpoint_interval_ms": 200});
    let submitted = server.post("/v1/jobs", &job).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let mut second = 200;
    let refused = loop {
        let (page, record) = ("/a", click("/a", second));
        let data = BASE64.encode(record.to_string());
        let request = json!({"StreamName": "clicks", "PartitionKey": page, "Data": data});
        let (status, answer) = kinesis.call("PutRecord", &request).await;
        if status != 200 {
            break status;
        }
        let place = json!({"StreamName": "clicks", "ShardId": answer["ShardId"],
            "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": answer["SequenceNumber"]});
        let (status, records) = get(&kinesis, place).await;
        assert_eq!((status, records.len()), (200, 1));
        second += 1;
        assert!(second < 2_000, "the bound is never reached");
    };
    assert_eq!(refused, 500);
    assert!(second > 250, "{second}");
    assert!(
        world
            .log()
            .contains("could be moved to the object store (is it reachable?)"),
        "{}",
        world.log()
    );
    let bytes = metric(&server, "tidemill_store_log_bytes").await;
    assert!(bytes <= 1 << 20, "{bytes}");
    assert!(metric(&server, "tidemill_store_tier_failures_total").await > 0);

    std::fs::remove_dir_all(world.objects()).ok();
    std::fs::rename(&away, world.objects()).unwrap();
    // Whoever tries again gets on.
    let last = [("/b", click("/b", second))];
    let request = json!({"StreamName": "clicks", "PartitionKey": "/b", "Data": BASE64.encode(last[0].1.to_string())});
    eventually("a put to be taken", || async {
        (kinesis.call("PutRecord", &request).await.0 == 200).then_some(())
    })
    .await;
    let mut expected: Vec<Value> = first.into_iter().map(|(_, record)| record).collect();
    expected.extend((200..second).map(|second| click("/a", second)));
    expected.push(last[0].1.clone());
    assert_eq!(sorted(kinesis.read_all("clicks").await), sorted(expected));
    // The job has read nothing but what is there, each once.
    let rows = eventually("the counts", || async {
        let rows = kinesis.read_all("counts").await;
        (rows.len() as u32 >= 2 * 200 + second - 200 - 1).then_some(rows)
    })
    .await;
    assert!(rows.iter().all(|row| row["clicks"] == 1), "{rows:?}");
}

#[tokio::test]
async fn an_object_that_is_damaged_or_deleted_is_named_and_the_rest_is_read() {
    let world = World::new(&[]);
    let mut server = world.start();
    let kinesis = server.kinesis();
    kinesis.create_stream("s", 1).await;
    kinesis.create_stream("other", 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let putting = tokio::spawn(put_until(kinesis.clone(), 0, stop.clone()));
    eventually("objects", || async { (world.object_files().len() >= 8).then_some(()) }).await;
    stop.store(true, Ordering::SeqCst);
    let acknowledged = putting.await.unwrap();
    kinesis.put("other", &clicks(0..10)).await;
    world.settled(&server).await;
    let mut places: BTreeMap<u64, Value> = BTreeMap::new();
    let mut iterator = kinesis.must("GetShardIterator", &oldest("s")).await["ShardIterator"].clone();
    while places.len() < acknowledged.len() {
        let answer = kinesis.must("GetRecords", &json!({ "ShardIterator": iterator })).await;
        for record in answer["Records"].as_array().unwrap() {
            let data = BASE64.decode(record["Data"].as_str().unwrap()).unwrap();
            let data: Value = serde_json::from_slice(&data).unwrap();
            places.insert(data["number"].as_u64().unwrap(), record["SequenceNumber"].clone());
        }
        iterator = answer["NextShardIterator"].clone();
    }

    let objects: Vec<PathBuf> = world.object_files().into_iter().collect();
    let (flipped, deleted) = (&objects[2], &objects[5]);
    let mut bytes = std::fs::read(flipped).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(flipped, bytes).unwrap();
    std::fs::remove_file(deleted).unwrap();
    server.kill();
    let server = world.start();
    let kinesis = server.kinesis();
    let (mut sound, mut broken) = (0, 0);
    for (number, sequence) in &places {
        let place = json!({"StreamName": "s", "ShardId": "shardId-000000000000",
            "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence});
        let (status, records) = get(&kinesis, place).await;
        match status {
            200 => {
                let data = BASE64.decode(records[0]["Data"].as_str().unwrap()).unwrap();
                let data: Value = serde_json::from_slice(&data).unwrap();
                assert_eq!(data["number"], *number);
                sound += 1;
            }
            status => {
                assert_eq!(status, 500);
                broken += 1;
            }
        }
    }
    assert!(broken > 0 && sound > broken, "{sound} {broken}");
    let log = world.log();
    for object in [flipped, deleted] {
        let name = object.file_name().unwrap().to_string_lossy();
        let told = log.lines().any(|line| {
            line.contains(&*name) && line.contains("s/shardId-000000000000") && line.contains("is damaged at bytes")
        });
        assert!(told, "{name} is not told:\n{log}");
    }
    assert_eq!(kinesis.read_all("other").await.len(), 20);
    kinesis.put("s", &[("k", json!({"number": 0}))]).await;
}
