//! Each bad input gets an error that says what and where, and what to do; and no other job notices.

use super::sql::{COUNTS, ENDLESS};
use reqwest::Method;
use serde_json::{Value, json};
use std::net::TcpListener;
use tidemill_tests::{Answer, Server};

fn assert_problem(answer: &Answer, status: u16, kind: &str, words: &[&str]) {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(
        answer.body["type"],
        format!("urn:tidemill:problem:{kind}"),
        "{:?}",
        answer.body
    );
    assert_eq!(answer.body["status"], status);
    let text = answer.body.to_string();
    for word in words {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

#[test]
fn a_second_server_on_the_data_directory_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let first = Server::start(&data);
    let (code, said) = Server::refused(&data, &["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{said}");
    for word in ["in use by another process", &first.pid().to_string(), "--data-dir"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(first.get("/v1/jobs")).status, 200);
}

#[test]
fn a_port_in_use_is_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = Server::refused(&data, &["--listen", &address]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&address) && said.contains("choose another port with --listen"),
        "{said}"
    );
    assert!(!data.exists());
}

#[test]
fn a_data_directory_that_cannot_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    // A file, a place below one, and a place where nobody may make a directory, not even root.
    for path in [file.clone(), file.join("below"), "/proc/tidemill-data".into()] {
        let (code, said) = Server::refused(&path, &["--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("cannot be used") && said.contains("--data-dir"), "{said}");
        assert!(said.contains(&path.display().to_string()), "{said}");
    }
    // The log's own directory.
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("store"), b"").unwrap();
    let (code, said) = Server::refused(&data, &["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&data.join("store").display().to_string()), "{said}");
    assert_eq!(std::fs::read(data.join("store")).unwrap(), b"");
}

#[test]
fn an_address_that_others_reach_needs_to_be_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (code, said) = Server::refused(directory.path(), &["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--insecure-listen-anywhere"), "{said}");
}

#[test]
fn a_misspelt_option_is_refused_with_the_right_one() {
    let directory = tempfile::tempdir().unwrap();
    let (code, said) = Server::refused(directory.path(), &["--checkpoint-ulr", "x"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--checkpoint-url"), "{said}");
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_unless_the_request_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let request = json!({"name": "a", "sql": ENDLESS, "client_token": "t1"});
    let first = server.post("/v1/jobs", &request).await;
    assert_eq!(first.status, 201, "{:?}", first.body);
    let again = server.post("/v1/jobs", &request).await;
    assert_eq!((again.status, &again.body["id"]), (200, &first.body["id"]));
    for other in [
        json!({"name": "a", "sql": ENDLESS}),
        json!({"name": "a", "sql": ENDLESS, "client_token": "t2"}),
    ] {
        assert_problem(
            &server.post("/v1/jobs", &other).await,
            409,
            "name-taken",
            &["choose another name"],
        );
    }
    assert_eq!(server.get("/v1/jobs").await.body["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn programs_that_cannot_be_are_refused_and_no_other_job_notices() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let submitted = server
        .post("/v1/jobs", &json!({"name": "bystander", "sql": ENDLESS}))
        .await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let before = server.wait_for_state("bystander", "running").await;

    let submit = |sql: String| server.post_owned(json!({"name": "bad", "sql": sql}));
    let answer = submit("CREATE TABLE t (\n  a BIGNIT WITH".into()).await;
    assert_problem(&answer, 400, "program-refused", &[]);
    assert_eq!(answer.body["line"], 2, "{:?}", answer.body);
    assert!(answer.body["column"].is_u64(), "{:?}", answer.body);

    let answer = submit(COUNTS.replace("source.init.position", "source.init.postion")).await;
    assert_problem(
        &answer,
        400,
        "program-refused",
        &["source.init.postion", "source.init.position"],
    );

    let answer = submit(COUNTS.replace("COUNT(*)", "COUNT(*), nowhere")).await;
    assert_problem(&answer, 400, "program-refused", &["nowhere"]);

    let sum = vec!["1"; 4_000].join("+");
    let answer = submit(ENDLESS.replace("SELECT n", &format!("SELECT n + {sum}"))).await;
    assert_problem(&answer, 400, "program-refused", &[]);

    let mut ctes = vec!["c0 AS (SELECT n FROM numbers)".to_owned()];
    for i in 1..=16 {
        ctes.push(format!(
            "c{i} AS (SELECT n FROM c{p} UNION ALL SELECT n FROM c{p})",
            p = i - 1
        ));
    }
    let answer = submit(ENDLESS.replace(
        "SELECT n FROM numbers;",
        &format!("WITH {} SELECT n FROM c16;", ctes.join(", ")),
    ))
    .await;
    assert_problem(&answer, 400, "program-refused", &[]);

    let answer = submit("x".repeat(3 * 1024 * 1024)).await;
    assert_problem(&answer, 400, "program-refused", &[]);

    assert_eq!(server.get("/v1/jobs/bad").await.status, 404);
    let after = server.job("bystander").await;
    assert_eq!(after["state"], "running");
    assert_eq!(after["process_ids"], before["process_ids"]);
    assert_eq!(after["restarts"], 0);
}

#[tokio::test]
async fn requests_that_cannot_be_understood_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let submit = |body: Value| server.post_owned(body);
    assert_problem(
        &submit(json!({"name": "a", "sgl": "x"})).await,
        400,
        "invalid-request",
        &["sgl", "openapi.json"],
    );
    assert_problem(
        &submit(json!({"name": "a/b", "sql": "x"})).await,
        400,
        "invalid-request",
        &["A-Z a-z"],
    );
    assert_problem(
        &submit(json!({"name": "a", "sql": "x", "parallelism": 0})).await,
        400,
        "invalid-request",
        &["1 to 256"],
    );
    assert_problem(
        &submit(json!({"name": "a", "executable": "/bin/sh"})).await,
        400,
        "invalid-request",
        &["--job-binaries"],
    );
    assert_problem(&server.get("/v1/jobs/none").await, 404, "job-not-found", &["none"]);
    assert_problem(&server.get("/v1/jbos").await, 404, "no-such-path", &["/v1/jbos"]);
    assert_problem(
        &server.ask(Method::PUT, "/v1/jobs", None).await,
        405,
        "method-not-allowed",
        &["openapi.json"],
    );
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_web_page_cannot_use_the_api() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let http = tidemill_tests::server::http_client();
    let url = format!("{}/v1/jobs", server.url());
    let rebound = http.get(&url).header("Host", "evil.example:4566").send().await.unwrap();
    assert_eq!(rebound.status(), 403);
    let foreign = http
        .get(&url)
        .header("Origin", "http://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(foreign.status(), 403);
    let ours = http
        .get(&url)
        .header("Origin", "http://localhost:3000")
        .send()
        .await
        .unwrap();
    assert_eq!(ours.status(), 200);
}
