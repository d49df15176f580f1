//! `tidemill run` more than once under one name, and what becomes of its output when its checkpoints are deleted.

use super::sql::ENDLESS;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tidemill_tests::process::signal;
use tidemill_tests::{Server, binary, eventually};

/// Copies the numbers of a folder into a stream and into another folder.
fn copy(root: &Path, source_options: &str) -> String {
    let path = |name: &str| root.join(name).display().to_string();
    format!(
        "CREATE TABLE numbers (n BIGINT)
         WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json'{source_options});
         CREATE TABLE stream (n BIGINT) WITH ('connector' = 'kinesis', 'stream' = 'numbers', 'format' = 'json');
         CREATE TABLE files (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO stream SELECT n FROM numbers;
         INSERT INTO files SELECT n FROM numbers;",
        path("in"),
        path("out"),
    )
}

struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    /// Makes a data directory with the stream `numbers`, an input folder and the job's text.
    async fn new(source_options: &str) -> Self {
        let stage = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let mut server = Server::start(&stage.data());
        server.kinesis().create_stream("numbers", 2).await;
        assert!(server.terminate().success());
        std::fs::create_dir(stage.path("in")).unwrap();
        std::fs::write(stage.path("copy.sql"), copy(stage.directory.path(), source_options)).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Adds an input file that appears whole.
    fn add(&self, name: &str, numbers: std::ops::Range<i64>) {
        let text: String = numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect();
        std::fs::write(self.path("draft"), text).unwrap();
        std::fs::rename(self.path("draft"), self.path("in").join(name)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(self.path("copy.sql"))
            .arg("--data-dir")
            .arg(self.data());
        command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs the job to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn run_well(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
    }

    /// Returns how often each number is in the files.
    fn in_files(&self) -> BTreeMap<i64, u32> {
        let mut found = BTreeMap::new();
        let Ok(entries) = std::fs::read_dir(self.path("out")) else {
            return found;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read_to_string(path).unwrap();
                add_all(&mut found, text.lines().map(|line| serde_json::from_str(line).unwrap()));
            }
        }
        found
    }

    /// Returns how often each number is in the stream.
    async fn in_stream(&self) -> BTreeMap<i64, u32> {
        let mut server = Server::start(&self.data());
        let mut found = BTreeMap::new();
        add_all(&mut found, server.kinesis().read_all("numbers").await.into_iter());
        assert!(server.terminate().success());
        found
    }

    async fn check(&self, expected: &BTreeMap<i64, u32>, when: &str) {
        assert_eq!(&self.in_files(), expected, "the files {when}");
        assert_eq!(&self.in_stream().await, expected, "the stream {when}");
    }
}

fn add_all(found: &mut BTreeMap<i64, u32>, rows: impl Iterator<Item = Value>) {
    for row in rows {
        *found.entry(row["n"].as_i64().unwrap()).or_default() += 1;
    }
}

/// The numbers of each range, as often as it is given.
fn times(ranges: &[(std::ops::Range<i64>, u32)]) -> BTreeMap<i64, u32> {
    ranges
        .iter()
        .flat_map(|(numbers, times)| numbers.clone().map(|n| (n, *times)))
        .collect()
}

#[tokio::test]
async fn a_bounded_job_whose_checkpoints_were_deleted_writes_all_its_rows_again() {
    let stage = Stage::new("").await;
    stage.add("a.json", 0..100);
    stage.run_well(&[]);
    stage.check(&times(&[(0..100, 1)]), "after the first run").await;
    // With its checkpoints it has nothing left to do.
    stage.run_well(&[]);
    stage.check(&times(&[(0..100, 1)]), "after a second start").await;

    std::fs::remove_dir_all(stage.data().join("checkpoints/copy")).unwrap();
    stage.add("b.json", 100..110);
    stage.run_well(&["--parallelism", "2"]);
    stage
        .check(&times(&[(0..100, 2), (100..110, 1)]), "after a run without checkpoints")
        .await;
    stage.run_well(&[]);
    stage
        .check(&times(&[(0..100, 2), (100..110, 1)]), "after its second start")
        .await;
    // And once more, for two runs could still differ by luck.
    std::fs::remove_dir_all(stage.data().join("checkpoints")).unwrap();
    stage.run_well(&[]);
    stage
        .check(&times(&[(0..100, 3), (100..110, 2)]), "after a third run")
        .await;
}

/// A job that runs until it is told to stop. Dropping it kills it.
struct Running(Child);

impl Running {
    fn start(stage: &Stage, arguments: &[&str]) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(stage.path("log"))
            .unwrap();
        let mut command = stage.command(arguments);
        Self(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    async fn stop_when_written(mut self, stage: &Stage, expected: &BTreeMap<i64, u32>) {
        eventually("the rows", || async { (stage.in_files() == *expected).then_some(()) }).await;
        signal(self.0.id(), nix::sys::signal::Signal::SIGTERM);
        assert!(
            self.0.wait().unwrap().success(),
            "{}",
            std::fs::read_to_string(stage.path("log")).unwrap()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_run_whose_name_another_run_has_taken_is_refused_until_it_is_restored_by_choice() {
    let stage = Stage::new(", 'source.monitor-interval' = '50 ms'").await;
    let (of_first, of_second) = (stage.path("first"), stage.path("second"));
    let url = |path: &Path| format!("file://{}", path.display());
    let (url_1, url_2) = (url(&of_first), url(&of_second));
    let first = ["--checkpoint-interval", "100ms", "--checkpoint-url", &url_1];
    let second = ["--checkpoint-interval", "100ms", "--checkpoint-url", &url_2];
    stage.add("a.json", 0..10);
    Running::start(&stage, &first)
        .stop_when_written(&stage, &times(&[(0..10, 1)]))
        .await;
    let published = std::fs::read_dir(of_first.join("copy/committed")).unwrap();
    let published = published.filter_map(|entry| entry.unwrap().path().file_stem()?.to_str()?.parse::<u64>().ok());
    let published = published.max().unwrap();
    // The same name, but checkpoints of its own.
    Running::start(&stage, &second)
        .stop_when_written(&stage, &times(&[(0..10, 2)]))
        .await;

    stage.add("b.json", 10..20);
    for _ in 0..2 {
        let refused = stage.run(&first);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("another run of copy"), "{told}");
        stage.check(&times(&[(0..10, 2)]), "after a refusal").await;
    }
    let restore = format!("checkpoint/{published}");
    let chosen = [&first[..], &["--restore", &restore]].concat();
    let expected = times(&[(0..10, 2), (10..20, 1)]);
    Running::start(&stage, &chosen)
        .stop_when_written(&stage, &expected)
        .await;
    stage.check(&expected, "after the restore").await;
    // From here on it continues as ever, and the second one is over.
    stage.add("c.json", 20..30);
    let expected = times(&[(0..10, 2), (10..30, 1)]);
    Running::start(&stage, &first)
        .stop_when_written(&stage, &expected)
        .await;
    assert!(!stage.run(&second).status.success());
    stage.check(&expected, "at the end").await;
}

#[tokio::test]
async fn a_job_whose_checkpoints_are_deleted_while_it_runs_fails_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let request = json!({"name": "endless", "sql": ENDLESS, "checkpoint_interval_ms": 100});
    let submitted = server.post("/v1/jobs", &request).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    server.wait_for_state("endless", "running").await;
    let checkpoints = data.join("checkpoints").join(submitted.body["id"].as_str().unwrap());
    let committed = checkpoints.join("committed");
    eventually("a checkpoint", || async { committed.read_dir().ok()?.next().map(drop) }).await;
    // As one would by hand; what the running job adds meanwhile is no obstacle.
    std::fs::rename(&checkpoints, directory.path().join("deleted")).unwrap();
    let job = server.wait_for_state("endless", "failed").await;
    let told = job["last_error"].to_string();
    assert!(told.contains("were deleted while it runs"), "{job}");
    assert_eq!(job["restarts"], 0, "{job}");
}
