//! The AWS SDK for Rust against our server: plain HTTP to loopback, no repetition of its own.
//!
//! A server that was killed listens on another port when it is back, so clients are asked for when they are needed.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidemill_tests::PATIENCE;

/// The time before something is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) sequence: String,
    pub(super) partition_key: String,
    pub(super) data: Vec<u8>,
}

/// A record to put.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) partition_key: String,
    /// Decides on the shard instead of the partition key.
    pub(super) explicit_hash_key: Option<String>,
    pub(super) data: Vec<u8>,
}

/// A client of whatever server there is now.
#[derive(Clone, Debug)]
pub(super) struct Clients(Arc<Mutex<Client>>);

impl Clients {
    pub(super) fn new(url: &str) -> Self {
        Self(Arc::new(Mutex::new(client(url))))
    }

    /// Follows the server to another address.
    pub(super) fn moved_to(&self, url: &str) {
        *self.0.lock().unwrap() = client(url);
    }

    pub(super) fn now(&self) -> Client {
        self.0.lock().unwrap().clone()
    }

    /// Puts records until all of them are acknowledged: entries that failed are sent again, and everything when there was no
    /// answer, so that some may be stored twice.
    pub(super) async fn put(&self, stream: &str, mut records: Vec<Put>) {
        let start = Instant::now();
        while !records.is_empty() {
            let entries = records.iter().map(|record| {
                let entry = PutRecordsRequestEntry::builder().data(Blob::new(record.data.clone()));
                let entry = entry.partition_key(&record.partition_key);
                entry
                    .set_explicit_hash_key(record.explicit_hash_key.clone())
                    .build()
                    .expect("a whole entry")
            });
            let request = self
                .now()
                .put_records()
                .stream_name(stream)
                .set_records(Some(entries.collect()));
            match request.send().await {
                Ok(answer) => {
                    let results = answer.records();
                    assert_eq!(results.len(), records.len());
                    let failed = results.iter().filter(|result| result.error_code().is_some()).count();
                    assert_eq!(usize::try_from(answer.failed_record_count().unwrap_or(0)), Ok(failed));
                    let mut results = results.iter();
                    records.retain(|_| results.next().is_some_and(|result| result.error_code().is_some()));
                    if records.is_empty() {
                        return;
                    }
                }
                Err(error) => assert!(start.elapsed() < PATIENCE, "PutRecords fails for too long: {error:?}"),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Lists the ids of a stream's shards with their first hash keys.
    pub(super) async fn shards(&self, stream: &str) -> Vec<(String, String)> {
        let answer = self
            .now()
            .list_shards()
            .stream_name(stream)
            .send()
            .await
            .expect("ListShards");
        let shards = answer.shards().iter().map(|shard| {
            let range = shard.hash_key_range().expect("a range");
            (shard.shard_id().to_owned(), range.starting_hash_key().to_owned())
        });
        shards.collect()
    }

    /// Reads everything that a stream holds now, by shard, from TRIM_HORIZON.
    pub(super) async fn read_all(&self, stream: &str) -> Vec<(String, Vec<Read>)> {
        let client = self.now();
        let mut all = Vec::new();
        for (shard, _) in self.shards(stream).await {
            let mut records = Vec::new();
            let mut iterator = Some(iterator(&client, stream, &shard, None).await.expect("GetShardIterator"));
            while let Some(current) = iterator {
                let (next, found, is_end) = read(&client, &current).await.expect("GetRecords");
                records.extend(found);
                iterator = next.filter(|_| !is_end);
            }
            all.push((shard, records));
        }
        all
    }
}

/// Returns an iterator behind a sequence number, or at the oldest record.
pub(super) async fn iterator(
    client: &Client,
    stream: &str,
    shard: &str,
    after: Option<&str>,
) -> Result<String, String> {
    let request = client.get_shard_iterator().stream_name(stream).shard_id(shard);
    let request = match after {
        None => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
        Some(sequence) => request
            .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
            .starting_sequence_number(sequence),
    };
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    Ok(answer.shard_iterator().expect("an iterator").to_owned())
}

/// Reads the next records: the next iterator, the records, and whether there is nothing behind them now.
pub(super) async fn read(client: &Client, iterator: &str) -> Result<(Option<String>, Vec<Read>, bool), String> {
    let answer = client
        .get_records()
        .shard_iterator(iterator)
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let records: Vec<Read> = answer
        .records()
        .iter()
        .map(|record| Read {
            sequence: record.sequence_number().to_owned(),
            partition_key: record.partition_key().unwrap_or_default().to_owned(),
            data: record.data().as_ref().to_vec(),
        })
        .collect();
    let is_end = records.is_empty() && answer.millis_behind_latest() == Some(0);
    Ok((answer.next_shard_iterator().map(str::to_owned), records, is_end))
}

/// Makes a client that does not repeat by itself: what is sent twice is for the test to know.
fn client(url: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}
