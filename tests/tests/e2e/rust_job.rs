//! A Rust job: the same binary alone and under a server.

use super::happy_path::{clicks, counted};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use tidemill_tests::process::signal;
use tidemill_tests::{Server, beside_the_test, eventually};

const PROGRAM: &str = "example-keyed-count";

/// Windows of five seconds; the watermark is two behind, so the last windows stay open.
async fn five_second_windows(kinesis: &tidemill_tests::Kinesis, rows: usize) -> Vec<Value> {
    let found = eventually("the windows", || async {
        let found = kinesis.read_all("clicks_per_page").await;
        (found.len() >= rows).then_some(found)
    })
    .await;
    let counted = counted(&found);
    assert_eq!(counted.len(), rows, "{counted:?}");
    let counts: BTreeSet<&Vec<i64>> = counted.values().collect();
    assert_eq!(counts, BTreeSet::from([&vec![5]]), "{counted:?}");
    found
}

#[tokio::test]
async fn under_a_server_it_is_killed_and_restored_like_a_sql_job() {
    let program = beside_the_test(PROGRAM);
    assert!(
        program.is_file(),
        "{} is missing; run: cargo build -p {PROGRAM}",
        program.display()
    );
    let directory = tempfile::tempdir().unwrap();
    let binaries = program.parent().unwrap().to_str().unwrap().to_owned();
    let server = Server::start_with(&directory.path().join("data"), &["--job-binaries", &binaries]);
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 1).await;
    kinesis.create_stream("clicks_per_page", 1).await;
    let request = json!({
        "name": "keyed", "executable": PROGRAM, "args": ["clicks_per_page"], "parallelism": 2, "checkpoint_interval_ms": 100,
    });
    let submitted = server.post("/v1/jobs", &request).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    kinesis.put("clicks", &clicks(0, 23)).await;
    five_second_windows(&kinesis, 8).await;

    let job = server.wait_for_state("keyed", "running").await;
    signal(
        u32::try_from(job["process_ids"][0].as_u64().unwrap()).unwrap(),
        Signal::SIGKILL,
    );
    kinesis.put("clicks", &clicks(23, 43)).await;
    five_second_windows(&kinesis, 16).await;
    let back = server.wait_for_state("keyed", "running").await;
    assert_eq!(back["restarts"], 1, "{back}");
}

#[tokio::test]
async fn an_argument_that_the_job_refuses_refuses_the_submission() {
    let program = beside_the_test(PROGRAM);
    let directory = tempfile::tempdir().unwrap();
    let binaries = program.parent().unwrap().to_str().unwrap().to_owned();
    let server = Server::start_with(&directory.path().join("data"), &["--job-binaries", &binaries]);
    let request = json!({"name": "keyed", "executable": PROGRAM, "args": ["a", "b"]});
    let refused = server.post("/v1/jobs", &request).await;
    assert_eq!(
        (refused.status, &refused.body["detail"]),
        (400, &json!("this job takes one argument: the stream that it writes"))
    );
    assert_eq!(server.get("/v1/jobs/keyed").await.status, 404);
}

#[tokio::test]
async fn alone_it_stops_after_a_final_checkpoint_and_leaves_its_output_in_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 1).await;
    kinesis.create_stream("clicks_per_page", 1).await;
    kinesis.put("clicks", &clicks(0, 23)).await;
    assert!(server.terminate().success());

    let log = directory.path().join("alone.log");
    let mut alone = Command::new(beside_the_test(PROGRAM))
        .args(["--checkpoint-interval", "100ms", "--data-dir"])
        .arg(&data)
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    // A checkpoint behind the last of the 46 clicks; there may be any number before it.
    let checkpoints = data.join("checkpoints").join(PROGRAM).join("checkpoint");
    eventually("a checkpoint with all that was there", || async {
        let manifests = std::fs::read_dir(&checkpoints).into_iter().flatten().flatten();
        let mut texts = manifests.filter_map(|manifest| std::fs::read_to_string(manifest.path()).ok());
        texts.any(|text| text.contains("@47\"")).then_some(())
    })
    .await;
    signal(alone.id(), Signal::SIGTERM);
    let ended = alone.wait().unwrap();
    assert!(ended.success(), "{}", std::fs::read_to_string(&log).unwrap());

    let server = Server::start(&data);
    five_second_windows(&server.kinesis(), 8).await;
}
