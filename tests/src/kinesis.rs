//! The Kinesis API as bare HTTP, for tests that are about something else than the client.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Kinesis {
    url: String,
    http: reqwest::Client,
}

impl Kinesis {
    pub(crate) fn new(url: &str, http: reqwest::Client) -> Self {
        Self {
            url: url.to_owned(),
            http,
        }
    }

    /// Calls an operation; answers its status and body.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn call(&self, operation: &str, body: &Value) -> (u16, Value) {
        let request = self
            .http
            .post(&self.url)
            .header("X-Amz-Target", format!("Kinesis_20131202.{operation}"));
        let request = request
            .header("Content-Type", "application/x-amz-json-1.1")
            .body(body.to_string());
        let response = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{operation} was not answered: {error}"));
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap_or_default();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Calls an operation with further headers, as one that may be left without an answer; answers status, headers and body.
    pub async fn try_call(
        &self,
        operation: &str,
        body: &Value,
        headers: &[(&str, String)],
    ) -> Option<(u16, HeaderMap, Value)> {
        let mut request = self
            .http
            .post(&self.url)
            .header("X-Amz-Target", format!("Kinesis_20131202.{operation}"))
            .header("Content-Type", "application/x-amz-json-1.1");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.body(body.to_string()).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.ok()?;
        Some((status, headers, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// Calls an operation that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub async fn must(&self, operation: &str, body: &Value) -> Value {
        let (status, answer) = self.call(operation, body).await;
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// Creates a stream.
    pub async fn create_stream(&self, name: &str, shards: u32) {
        self.must("CreateStream", &json!({ "StreamName": name, "ShardCount": shards }))
            .await;
    }

    /// Puts JSON records, each under its partition key.
    ///
    /// # Panics
    /// When one is refused.
    pub async fn put(&self, stream: &str, records: &[(&str, Value)]) {
        for records in records.chunks(500) {
            let records: Vec<Value> = records
                .iter()
                .map(|(key, value)| json!({ "PartitionKey": key, "Data": BASE64.encode(value.to_string()) }))
                .collect();
            let answer = self
                .must("PutRecords", &json!({ "StreamName": stream, "Records": records }))
                .await;
            assert_eq!(answer["FailedRecordCount"], 0, "{answer}");
        }
    }

    /// Reads everything that a stream holds now, shard by shard.
    ///
    /// # Panics
    /// When a record is not JSON.
    pub async fn read_all(&self, stream: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let shards = self.must("ListShards", &json!({ "StreamName": stream })).await;
        for shard in shards["Shards"].as_array().into_iter().flatten() {
            let from =
                json!({ "StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON" });
            let mut iterator = self.must("GetShardIterator", &from).await["ShardIterator"].clone();
            while iterator.is_string() {
                let answer = self.must("GetRecords", &json!({ "ShardIterator": iterator })).await;
                let records = answer["Records"].as_array().cloned().unwrap_or_default();
                if records.is_empty() && answer["MillisBehindLatest"] == 0 {
                    break;
                }
                all.extend(records.iter().map(|record| {
                    let data = BASE64
                        .decode(record["Data"].as_str().unwrap_or_default())
                        .expect("base64");
                    serde_json::from_slice::<Value>(&data).expect("a JSON record")
                }));
                iterator = answer["NextShardIterator"].clone();
            }
        }
        all
    }
}
