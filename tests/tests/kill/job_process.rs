//! A job's process killed at random moments, and the job stopped and started at another parallelism in between.

use super::clicks::Producer;
use super::client::Clients;
use super::job::{IMPATIENT, INPUT, NAME, OUTPUT, Stage, checkpointed, create_streams, finish, stop, submit};
use super::random::Random;
use super::reader::LiveReader;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use tidemill_tests::process::{children, signal};
use tidemill_tests::{Server, eventually};

/// Each is 2 kills.
const PARALLELISMS: [usize; 6] = [1, 2, 3, 1, 2, 3];
/// A kill comes at most that long after the process was started.
const LIFE_MS: u64 = 1_500;

/// Kills the job's process at some moment of its life: while it plans, restores, runs or takes a checkpoint.
async fn kill(server: &Server, random: &mut Random) {
    eventually("the job's process", || async {
        children(server.pid()).first().copied()
    })
    .await;
    random.moment(LIFE_MS).await;
    // There may be another one by now, or none until it is started again.
    let process = eventually("the job's process", || async {
        children(server.pid()).first().copied()
    })
    .await;
    signal(process, Signal::SIGKILL);
    eventually("its end", || async {
        (!children(server.pid()).contains(&process)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_killed_and_rescaled_again_and_again_is_exact() {
    let mut random = Random::from_environment("a job's process");
    let stage = Stage::new();
    let server = Server::start_with(&stage.data(), IMPATIENT);
    create_streams(&server).await;
    let clients = Clients::new(server.url());
    let live = LiveReader::start(&clients, OUTPUT).await;
    let producer = Producer::start(&clients, INPUT, random.split());

    let mut restore: Option<String> = None;
    let mut kills = 0;
    for (round, parallelism) in PARALLELISMS.into_iter().enumerate() {
        let uid = submit(&server, &stage, parallelism, restore.as_deref()).await["id"]
            .as_str()
            .unwrap()
            .to_owned();
        for _ in 0..2 {
            kill(&server, &mut random).await;
            kills += 1;
        }
        let job = checkpointed(&server).await;
        assert_eq!(job["parallelism"], parallelism);
        // A start keeps the parallelism; with another one the job is submitted anew, from where the old one stopped.
        stop(&server, &json!({})).await;
        let started = server.post(&format!("/v1/jobs/{NAME}/start"), &json!({})).await;
        assert_eq!(started.status, 200, "{:?}", started.body);
        if round + 1 == PARALLELISMS.len() {
            continue;
        }
        checkpointed(&server).await;
        restore = Some(if round % 2 == 0 {
            stop(&server, &json!({"mode": "savepoint", "savepoint": "rescale"})).await;
            format!("{uid}/savepoint/rescale")
        } else {
            let stopped = stop(&server, &json!({})).await;
            let last = stopped["checkpoints"]
                .as_array()
                .and_then(|all| all.last())
                .expect("a checkpoint")
                .clone();
            format!("{uid}/checkpoint/{}", last["id"])
        });
        let deleted = server.ask(Method::DELETE, &format!("/v1/jobs/{NAME}"), None).await;
        assert_eq!(deleted.status, 204, "{:?}", deleted.body);
    }
    assert!(kills >= 10);
    let clicks = producer.stop().await;
    finish(&server, &clients, &stage, clicks, &live).await;
}
