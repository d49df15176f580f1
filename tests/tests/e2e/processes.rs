//! Processes that die: the job comes back, and nobody is left over.

use super::sql::ENDLESS;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidemill_tests::process::{children, is_alive, signal};
use tidemill_tests::{Server, eventually};

fn process_of(job: &Value) -> u32 {
    u32::try_from(job["process_ids"][0].as_u64().expect("a process")).expect("a process id")
}

async fn submit(server: &Server, name: &str) -> Value {
    let submitted = server
        .post(
            "/v1/jobs",
            &json!({"name": name, "sql": ENDLESS, "checkpoint_interval_ms": 100}),
        )
        .await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    server.wait_for_state(name, "running").await
}

#[tokio::test]
async fn a_killed_job_comes_back_from_its_checkpoint_and_its_neighbour_does_not_notice() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let neighbour = submit(&server, "neighbour").await;
    submit(&server, "a").await;
    let job = eventually("a checkpoint", || async {
        let job = server.job("a").await;
        (!job["checkpoints"].as_array().unwrap().is_empty()).then_some(job)
    })
    .await;
    let killed = process_of(&job);
    signal(killed, Signal::SIGKILL);
    let back = eventually("the job to come back", || async {
        let job = server.job("a").await;
        (job["state"] == "running" && job["process_ids"][0].as_u64() != Some(u64::from(killed))).then_some(job)
    })
    .await;
    assert_eq!(back["restarts"], 1);
    assert!(
        back["restored_from"].as_u64() >= job["checkpoints"][0]["id"].as_u64(),
        "{back}"
    );
    assert!(
        back["last_error"]["message"].as_str().unwrap().contains("SIGKILL"),
        "{back}"
    );
    assert!(back["generation"].as_u64() > job["generation"].as_u64());
    assert_eq!(server.job("neighbour").await["process_ids"], neighbour["process_ids"]);
}

#[tokio::test]
async fn a_killed_server_leaves_no_orphan_and_its_jobs_come_back_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    let jobs = [submit(&server, "a").await, submit(&server, "b").await];
    server.kill();
    for job in &jobs {
        eventually("the job's process to end", || async {
            (!is_alive(process_of(job))).then_some(())
        })
        .await;
    }
    let server = Server::start(&data);
    for name in ["a", "b"] {
        server.wait_for_state(name, "running").await;
    }
    assert_eq!(children(server.pid()).len(), 2);
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_takes_last_checkpoints_and_its_jobs_run_again_after() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    let job = submit(&server, "a").await;
    let stopped = submit(&server, "stopped").await;
    let answer = server.post("/v1/jobs/stopped/stop", &json!({"mode": "now"})).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (200, &json!("stopped")),
        "{:?}",
        answer.body
    );
    assert!(server.terminate().success());
    assert!(!is_alive(process_of(&job)) && !is_alive(process_of(&stopped)));
    let server = Server::start(&data);
    let back = server.wait_for_state("a", "running").await;
    assert!(back["restored_from"].is_u64(), "{back}");
    assert_eq!(server.job("stopped").await["state"], "stopped");
}

#[tokio::test]
async fn a_job_that_keeps_failing_is_given_up_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    // A record cannot be decoded, so the job fails each time it is started.
    super::stops::poison(&server).await;
    let sql = super::sql::COUNTS;
    let submitted = server
        .post("/v1/jobs", &json!({"name": "a", "sql": sql, "restart_attempts": 2}))
        .await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let failed = server.wait_for_state("a", "failed").await;
    let reason = failed["failure"].as_str().unwrap();
    assert!(
        reason.contains("3 times in a row") && reason.contains("clicks"),
        "{reason}"
    );
    assert_eq!(failed["process_ids"], json!([]));
}

#[tokio::test]
async fn a_frozen_job_is_killed_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    // Long enough for a slow machine to give the job its turn, for this must strike the frozen process only.
    let server = Server::start_with(&directory.path().join("data"), &["--heartbeat-timeout", "10s"]);
    let frozen = process_of(&submit(&server, "a").await);
    signal(frozen, Signal::SIGSTOP);
    let back = eventually("the job to come back", || async {
        let job = server.job("a").await;
        (job["state"] == "running" && job["process_ids"][0].as_u64() != Some(u64::from(frozen))).then_some(job)
    })
    .await;
    assert!(
        back["last_error"]["message"].as_str().unwrap().contains("not heard of"),
        "{back}"
    );
    assert!(!is_alive(frozen));
}
