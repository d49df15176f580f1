//! `tidemill run` killed and started again, each time with another number of workers, while files come into the folder it reads.

use super::clicks::{Clicks, count};
use super::client::Clients;
use super::job::{OUTPUT, Stage, create_streams};
use super::random::Random;
use super::results::{assert_same, of_files, of_stream, total};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tidemill_tests::process::signal;
use tidemill_tests::{PATIENCE, Server, binary};
use tokio::sync::watch;

const ROUNDS: usize = 9;
/// A kill comes at most that long after the start.
const LIFE_MS: u64 = 1_500;

/// A job in the foreground. Dropping it kills it.
struct Foreground {
    child: Child,
    log: PathBuf,
}

impl Foreground {
    fn start(stage: &Stage, text: &Path, parallelism: usize) -> Self {
        let log = stage.path("run.log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(text)
            .arg("--data-dir")
            .arg(stage.data())
            .args(["--checkpoint-interval", "100ms"]);
        command
            .args(["--parallelism", &parallelism.to_string()])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::from(stderr))
            .spawn()
            .expect("the binary starts");
        Self { child, log }
    }

    fn kill(&mut self) {
        let ended = self.child.try_wait().expect("a status");
        assert_eq!(ended, None, "it ended by itself");
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), Signal::SIGTERM);
        self.child.wait().expect("it can be waited for")
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "---- the job's log ----\n{}",
                std::fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }
}

/// Writes clicks into a file that appears whole.
fn write(folder: &Path, number: usize, clicks: impl IntoIterator<Item = Value>) {
    let text: String = clicks.into_iter().map(|click| format!("{click}\n")).collect();
    let (hidden, visible) = (
        folder.join(format!(".{number:06}")),
        folder.join(format!("{number:06}.json")),
    );
    std::fs::write(&hidden, text).expect("a file is written");
    std::fs::rename(&hidden, &visible).expect("a file appears");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_in_the_foreground_that_is_killed_and_started_again_is_exact() {
    let mut random = Random::from_environment("a job in the foreground");
    let stage = Stage::new();
    let mut server = Server::start(&stage.data());
    create_streams(&server).await;
    assert!(server.terminate().success());
    let folder = stage.path("in");
    std::fs::create_dir(&folder).expect("a folder");
    let text = stage.path("clicks.sql");
    std::fs::write(&text, stage.sql_of_folder(&folder)).expect("a file");

    let (stop, mut stopped) = watch::channel(false);
    let (into, seed) = (folder.clone(), random.split());
    let producer = tokio::spawn(async move {
        let mut clicks = Clicks::new(seed);
        for number in 0.. {
            if tokio::time::timeout(Duration::from_millis(50), stopped.wait_for(|&stopped| stopped))
                .await
                .is_ok()
            {
                write(&into, number, [clicks.closing()]);
                break;
            }
            write(&into, number, clicks.batch().into_iter().map(|(_, click)| click));
        }
    });
    for round in 0..ROUNDS {
        let mut job = Foreground::start(&stage, &text, 1 + round % 3);
        random.moment(LIFE_MS).await;
        job.kill();
    }
    let mut job = Foreground::start(&stage, &text, 2);
    stop.send_replace(true);
    producer.await.expect("the producer");

    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let texts: Vec<String> = files
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("a file"))
        .collect();
    // One file after the other is one shard.
    let expected = count([texts.iter().flat_map(|text| text.lines()).map(str::as_bytes)]);
    eprintln!("{} files, {} rows", files.len(), expected.len());
    let start = std::time::Instant::now();
    while total(&of_files(&stage.files())) < total(&expected) && start.elapsed() < PATIENCE {
        assert_eq!(job.child.try_wait().expect("a status"), None, "the job has failed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(job.terminate().success(), "it did not stop in order");
    assert_same("the files", &expected, &of_files(&stage.files()));
    let server = Server::start(&stage.data());
    let output = Clients::new(server.url()).read_all(OUTPUT).await;
    assert_same(
        "the stream",
        &expected,
        &of_stream(output.iter().flat_map(|(_, records)| records)),
    );
}
