//! As much of a Kinesis client as the demonstration needs, over HTTP: what boto3 or an AWS SDK would send.

use crate::cli::kinesis::KinesisClient;
use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::time::Duration;

/// The greatest number of records in one PutRecords.
pub(super) const PUT_RECORDS_MAX: usize = 500;
/// How often records that were refused are sent again.
const ATTEMPTS_MAX: u32 = 10;
/// The delay before the first repetition; it doubles.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// A record to put.
#[derive(Clone, Debug)]
pub(super) struct PutRecord {
    /// Decides on the shard.
    pub(super) partition_key: String,
    /// Decides on the shard instead, if there is one.
    pub(super) explicit_hash_key: Option<String>,
    /// The content.
    pub(super) data: Vec<u8>,
}

/// A client of one server.
#[derive(Clone, Debug)]
pub(super) struct Kinesis {
    client: KinesisClient,
}

/// A shard, as ListShards tells it.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    /// Its id.
    pub(super) id: String,
    /// The first hash key that leads to it.
    pub(super) starting_hash_key: String,
}

impl Kinesis {
    /// Makes a client of the server at `url`.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: KinesisClient::new(url)?,
        })
    }

    async fn call(&self, operation: &str, body: &Value) -> anyhow::Result<Value> {
        self.client
            .call(operation, body)
            .await
            .with_context(|| format!("{operation} failed"))
    }

    /// Creates a stream and waits until it can be used.
    pub(super) async fn create_stream(&self, name: &str, shards: u32) -> anyhow::Result<()> {
        self.call("CreateStream", &json!({ "StreamName": name, "ShardCount": shards }))
            .await?;
        self.client.wait_until_active(name).await?;
        Ok(())
    }

    /// Lists the shards of a stream.
    pub(super) async fn shards(&self, stream: &str) -> anyhow::Result<Vec<Shard>> {
        let shards = self.client.shards(stream).await?;
        Ok(shards
            .into_iter()
            .map(|shard| Shard {
                id: shard.id,
                starting_hash_key: shard.first_key.to_string(),
            })
            .collect())
    }

    /// Puts records, at most [`PUT_RECORDS_MAX`] of them; those that are refused are sent again until all are stored.
    pub(super) async fn put_records(&self, stream: &str, mut records: Vec<PutRecord>) -> anyhow::Result<()> {
        for attempt in 0..ATTEMPTS_MAX {
            let entries: Vec<Value> = records.iter().map(entry).collect();
            let answer = self
                .call("PutRecords", &json!({ "StreamName": stream, "Records": entries }))
                .await?;
            let results = answer
                .get("Records")
                .and_then(Value::as_array)
                .context("PutRecords told no results")?;
            ensure!(
                results.len() == records.len(),
                "PutRecords told {} results of {}",
                results.len(),
                records.len()
            );
            let refused = |result: &Value| result.get("ErrorCode").is_some_and(|code| !code.is_null());
            let mut results = results.iter();
            records.retain(|_| results.next().is_some_and(refused));
            if records.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(RETRY_DELAY * 2u32.pow(attempt.min(6))).await;
        }
        bail!("{} records were refused {ATTEMPTS_MAX} times", records.len())
    }

    /// Returns an iterator at the oldest record of a shard.
    pub(super) async fn oldest(&self, stream: &str, shard: &str) -> anyhow::Result<String> {
        let body = json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
        let answer = self.call("GetShardIterator", &body).await?;
        let iterator = answer
            .get("ShardIterator")
            .and_then(Value::as_str)
            .context("GetShardIterator told no iterator")?;
        Ok(iterator.to_owned())
    }

    /// Reads the next records: their contents, the next iterator, and whether there is nothing behind them now.
    pub(super) async fn next(&self, iterator: &str) -> anyhow::Result<(Vec<Vec<u8>>, Option<String>, bool)> {
        let answer = self
            .call("GetRecords", &json!({ "ShardIterator": iterator, "Limit": 10_000 }))
            .await?;
        let records = answer
            .get("Records")
            .and_then(Value::as_array)
            .context("GetRecords told no records")?;
        let contents = records
            .iter()
            .map(|record| {
                let data = record
                    .get("Data")
                    .and_then(Value::as_str)
                    .context("a record without data")?;
                BASE64.decode(data).context("a record whose data is not base64")
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let next = answer
            .get("NextShardIterator")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let is_end = contents.is_empty() && answer.get("MillisBehindLatest").and_then(Value::as_u64) == Some(0);
        Ok((contents, next, is_end))
    }

    /// Reads everything that a shard holds.
    pub(super) async fn read_all(&self, stream: &str, shard: &str) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        let mut iterator = Some(self.oldest(stream, shard).await?);
        while let Some(current) = iterator {
            let (contents, next, is_end) = self.next(&current).await?;
            all.extend(contents);
            iterator = next.filter(|_| !is_end);
        }
        Ok(all)
    }
}

fn entry(record: &PutRecord) -> Value {
    let mut entry = json!({ "Data": BASE64.encode(&record.data), "PartitionKey": record.partition_key });
    if let Some(key) = &record.explicit_hash_key {
        entry["ExplicitHashKey"] = key.as_str().into();
    }
    entry
}
