//! The job that is killed: clicks and cents per page in windows of one second, from a stream or a folder into a stream and into
//! Parquet files.

use super::clicks::{Clicks, count};
use super::client::Clients;
use super::reader::LiveReader;
use super::results::{assert_same, of_files, of_stream, total};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidemill_tests::process::children;
use tidemill_tests::{PATIENCE, Server, eventually};

/// The stream that is read.
pub(super) const INPUT: &str = "clicks";
/// The stream that is written.
pub(super) const OUTPUT: &str = "clicks_per_page";
/// The job's name.
pub(super) const NAME: &str = "clicks";

/// Where a test takes place.
#[derive(Debug)]
pub(super) struct Stage {
    directory: TempDir,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// The server's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of the Parquet files.
    pub(super) fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// Another directory or file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The job's text, with the stream as its input.
    pub(super) fn sql(&self) -> String {
        let source = format!("'connector' = 'kinesis', 'stream' = '{INPUT}', 'source.init.position' = 'TRIM_HORIZON'");
        sql(&source, &self.files())
    }

    /// The job's text, with a folder as its input.
    pub(super) fn sql_of_folder(&self, folder: &Path) -> String {
        let source = format!(
            "'connector' = 'filesystem', 'path' = '{}', 'source.monitor-interval' = '20 ms'",
            folder.display()
        );
        sql(&source, &self.files())
    }
}

fn sql(source: &str, files: &Path) -> String {
    let columns = "page STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), clicks BIGINT, cents BIGINT";
    let files = files.display();
    format!(
        "
CREATE TABLE clicks (page STRING, cents BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
WITH ({source}, 'format' = 'json');
CREATE TABLE per_page ({columns}) WITH ('connector' = 'kinesis', 'stream' = '{OUTPUT}', 'format' = 'json');
CREATE TABLE files ({columns}) WITH ('connector' = 'filesystem', 'path' = '{files}', 'format' = 'parquet');
CREATE VIEW counted AS SELECT page, window_start, window_end, COUNT(*) AS clicks, SUM(cents) AS cents
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY page, window_start, window_end;
INSERT INTO per_page SELECT page, window_start, window_end, clicks, cents FROM counted;
INSERT INTO files SELECT page, window_start, window_end, clicks, cents FROM counted;
"
    )
}

/// Options of a server whose jobs fail again and again in a short time.
pub(super) const IMPATIENT: &[&str] = &["--restart-delay-max", "100ms"];

/// Creates both streams.
pub(super) async fn create_streams(server: &Server) {
    server.kinesis().create_stream(INPUT, 4).await;
    server.kinesis().create_stream(OUTPUT, 2).await;
}

/// Submits the job.
pub(super) async fn submit(server: &Server, stage: &Stage, parallelism: usize, restore: Option<&str>) -> Value {
    let mut request = json!({
        "name": NAME, "sql": stage.sql(), "parallelism": parallelism, "checkpoint_interval_ms": 150,
        "restart_attempts": 1_000_000,
    });
    if let Some(restore) = restore {
        request["restore"] = restore.into();
    }
    let answer = server.post("/v1/jobs", &request).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    assert_eq!(answer.body["parallelism"], parallelism);
    answer.body
}

/// Stops the job in order, and shows it.
pub(super) async fn stop(server: &Server, how: &Value) -> Value {
    let stopped = server.post(&format!("/v1/jobs/{NAME}/stop"), how).await;
    assert_eq!(
        (stopped.status, &stopped.body["state"]),
        (200, &json!("stopped")),
        "{:?}",
        stopped.body
    );
    assert_eq!(children(server.pid()), [0; 0]);
    stopped.body
}

/// Waits until the job has published at least one checkpoint in its present process.
pub(super) async fn checkpointed(server: &Server) -> Value {
    let start = Instant::now();
    loop {
        let job = server.job(NAME).await;
        let has = job["checkpoints"]
            .as_array()
            .is_some_and(|checkpoints| !checkpoints.is_empty());
        if job["state"] == "running" && has {
            return job;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for a checkpoint: {job:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets all windows fire, stops the job after a final checkpoint, and compares both outputs with a recount of the stored input.
///
/// # Panics
/// When they differ, or when the live reader has seen anything else than a reader that begins now.
pub(super) async fn finish(server: &Server, clients: &Clients, stage: &Stage, clicks: Clicks, live: &LiveReader) {
    clicks.close(clients, INPUT).await;
    let input = clients.read_all(INPUT).await;
    assert!(
        input.iter().all(|(_, records)| records.len() > 1),
        "a shard without clicks"
    );
    let expected = count(
        input
            .iter()
            .map(|(_, records)| records.iter().map(|record| record.data.as_slice())),
    );
    let records: usize = input.iter().map(|(_, records)| records.len()).sum();
    eprintln!("{records} clicks, {} rows", expected.len());

    // What is missing after that long is told below.
    let start = Instant::now();
    let here = || live.count() as u64 >= total(&expected) && total(&of_files(&stage.files())) >= total(&expected);
    while !here() && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let job = server.wait_for_state(NAME, "running").await;
    stop(server, &json!({})).await;
    let output = clients.read_all(OUTPUT).await;
    let context = format!("\nthe job at the end: {job:#}");
    assert_same(
        &format!("{context}\nthe stream"),
        &expected,
        &of_stream(output.iter().flat_map(|(_, records)| records)),
    );
    assert_same(&format!("{context}\nthe files"), &expected, &of_files(&stage.files()));
    let count = output.iter().map(|(_, records)| records.len()).sum::<usize>();
    eventually("the live reader", || async { (live.count() >= count).then_some(()) }).await;
    assert!(
        live.seen() == output,
        "the live reader has seen something else than what is there"
    );
}
