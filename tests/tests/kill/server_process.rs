//! The server killed under a running job, while a producer writes and a reader follows.

use super::clicks::Producer;
use super::client::Clients;
use super::job::{IMPATIENT, INPUT, NAME, OUTPUT, Stage, create_streams, finish, submit};
use super::random::Random;
use super::reader::LiveReader;
use serde_json::json;
use tidemill_tests::process::{children, is_alive};
use tidemill_tests::{Server, eventually};

const ROUNDS: usize = 5;
const LIFE_MS: u64 = 2_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_no_orphan_and_its_job_comes_back_once_and_exact() {
    let mut random = Random::from_environment("a server");
    let stage = Stage::new();
    let mut server = Server::start_with(&stage.data(), IMPATIENT);
    create_streams(&server).await;
    let clients = Clients::new(server.url());
    let live = LiveReader::start(&clients, OUTPUT).await;
    let producer = Producer::start(&clients, INPUT, random.split());
    submit(&server, &stage, 2, None).await;
    for _ in 0..ROUNDS {
        random.moment(LIFE_MS).await;
        let before = children(server.pid());
        server.kill();
        eventually("the job's process to end", || async {
            (!before.iter().any(|&pid| is_alive(pid))).then_some(())
        })
        .await;
        server = Server::start_with(&stage.data(), IMPATIENT);
        clients.moved_to(server.url());
        let jobs = server.get("/v1/jobs").await;
        assert_eq!(jobs.body["jobs"].as_array().map(Vec::len), Some(1), "{:?}", jobs.body);
        let running = eventually("the job's process", || async {
            let job = server.job(NAME).await;
            (job["state"] == "running").then_some(job)
        })
        .await;
        assert_eq!(running["process_ids"], json!(children(server.pid())), "{running}");
        assert_eq!(running["process_ids"].as_array().map(Vec::len), Some(1), "{running}");
    }
    let clicks = producer.stop().await;
    finish(&server, &clients, &stage, clicks, &live).await;
}
