//! What a stop answers, also when nothing goes as it should; and what makes a job be given up at once.

use super::sql::{COUNTS, ENDLESS};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use tidemill_tests::process::{is_alive, signal};
use tidemill_tests::{Server, eventually};

async fn submit(server: &Server, name: &str, sql: &str) -> String {
    let request = json!({"name": name, "sql": sql});
    let submitted = server.post("/v1/jobs", &request).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    assert_eq!(submitted.body["parallelism"], 1, "the effective one");
    submitted.body["id"].as_str().unwrap().to_owned()
}

/// Makes the streams of [`COUNTS`] with a record that no job can read.
pub(super) async fn poison(server: &Server) {
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 1).await;
    kinesis.create_stream("counts", 1).await;
    kinesis
        .put("clicks", &[("k", json!({"page": "/a", "ts": "no time"}))])
        .await;
}

#[tokio::test]
async fn a_stop_says_what_it_left_and_what_users_ask_is_logged() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    poison(&server).await;
    submit(&server, "failing", COUNTS).await;
    eventually("the job to fail", || async {
        let job = server.job("failing").await;
        (job["restarts"].as_u64() > Some(0)).then_some(())
    })
    .await;
    let answer = server.post("/v1/jobs/failing/stop", &json!({})).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (200, &json!("stopped")),
        "{:?}",
        answer.body
    );
    let stop = &answer.body["stop"];
    assert_eq!(
        (&stop["took"], &stop["checkpoint"]),
        (&json!("nothing"), &json!(null)),
        "{stop}"
    );
    let message = stop["message"].as_str().unwrap();
    assert!(
        message.contains("WITHOUT") && message.contains("a start begins anew"),
        "{message}"
    );

    submit(&server, "good", ENDLESS).await;
    server.wait_for_state("good", "running").await;
    let answer = server
        .post("/v1/jobs/good/stop", &json!({"mode": "savepoint", "savepoint": "s"}))
        .await;
    let stop = &answer.body["stop"];
    assert_eq!(stop["took"], "savepoint", "{:?}", answer.body);
    assert!(stop["checkpoint"].is_u64(), "{stop}");
    let again = server.post("/v1/jobs/good/stop", &json!({})).await;
    assert_eq!(again.body["stop"]["took"], "nothing", "{:?}", again.body);
    assert_eq!(again.body["stop"]["checkpoint"], stop["checkpoint"]);
    assert_eq!(server.ask(Method::DELETE, "/v1/jobs/good", None).await.status, 204);
    assert_eq!(server.ask(Method::DELETE, "/v1/jobs/good", None).await.status, 404);

    let metrics = tidemill_tests::server::http_client()
        .get(format!("{}/metrics", server.url()))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let told = "tidemill_job_checkpoints_failed_total{job=\"failing\"} 0";
    assert!(metrics.lines().any(|line| line == told), "{metrics}");

    let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
    let asked: Vec<&str> = log.lines().filter(|line| line.contains("asked of a job")).collect();
    for (at, words) in [
        ["job=failing", "\"submit\"", "submitted as"],
        ["job=failing", "\"stop\"", "WITHOUT"],
        ["job=good", "\"submit\"", "submitted as"],
        ["job=good", "\"stop\"", "savepoint s"],
        ["job=good", "\"stop\"", "not running"],
        ["job=good", "\"delete\"", "deleted"],
        ["job=good", "\"delete\"", "refused"],
    ]
    .iter()
    .enumerate()
    {
        let line = asked
            .get(at)
            .unwrap_or_else(|| panic!("{words:?} is not told in {asked:?}"));
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{words:?} is not in {line}"
        );
    }
}

#[tokio::test]
async fn a_job_stops_also_when_that_cannot_be_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let uid = submit(&server, "a", ENDLESS).await;
    let job = server.wait_for_state("a", "running").await;
    let process = u32::try_from(job["process_ids"][0].as_u64().unwrap()).unwrap();
    // Where the new definition is written before it takes the place of the old one.
    let obstacle = data.join(format!("jobs/{uid}.json.new"));
    std::fs::create_dir(&obstacle).unwrap();
    let answer = server.post("/v1/jobs/a/stop", &json!({})).await;
    assert_eq!(answer.status, 500, "{:?}", answer.body);
    let detail = answer.body["detail"].as_str().unwrap();
    for words in [
        "has stopped",
        "could not be recorded",
        "disk is not full",
        "stop it once more",
    ] {
        assert!(detail.contains(words), "{words} is not in {detail}");
    }
    assert!(!is_alive(process));
    assert_eq!(server.job("a").await["state"], "stopped");
    std::fs::remove_dir(&obstacle).unwrap();
    let answer = server.post("/v1/jobs/a/stop", &json!({})).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    drop(server);
    let server = Server::start(&data);
    assert_eq!(server.job("a").await["state"], "stopped");
}

#[tokio::test]
async fn what_is_not_there_refuses_the_submission_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let file = "CREATE TABLE f (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'nosuch', 'format' = 'json');
        CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT n FROM f;";
    for (request, kind, words) in [
        (
            json!({"sql": COUNTS}),
            "program-refused",
            "stream clicks does not exist",
        ),
        (json!({"sql": file}), "program-refused", "nosuch does not exist"),
        (
            json!({"sql": ENDLESS, "restore": "none/savepoint/s"}),
            "invalid-request",
            "none/savepoint/s",
        ),
        (
            json!({"sql": ENDLESS, "restore": "none/checkpoint/7"}),
            "invalid-request",
            "none/checkpoint/7",
        ),
        (
            json!({"sql": ENDLESS, "restore": "a b/savepoint/s"}),
            "invalid-request",
            "a b",
        ),
        (
            json!({"sql": ENDLESS, "restore": "none/checkpint/7"}),
            "invalid-request",
            "JOB/checkpoint/NUMBER",
        ),
    ] {
        let mut request = request;
        request["name"] = json!("a");
        let answer = server.post("/v1/jobs", &request).await;
        assert_eq!(answer.status, 400, "{:?}", answer.body);
        assert_eq!(answer.body["type"], format!("urn:tidemill:problem:{kind}"));
        assert!(
            answer.body["detail"].as_str().unwrap().contains(words),
            "{:?}",
            answer.body
        );
    }
    assert_eq!(server.get("/v1/jobs/a").await.status, 404);
    for part in ["jobs", "logs"] {
        assert_eq!(std::fs::read_dir(data.join(part)).unwrap().count(), 0, "{part}");
    }
    submit(&server, "a", ENDLESS).await;
    server.wait_for_state("a", "running").await;
    assert_eq!(server.post("/v1/jobs/a/stop", &json!({})).await.status, 200);
    let answer = server
        .post("/v1/jobs/a/start", &json!({"restore": "savepoint/nosuch"}))
        .await;
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    assert_eq!(server.job("a").await["state"], "stopped");
}

#[tokio::test]
async fn a_stream_that_took_the_name_of_a_jobs_own_gives_the_job_up_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 1).await;
    kinesis.create_stream("counts", 1).await;
    submit(&server, "a", COUNTS).await;
    let job = server.wait_for_state("a", "running").await;
    kinesis.put("clicks", &super::happy_path::clicks(0, 5)).await;
    eventually("the clicks to be read", || async {
        let job = server.job("a").await;
        (job["operators"][0]["rows_out"].as_u64() > Some(0)).then_some(())
    })
    .await;
    assert_eq!(server.post("/v1/jobs/a/checkpoints", &json!({})).await.status, 201);
    // Halted, the process cannot notice that for a moment there is no stream of this name; the next one finds the other.
    let process = u32::try_from(job["process_ids"][0].as_u64().unwrap()).unwrap();
    signal(process, Signal::SIGSTOP);
    kinesis.must("DeleteStream", &json!({"StreamName": "clicks"})).await;
    kinesis.create_stream("clicks", 1).await;
    signal(process, Signal::SIGKILL);
    let failed = server.wait_for_state("a", "failed").await;
    let reason = failed["failure"].as_str().unwrap();
    assert!(
        reason.contains("deleted and created again") && !reason.contains("in a row"),
        "{reason}"
    );
    assert_eq!(server.ask(Method::DELETE, "/v1/jobs/a", None).await.status, 204);
}
