//! Acknowledged records per second through `PutRecords` of 500 records of 1 KiB, with latencies.
//!
//! `cargo run --release -p tidemill-benches --bin http_put_records -- ENDPOINT [IN_FLIGHT] [SECONDS]`, against a running
//! `tidemill server`. It makes a stream `load` of 4 shards if there is none. Closed loop: each of the requests in flight
//! is sent when the one before it was answered.

use anyhow::{Context, bail};
use base64::Engine as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RECORDS: usize = 500;
const RECORD_BYTES: usize = 1_024;

#[allow(clippy::print_stdout)] // its output is what it is for
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments
        .next()
        .context("name the endpoint, for example http://127.0.0.1:4566")?;
    let in_flight: usize = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    // The client wants a provider of cryptography even where nothing is encrypted.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("a provider of cryptography is installed already");
    }
    let client = reqwest::Client::new();
    let created = call(
        &client,
        &endpoint,
        "CreateStream",
        r#"{"StreamName":"load","ShardCount":4}"#.to_owned(),
    )
    .await;
    if let Err(error) = created
        && !error.to_string().contains("ResourceInUseException")
    {
        return Err(error);
    }
    let data = base64::engine::general_purpose::STANDARD.encode([b'x'; RECORD_BYTES]);
    let records: Vec<serde_json::Value> = (0..RECORDS)
        .map(|key| serde_json::json!({"PartitionKey": format!("key-{key}"), "Data": data}))
        .collect();
    let body = Arc::new(serde_json::json!({"StreamName": "load", "Records": records}).to_string());

    let started = Instant::now();
    let deadline = started + Duration::from_secs(seconds);
    let senders: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, endpoint, body) = (client.clone(), endpoint.clone(), Arc::clone(&body));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < deadline {
                    let sent = Instant::now();
                    let answer = call(&client, &endpoint, "PutRecords", body.as_str().to_owned()).await?;
                    if !answer.contains(r#""FailedRecordCount":0"#) {
                        bail!("some records failed: {answer:.200}");
                    }
                    latencies.push(sent.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for sender in senders {
        latencies.extend(sender.await??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let percentile = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1_000];
    println!(
        "{} requests of {RECORDS} x {RECORD_BYTES} B, {in_flight} in flight, {elapsed:.1} s: {:.0} records/s, p50 {:.2?}, p99 \
         {:.2?}, p99.9 {:.2?}",
        latencies.len(),
        (latencies.len() * RECORDS) as f64 / elapsed,
        percentile(500),
        percentile(990),
        percentile(999),
    );
    Ok(())
}

async fn call(client: &reqwest::Client, endpoint: &str, operation: &str, body: String) -> anyhow::Result<String> {
    let request = client
        .post(endpoint)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .body(body);
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("{operation} answered {status}: {text}");
    }
    Ok(text)
}
