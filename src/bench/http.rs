//! PutRecords of 500 records over HTTP.
//!
//! Closed loop: so many requests in flight, each sent when the one before it was answered. Open loop: requests leave at a
//! fixed rate whatever the answers do, and their time counts from when they should have left. The body is encoded once:
//! the client's CPU is that of sending.

use super::child::{ChildServer, cpu_of, own_cpu};
use super::latency::{Latencies, Percentiles};
use super::scratch::Scratch;
use super::{BenchOptions, Protocol, RECORD_BYTES, cbor, progress};
use crate::cli::kinesis::KinesisClient;
use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Records of a request.
const REQUEST_RECORDS: usize = 500;
/// Requests of an open loop that wait for their answer; beyond it the server has lost.
const OUTSTANDING_MAX: usize = 4_096;
/// The stream that is written to.
const STREAM: &str = "tidemill-bench";

/// What a load gave.
#[derive(Debug, Serialize)]
pub(super) struct Loaded {
    /// Its encoding.
    pub(super) protocol: Protocol,
    /// Its kind.
    pub(super) load: Load,
    /// The outcome.
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Load {
    /// So many requests in flight.
    Closed {
        /// How many.
        in_flight: usize,
    },
    /// Requests at a fixed rate.
    Open {
        /// Records a second.
        rate: u32,
    },
}

/// How a load went.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    /// All records were stored.
    Stored(Stored),
    /// The server would not have it.
    Refused {
        /// Why.
        refused: String,
    },
}

/// What was reached.
#[derive(Debug, Serialize)]
pub(super) struct Stored {
    /// Acknowledged records a second.
    pub(super) records_per_second: f64,
    /// Their data, in 1,000,000 bytes a second.
    pub(super) mb_per_second: f64,
    /// Of requests.
    #[serde(flatten)]
    pub(super) latency: Percentiles,
    /// CPU time of this process for each record, microseconds.
    pub(super) client_cpu_us: f64,
    /// CPU time of the server for each record, microseconds; null when its process is not known.
    pub(super) server_cpu_us: Option<f64>,
}

/// Measures all encodings and loads, in a stream of a server of its own or of the one that was named.
pub(super) async fn measure(options: &BenchOptions, scratch: &Scratch) -> anyhow::Result<Vec<Loaded>> {
    let mut directory = None;
    let (child, url, process) = match &options.server {
        Some((url, process)) => (None, url.clone(), *process),
        None => {
            let made = directory.insert(scratch.directory("http")?);
            let child = ChildServer::start(made.path()).await?;
            let (url, process) = (child.url.clone(), child.process);
            (Some(child), url, Some(process))
        }
    };
    let client = KinesisClient::new(&url)?;
    let body = json!({ "StreamName": STREAM, "ShardCount": options.shards });
    match client.call("CreateStream", &body).await {
        // An earlier run was ended, or another one is under way; records more or less do not matter.
        Err(error) if error.is("ResourceInUseException") => {}
        other => other.map(|_| ())?,
    }
    client.wait_until_active(STREAM).await?;
    let loaded = measure_all(options, &client, process).await;
    if options.server.is_some() {
        client.call("DeleteStream", &json!({ "StreamName": STREAM })).await?;
    }
    drop(child);
    loaded
}

async fn measure_all(
    options: &BenchOptions,
    client: &KinesisClient,
    process: Option<u32>,
) -> anyhow::Result<Vec<Loaded>> {
    let mut all = Vec::new();
    let closed = Load::Closed {
        in_flight: options.connections,
    };
    let loads: Vec<Load> = [closed]
        .into_iter()
        .chain(options.rates.iter().map(|&rate| Load::Open { rate }))
        .collect();
    for &protocol in &options.protocols {
        let sender = Sender {
            client: client.clone(),
            protocol,
            body: body(protocol).into(),
        };
        // One request beforehand: it opens a connection, and tells whether the server speaks this.
        if let Err(reason) = sender.send().await {
            if protocol == Protocol::Json {
                bail!("PutRecords failed: {reason}");
            }
            progress(format_args!("http, {protocol:?}: refused"));
            all.push(Loaded {
                protocol,
                load: closed,
                outcome: Outcome::Refused { refused: reason },
            });
            continue;
        }
        for &load in &loads {
            progress(format_args!("http, {protocol:?}, {load:?}"));
            let before = (own_cpu()?, process.map(cpu_of).transpose()?);
            let started = Instant::now();
            let latencies = match load {
                Load::Closed { in_flight } => closed_loop(&sender, in_flight, options.duration).await?,
                Load::Open { rate } => open_loop(&sender, rate, options.duration).await?,
            };
            // An open loop ends one interval after its last request, not with its answer.
            let elapsed = started.elapsed().max(options.duration).as_secs_f64();
            let after = (own_cpu()?, process.map(cpu_of).transpose()?);
            let records = (latencies.len() * REQUEST_RECORDS) as f64;
            let per_record = |spent: Duration| spent.as_secs_f64() * 1e6 / records;
            let stored = Stored {
                records_per_second: records / elapsed,
                mb_per_second: records * RECORD_BYTES as f64 / elapsed / 1e6,
                latency: latencies.percentiles(),
                client_cpu_us: per_record(after.0 - before.0),
                server_cpu_us: after.1.zip(before.1).map(|(after, before)| per_record(after - before)),
            };
            all.push(Loaded {
                protocol,
                load,
                outcome: Outcome::Stored(stored),
            });
        }
    }
    Ok(all)
}

/// The request, the same every time; its keys spread over the shards.
fn body(protocol: Protocol) -> Vec<u8> {
    let data = [b'x'; RECORD_BYTES];
    let key = |record: usize| format!("key-{record}");
    match protocol {
        Protocol::Json => {
            let data = BASE64.encode(data);
            let records: Vec<Value> = (0..REQUEST_RECORDS)
                .map(|record| json!({ "PartitionKey": key(record), "Data": data }))
                .collect();
            json!({ "StreamName": STREAM, "Records": records })
                .to_string()
                .into_bytes()
        }
        Protocol::Cbor => cbor::put_records(STREAM, (0..REQUEST_RECORDS).map(|record| (key(record), &data[..]))),
    }
}

#[derive(Clone)]
struct Sender {
    client: KinesisClient,
    protocol: Protocol,
    body: Bytes,
}

impl Sender {
    /// Sends the request and waits for its answer.
    async fn send(&self) -> Result<(), String> {
        let content_type = match self.protocol {
            Protocol::Json => "application/x-amz-json-1.1",
            Protocol::Cbor => "application/x-amz-cbor-1.1",
        };
        let request = self.client.request("PutRecords", content_type).body(self.body.clone());
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let answer = response.bytes().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
            return Err(format!("status {status}: {text}"));
        }
        let failed = match self.protocol {
            Protocol::Json => failed_in_json(&answer),
            Protocol::Cbor => cbor::failed_record_count(&answer),
        };
        match failed {
            Some(0) => Ok(()),
            Some(failed) => Err(format!("{failed} records of a request were not stored")),
            None => Err("an answer has no FailedRecordCount".into()),
        }
    }
}

/// Reads the count without the 500 results, which nobody looks at.
fn failed_in_json(answer: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(rename = "FailedRecordCount")]
        failed: u64,
    }
    serde_json::from_slice::<Answer>(answer)
        .ok()
        .map(|answer| answer.failed)
}

async fn closed_loop(sender: &Sender, in_flight: usize, duration: Duration) -> anyhow::Result<Latencies> {
    let deadline = Instant::now() + duration;
    let mut senders = JoinSet::new();
    for _ in 0..in_flight {
        let sender = sender.clone();
        senders.spawn(async move {
            let mut latencies = Latencies::default();
            while Instant::now() < deadline {
                let sent = Instant::now();
                sender.send().await?;
                latencies.add(sent.elapsed());
            }
            Ok::<_, String>(latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(latencies) = senders.join_next().await {
        all.extend(latencies?.map_err(anyhow::Error::msg)?);
    }
    Ok(all)
}

async fn open_loop(sender: &Sender, rate: u32, duration: Duration) -> anyhow::Result<Latencies> {
    let interval = Duration::from_secs(1) * REQUEST_RECORDS as u32 / rate.max(1);
    let requests = (duration.as_secs_f64() / interval.as_secs_f64()).ceil() as u32;
    let started = tokio::time::Instant::now();
    let (mut outstanding, mut latencies) = (JoinSet::new(), Latencies::default());
    let take = |latencies: &mut Latencies, ended: Result<Result<Duration, String>, tokio::task::JoinError>| {
        latencies.add(ended?.map_err(anyhow::Error::msg)?);
        anyhow::Ok(())
    };
    for request in 0..requests {
        let due = started + interval * request;
        tokio::time::sleep_until(due).await;
        let sender = sender.clone();
        outstanding.spawn(async move { sender.send().await.map(|()| due.elapsed()) });
        while let Some(ended) = outstanding.try_join_next() {
            take(&mut latencies, ended)?;
        }
        if outstanding.len() > OUTSTANDING_MAX {
            bail!(
                "{rate} records/s are too many: {OUTSTANDING_MAX} requests wait for their answers; choose a lower --rate"
            );
        }
    }
    while let Some(ended) = outstanding.join_next().await {
        take(&mut latencies, ended)?;
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_hold_the_same_records() {
        let request: Value = serde_json::from_slice(&body(Protocol::Json)).unwrap();
        assert_eq!(request["Records"].as_array().unwrap().len(), REQUEST_RECORDS);
        let cbor = body(Protocol::Cbor);
        // Data as it is, and some 30 bytes around it.
        let most = REQUEST_RECORDS * (RECORD_BYTES + 40);
        assert!(
            (REQUEST_RECORDS * RECORD_BYTES..most).contains(&cbor.len()),
            "{}",
            cbor.len()
        );
    }

    #[test]
    fn an_answer_must_say_that_nothing_failed() {
        assert_eq!(failed_in_json(br#"{"FailedRecordCount":2,"Records":[]}"#), Some(2));
        assert_eq!(failed_in_json(b"{}"), None);
    }
}
