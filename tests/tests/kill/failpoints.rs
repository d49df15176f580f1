//! A job's process that aborts at each named step of a checkpoint and of a restore: one run per name.

use super::clicks::Producer;
use super::client::Clients;
use super::job::{IMPATIENT, INPUT, NAME, OUTPUT, Stage, checkpointed, create_streams, finish, submit};
use super::random::Random;
use super::reader::LiveReader;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_checkpoints::failpoints::{CHECKPOINT_FAILPOINTS, CKPT_PERMIT, RESTORE_READ, RESTORE_REPLAY_COMMIT};
use tidemill_tests::{Server, eventually};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Runs at a time.
const RUNS_AT_A_TIME: usize = 3;
/// Aborts of a run.
const ABORTS: u64 = 3;

async fn run(name: &'static str, random: Random) {
    let stage = Stage::new();
    let mut server = Server::start_with(&stage.data(), IMPATIENT);
    create_streams(&server).await;
    let clients = Clients::new(server.url());
    let live = LiveReader::start(&clients, OUTPUT).await;
    let producer = Producer::start(&clients, INPUT, random);
    submit(&server, &stage, 2, None).await;
    checkpointed(&server).await;
    server.kill();

    let failpoints = match name {
        RESTORE_READ => format!("{name}=abort"),
        // There is something to publish once more only after an end between a checkpoint and its publishing.
        RESTORE_REPLAY_COMMIT => format!("{CKPT_PERMIT}=abort@2,{name}=abort"),
        // The second time in every process, so that each of them gets somewhere.
        _ => format!("{name}=abort@2"),
    };
    server = Server::start_in(&stage.data(), IMPATIENT, &[("TIDEMILL_FAILPOINTS", &failpoints)]);
    clients.moved_to(server.url());
    let job = eventually(&format!("the third abort at {name}"), || async {
        let job = server.job(NAME).await;
        (job["restarts"].as_u64() >= Some(ABORTS)).then_some(job)
    })
    .await;
    assert!(
        job["last_error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("SIGABRT")),
        "{job:#}"
    );
    assert!(job["failures_in_a_row"].as_u64() >= Some(ABORTS), "{job:#}");
    server.kill();

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
    let mut names = HashMap::new();
    for &name in CHECKPOINT_FAILPOINTS {
        let (turns, random) = (Arc::clone(&turns), random.split());
        let task = runs.spawn(async move {
            let _turn = turns.acquire().await;
            run(name, random).await;
        });
        names.insert(task.id(), name);
    }
    while let Some(run) = runs.join_next_with_id().await {
        match run {
            Ok((id, ())) => eprintln!("{}: exact", names[&id]),
            Err(error) => panic!("{}: {error}", names[&error.id()]),
        }
    }
}
