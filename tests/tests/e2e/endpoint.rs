//! Streams behind an endpoint: a job of one server reads and writes the streams of another.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_tests::process::{children, signal};
use tidemill_tests::{Kinesis, Server, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(super) const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")];
/// Rows that are put at once, and how often; after every second time the job's process is killed.
const ROWS: usize = 400;
const ROUNDS: usize = 6;

fn job(endpoint: &str) -> String {
    format!(
        "CREATE TABLE input (
           id BIGINT, name STRING,
           shard_id STRING METADATA VIRTUAL,
           number STRING METADATA FROM 'sequence-number' VIRTUAL,
           partition_key STRING METADATA VIRTUAL,
           arrival TIMESTAMP_LTZ(3) METADATA FROM 'approximate_arrival_timestamp' VIRTUAL
         ) WITH (
           'connector' = 'kinesis', 'stream' = 'input', 'format' = 'json',
           'aws.endpoint' = '{endpoint}', 'aws.region' = 'us-east-1',
           'source.init.position' = 'TRIM_HORIZON', 'source.shard.discovery.interval' = '200 ms',
           'source.shard.get-records.max-record-count' = '70',
           'source.reader.empty-records-fetch-interval' = '20 ms',
           'source.reader.nonempty-records-fetch-interval' = '5 ms'
         );
         CREATE TABLE there (id BIGINT, name STRING) PARTITIONED BY (name) WITH (
           'connector' = 'kinesis', 'stream' = 'output', 'format' = 'json',
           'aws.endpoint' = '{endpoint}', 'aws.region' = 'us-east-1',
           'aws.credentials.provider' = 'BASIC', 'aws.credentials.basic.accesskeyid' = 'any',
           'aws.credentials.basic.secretkey' = 'any',
           'sink.batch.max-size' = '50', 'sink.flush-buffer.timeout' = '20 ms', 'sink.requests.max-inflight' = '4'
         );
         CREATE TABLE here (
           id BIGINT, name STRING, shard_id STRING, number STRING, partition_key STRING, arrived BOOLEAN
         ) WITH ('connector' = 'kinesis', 'stream' = 'exact', 'format' = 'json');
         INSERT INTO there SELECT id, name FROM input;
         INSERT INTO here SELECT id, name, shard_id, number, partition_key, arrival IS NOT NULL FROM input;"
    )
}

fn ids(rows: &[Value]) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.iter().map(|row| row["id"].as_u64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

/// Kills the process of the server's job; one that is just being started is waited for.
pub(super) async fn kill_process(server: &Server) {
    let process = eventually("the job's process", || async {
        children(server.pid()).first().copied()
    })
    .await;
    signal(process, Signal::SIGKILL);
}

async fn put(kinesis: &Kinesis, round: usize) {
    let name = |id: usize| format!("name-{}", id % 5);
    let names: Vec<(String, Value)> = (round * ROWS..(round + 1) * ROWS)
        .map(|id| (format!("key-{}", id % 11), json!({"id": id, "name": name(id)})))
        .collect();
    let records: Vec<(&str, Value)> = names.iter().map(|(key, row)| (key.as_str(), row.clone())).collect();
    kinesis.put("input", &records).await;
}

#[tokio::test]
async fn a_job_reads_exactly_once_and_writes_at_least_once_through_an_endpoint_while_it_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let remote = Server::start(&directory.path().join("remote"));
    let server = Server::start_in(&directory.path().join("data"), &[], &CREDENTIALS);
    remote.kinesis().create_stream("input", 3).await;
    remote.kinesis().create_stream("output", 2).await;
    server.kinesis().create_stream("exact", 2).await;
    let submitted = server
        .post(
            "/v1/jobs",
            &json!({"name": "bridge", "sql": job(remote.url()), "parallelism": 2, "checkpoint_interval_ms": 200}),
        )
        .await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    server.wait_for_state("bridge", "running").await;
    for round in 0..ROUNDS {
        put(&remote.kinesis(), round).await;
        if round % 2 == 1 {
            // In the middle of it: some rows are out, some are not.
            let wanted = round * ROWS;
            eventually("most rows to be there", || async {
                (remote.kinesis().read_all("output").await.len() >= wanted).then_some(())
            })
            .await;
            kill_process(&server).await;
        }
    }
    let all = ROUNDS * ROWS;
    let exact = eventually("all rows exactly once", || async {
        let rows = server.kinesis().read_all("exact").await;
        (rows.len() >= all).then_some(rows)
    })
    .await;
    assert_eq!(ids(&exact), (0..all as u64).collect::<Vec<_>>());
    let job = server.job("bridge").await;
    assert!(job["restarts"].as_u64() >= Some(1), "{job}");

    // What is known of a record is what the other server says of it.
    let listed = remote
        .kinesis()
        .must("ListShards", &json!({"StreamName": "input"}))
        .await;
    let shards: BTreeSet<&str> = listed["Shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["ShardId"].as_str().unwrap())
        .collect();
    let mut numbers = BTreeSet::new();
    for row in &exact {
        let id = row["id"].as_u64().unwrap();
        assert!(shards.contains(row["shard_id"].as_str().unwrap()), "{row}");
        assert!(numbers.insert(row["number"].as_str().unwrap()), "{row}");
        assert_eq!(row["partition_key"], format!("key-{}", id % 11));
        assert_eq!(row["arrived"], true);
    }

    let there = eventually("all rows at least once", || async {
        let rows = remote.kinesis().read_all("output").await;
        let distinct: BTreeSet<u64> = ids(&rows).into_iter().collect();
        (distinct.len() == all).then_some(rows)
    })
    .await;
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for id in ids(&there) {
        *times.entry(id).or_default() += 1;
    }
    assert_eq!(
        times.keys().copied().collect::<Vec<_>>(),
        (0..all as u64).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_job_whose_stream_is_missing_behind_its_endpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let remote = Server::start(&directory.path().join("remote"));
    let server = Server::start_in(&directory.path().join("data"), &[], &CREDENTIALS);
    server.kinesis().create_stream("exact", 1).await;
    let submit = async || {
        server
            .post("/v1/jobs", &json!({"name": "bridge", "sql": job(remote.url())}))
            .await
    };
    for (stream, table) in [("input", "source input"), ("output", "sink there")] {
        let refused = submit().await;
        assert_eq!(refused.status, 400, "{:?}", refused.body);
        let told = refused.body.to_string();
        let advice = format!("`tidemill stream create {stream} --shards 1 --server {}`", remote.url());
        assert!(told.contains(&format!("stream {stream} does not exist")), "{told}");
        assert!(told.contains(&advice), "{told}");
        assert!(told.contains("ResourceNotFoundException"), "{told}");
        assert!(told.contains(table), "{told}");
        remote.kinesis().create_stream(stream, 1).await;
    }
    let submitted = submit().await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    server.wait_for_state("bridge", "running").await;

    // One that is deleted and created again under the job is another: no restart can help.
    let stream = json!({"StreamName": "input"});
    remote.kinesis().must("DeleteStream", &stream).await;
    // The API tells streams of one name apart by the second they were created in.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    eventually("the name to be free", || async {
        let create = json!({"StreamName": "input", "ShardCount": 1});
        (remote.kinesis().call("CreateStream", &create).await.0 == 200).then_some(())
    })
    .await;
    let failed = server.wait_for_state("bridge", "failed").await;
    let told = failed["last_error"]["message"].as_str().unwrap_or_default();
    assert!(
        told.contains("stream input was deleted and created again") || told.contains("stream input does not exist"),
        "{failed}"
    );
}

/// Gives credentials to whoever has the token, as containers do.
async fn container() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/credentials", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = socket.read(&mut request).await.unwrap_or(0);
            let is_known = String::from_utf8_lossy(&request[..read])
                .to_lowercase()
                .contains("authorization: let-me-in");
            let (status, body) = if is_known {
                let keys = json!({
                    "AccessKeyId": "any", "SecretAccessKey": "any", "Token": "any", "Expiration": "2099-01-01T00:00:00Z"
                });
                ("200 OK", keys.to_string())
            } else {
                ("403 Forbidden", String::new())
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn a_job_takes_the_credentials_of_its_container() {
    let directory = tempfile::tempdir().unwrap();
    let (nowhere, token) = (directory.path().join("nowhere"), directory.path().join("token"));
    std::fs::write(&token, "let-me-in").unwrap();
    let url = container().await;
    let environment = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SHARED_CREDENTIALS_FILE", nowhere.to_str().unwrap()),
        ("AWS_CONFIG_FILE", nowhere.to_str().unwrap()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
    ];
    let remote = Server::start(&directory.path().join("remote"));
    let server = Server::start_in(&directory.path().join("data"), &[], &environment);
    remote.kinesis().create_stream("input", 1).await;
    remote.kinesis().create_stream("output", 1).await;
    server.kinesis().create_stream("exact", 1).await;
    put(&remote.kinesis(), 0).await;
    let submitted = server
        .post(
            "/v1/jobs",
            &json!({"name": "bridge", "sql": job(remote.url()), "checkpoint_interval_ms": 200}),
        )
        .await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let exact = eventually("all rows", || async {
        let rows = server.kinesis().read_all("exact").await;
        (rows.len() >= ROWS).then_some(rows)
    })
    .await;
    assert_eq!(ids(&exact), (0..ROWS as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_job_without_credentials_says_where_it_looked() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let none = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
        ("AWS_CONFIG_FILE", nowhere),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let server = Server::start_in(&directory.path().join("data"), &[], &none);
    for stream in ["exact", "output"] {
        server.kinesis().create_stream(stream, 1).await;
    }
    let submitted = server
        .post("/v1/jobs", &json!({"name": "bridge", "sql": job(server.url())}))
        .await;
    assert_eq!(submitted.status, 201, "{:?}", submitted.body);
    let told = eventually("the reason", || async {
        let job = server.job("bridge").await;
        job["last_error"]["message"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        told.contains("no credentials were found in the environment or the profile"),
        "{told}"
    );
}
