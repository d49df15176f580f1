//! A job's process that aborts at each named step of a checkpoint and of a restore: one run per name.

use super::clicks::Producer;
use super::client::Clients;
use super::job::{IMPATIENT, INPUT, NAME, OUTPUT, Stage, checkpointed, create_streams, finish, submit};
use super::random::Random;
use super::reader::LiveReader;
use nix::sys::signal::Signal;
use std::sync::Arc;
use tidemill_checkpoints::failpoints::CHECKPOINT_FAILPOINTS;
use tidemill_tests::process::{children, signal};
use tidemill_tests::{Server, eventually};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Runs at a time.
const RUNS_AT_A_TIME: usize = 3;

async fn run(name: &'static str, random: Random) {
    let stage = Stage::new();
    // In every process the second time, so that each of them has got somewhere; a restore is there only once per process.
    let is_restore = name.starts_with("restore.");
    let failpoints = format!("{name}=abort@{}", if is_restore { 1 } else { 2 });
    let mut server = Server::start_in(&stage.data(), IMPATIENT, &[("TIDEMILL_FAILPOINTS", &failpoints)]);
    create_streams(&server).await;
    let clients = Clients::new(server.url());
    let live = LiveReader::start(&clients, OUTPUT).await;
    let producer = Producer::start(&clients, INPUT, random);
    submit(&server, &stage, 2, None).await;
    if is_restore {
        checkpointed(&server).await;
        let process = children(server.pid())[0];
        signal(process, Signal::SIGKILL);
    }
    eventually(&format!("the third abort at {name}"), || async {
        let job = server.job(NAME).await;
        let aborted = job["last_error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("SIGABRT"));
        (aborted && job["restarts"].as_u64() >= Some(3)).then_some(())
    })
    .await;
    assert!(server.terminate().success());
    server = Server::start_with(&stage.data(), IMPATIENT);
    clients.moved_to(server.url());
    checkpointed(&server).await;
    let clicks = producer.stop().await;
    finish(&server, &clients, &stage, clicks, &live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_aborts_at_any_step_of_a_checkpoint_is_exact() {
    let mut random = Random::from_environment("failpoints");
    let turns = Arc::new(Semaphore::new(RUNS_AT_A_TIME));
    let mut runs = JoinSet::new();
    for &name in CHECKPOINT_FAILPOINTS {
        let (turns, random) = (Arc::clone(&turns), random.split());
        runs.spawn(async move {
            let _turn = turns.acquire().await;
            eprintln!("{name}");
            run(name, random).await;
        });
    }
    while let Some(run) = runs.join_next().await {
        run.expect("a run");
    }
}
