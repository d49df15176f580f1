//! What works when nothing goes wrong.

use super::sql::{BOUNDED, COUNTS};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use tidemill_tests::{Server, binary, eventually};

/// Clicks of `seconds` seconds, one a second for each page, and one far behind them that lets all windows fire.
pub(super) fn clicks(from: u32, to: u32) -> Vec<(&'static str, Value)> {
    let click = |page, second: u32| {
        let ts = format!("2026-01-01 00:{:02}:{:02}.000", second / 60, second % 60);
        (page, json!({"page": page, "ts": ts}))
    };
    (from..to)
        .flat_map(|second| ["/a", "/b"].map(|page| click(page, second)))
        .collect()
}

pub(super) fn counted(rows: &[Value]) -> BTreeMap<(String, String), Vec<i64>> {
    let mut counted: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    for row in rows {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        counted
            .entry((text("window_start"), text("page")))
            .or_default()
            .push(row["clicks"].as_i64().unwrap_or(-1));
    }
    counted
}

#[tokio::test]
async fn a_job_counts_is_saved_stopped_started_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 1).await;
    kinesis.create_stream("counts", 2).await;
    let request = json!({"name": "counts", "sql": COUNTS, "parallelism": 2, "checkpoint_interval_ms": 200});
    let submitted = server.post("/v1/jobs", &request).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let uid = submitted.body["id"].as_str().unwrap().to_owned();
    let job = server.wait_for_state("counts", "running").await;
    assert_eq!(
        (
            job["parallelism"].as_u64(),
            job["process_ids"].as_array().unwrap().len()
        ),
        (Some(2), 1)
    );

    kinesis.put("clicks", &clicks(0, 20)).await;
    // The watermark is one second behind the last click, so the last two windows stay open.
    let rows = eventually("18 windows of 2 pages", || async {
        let rows = kinesis.read_all("counts").await;
        (rows.len() >= 36).then_some(rows)
    })
    .await;
    let first = counted(&rows);
    assert_eq!(
        (first.len(), first.values().all(|counts| *counts == [1])),
        (36, true),
        "{first:?}"
    );

    let saved = server.post("/v1/jobs/counts/savepoints", &json!({"name": "s1"})).await;
    assert_eq!(
        (saved.status, &saved.body["restore"]),
        (201, &json!(format!("{uid}/savepoint/s1"))),
        "{:?}",
        saved.body
    );
    let taken = server.post("/v1/jobs/counts/savepoints", &json!({"name": "s1"})).await;
    assert_eq!(taken.status, 409, "{:?}", taken.body);
    let listed = server.get(&format!("/v1/jobs/{uid}/savepoints")).await;
    assert_eq!(listed.body["savepoints"][0]["name"], "s1", "{:?}", listed.body);

    let refused = server.ask(Method::DELETE, "/v1/jobs/counts", None).await;
    assert_eq!(refused.status, 409, "{:?}", refused.body);
    let stopped = server.post("/v1/jobs/counts/stop", &json!({})).await;
    assert_eq!(
        (stopped.status, &stopped.body["state"]),
        (200, &json!("stopped")),
        "{:?}",
        stopped.body
    );
    assert_eq!(stopped.body["process_ids"], json!([]));
    kinesis.put("clicks", &clicks(20, 40)).await;
    let started = server.post("/v1/jobs/counts/start", &json!({})).await;
    assert_eq!(started.status, 200, "{:?}", started.body);
    let rows = eventually("the windows of after the start", || async {
        let rows = kinesis.read_all("counts").await;
        (rows.len() >= 76).then_some(rows)
    })
    .await;
    let all = counted(&rows);
    assert_eq!(
        (all.len(), all.values().all(|counts| *counts == [1])),
        (76, true),
        "{all:?}"
    );

    server.wait_for_state("counts", "running").await;
    let metrics = tidemill_tests::server::http_client()
        .get(format!("{}/metrics", server.url()))
        .send()
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("tidemill_job_up{job=\"counts\"} 1"), "{metrics}");
    assert!(
        metrics.contains("tidemill_job_operator_rows_in_total{job=\"counts\"")
            && metrics.contains("tidemill_job_operator_state_bytes{job=\"counts\""),
        "{metrics}"
    );

    let deleted = server.ask(Method::DELETE, "/v1/jobs/counts?force=true", None).await;
    assert_eq!(deleted.status, 204, "{:?}", deleted.body);
    assert_eq!(server.get("/v1/jobs/counts").await.status, 404);
}

#[tokio::test]
async fn a_job_continues_from_the_savepoint_of_another_at_another_parallelism() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let kinesis = server.kinesis();
    kinesis.create_stream("clicks", 3).await;
    kinesis.create_stream("counts", 1).await;
    let request = json!({"name": "first", "sql": COUNTS, "parallelism": 1, "checkpoint_interval_ms": 200});
    let submitted = server.post("/v1/jobs", &request).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    server.wait_for_state("first", "running").await;
    kinesis.put("clicks", &clicks(0, 10)).await;
    let stopped = server
        .post("/v1/jobs/first/stop", &json!({"mode": "savepoint", "savepoint": "s"}))
        .await;
    assert_eq!(
        (stopped.status, &stopped.body["state"]),
        (200, &json!("stopped")),
        "{:?}",
        stopped.body
    );

    let request = json!({"name": "none", "sql": COUNTS, "restore": "first/savepoint/missing"});
    let refused = server.post("/v1/jobs", &request).await;
    assert_eq!(refused.status, 400, "{:?}", refused.body);
    assert!(
        refused.body["detail"].as_str().unwrap().contains("missing"),
        "{:?}",
        refused.body
    );

    let request = json!({
        "name": "second", "sql": COUNTS, "parallelism": 3, "checkpoint_interval_ms": 200, "restore": "first/savepoint/s",
    });
    let submitted = server.post("/v1/jobs", &request).await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    kinesis.put("clicks", &clicks(10, 20)).await;
    // A page lives in one shard, and shards without clicks hold the watermark back: this one lets go of it in each.
    let all = ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i", "/j", "/k", "/l"];
    let closing = all.map(|key| (key, json!({"page": "closing", "ts": "2026-01-01 01:00:00.000"})));
    kinesis.put("clicks", &closing).await;
    let rows = eventually("20 windows of 2 pages", || async {
        let rows = kinesis.read_all("counts").await;
        (rows.len() >= 40).then_some(rows)
    })
    .await;
    let all = counted(&rows);
    assert_eq!(
        (all.len(), all.values().all(|counts| *counts == [1])),
        (40, true),
        "{all:?}"
    );
}

#[tokio::test]
async fn a_bounded_job_finishes_and_stays_finished_over_a_restart_of_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    let submitted = server
        .post("/v1/jobs", &json!({"name": "bounded", "sql": BOUNDED}))
        .await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let finished = server.wait_for_state("bounded", "finished").await;
    let sink = finished["operators"]
        .as_array()
        .unwrap()
        .iter()
        .find(|o| o["name"] == "sink nowhere")
        .unwrap()
        .clone();
    assert_eq!(sink["rows_in"], 1_000);
    assert!(server.terminate().success());
    let server = Server::start(&data);
    assert_eq!(server.job("bounded").await["state"], "finished");
}

#[test]
fn a_bounded_job_in_the_foreground_ends_with_success() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bounded.sql");
    std::fs::write(&file, BOUNDED).unwrap();
    let output = Command::new(binary())
        .arg("run")
        .arg(&file)
        .arg("--json")
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(
        (&status["name"], &status["state"]),
        (&json!("bounded"), &json!("ended"))
    );
}

#[test]
fn a_text_that_is_refused_in_the_foreground_is_told_as_compilers_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.sql");
    std::fs::write(&file, "CREATE TABLE t (\n  a BIGNIT WITH").unwrap();
    let output = Command::new(binary())
        .arg("run")
        .arg(&file)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("{}:2:", file.display())), "{said}");
}
