//! Limits of the API to the byte, and values at the ends of their ranges.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidemill_shards::StoreOptions;
use tidemill_shards::env::SimDisk;
use tidemill_shards::kinesis::SubscriptionOptions;
use tidemill_shards::limits::{PUT_BYTES_MAX, PUT_RECORDS_MAX, RECORD_KIB_MAX};

use crate::kinesis::Client;
use crate::support::*;

/// A client of a store with segments that a request need not extend.
fn client(disk: &SimDisk) -> Client {
    let options = StoreOptions {
        segment_bytes: 32 << 20,
        ..options()
    };
    Client::with(disk, options, SubscriptionOptions::default())
}

fn record(key: &str, bytes: usize) -> Value {
    json!({"PartitionKey": key, "Data": STANDARD.encode(vec![b'x'; bytes])})
}

/// How many bytes of data can be read from the only shard.
async fn stored(client: &Client, stream: &str) -> (usize, usize) {
    let mut iterator = client
        .iterator(stream, json!({"ShardIteratorType": "TRIM_HORIZON"}))
        .await;
    let (mut records, mut bytes) = (0, 0);
    loop {
        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        let found = answer["Records"].as_array().unwrap();
        if found.is_empty() && answer["MillisBehindLatest"] == 0 {
            return (records, bytes);
        }
        records += found.len();
        bytes += found
            .iter()
            .map(|record| STANDARD.decode(record["Data"].as_str().unwrap()).unwrap().len())
            .sum::<usize>();
        iterator = answer["NextShardIterator"].as_str().unwrap().to_owned();
    }
}

#[test]
fn the_largest_record_is_stored_and_one_byte_more_is_refused() {
    block_on(async {
        let disk = SimDisk::new();
        let client = client(&disk);
        let body = json!({"StreamName": "s", "ShardCount": 1, "MaxRecordSizeInKiB": RECORD_KIB_MAX});
        client.ok("CreateStream", body).await;
        let most = RECORD_KIB_MAX as usize * 1024;
        for (key, bytes, is_taken) in [
            ("k", most - 1, true),
            ("k", most, false),
            ("kk", most - 2, true),
            ("kk", most - 1, false),
        ] {
            let mut body = record(key, bytes);
            body["StreamName"] = "s".into();
            let (status, answer) = client.call("PutRecord", body).await;
            assert_eq!(
                status == 200,
                is_taken,
                "{bytes} bytes and a key of {}: {answer}",
                key.len()
            );
        }
        assert_eq!(stored(&client, "s").await, (2, 2 * most - 3));
        let body = json!({"StreamName": "t", "ShardCount": 1, "MaxRecordSizeInKiB": RECORD_KIB_MAX + 1});
        assert_eq!(client.error("CreateStream", body).await.0, "ValidationException");
        // And it is there after a restart.
        drop(client);
        let client = self::client(&disk);
        assert_eq!(stored(&client, "s").await, (2, 2 * most - 3));
    });
}

#[test]
fn a_request_holds_500_records_and_10_mib_and_no_more() {
    block_on(async {
        let client = client(&SimDisk::new());
        client.stream("s", 1).await;
        let put = async |records: Vec<Value>| {
            client
                .call("PutRecords", json!({"StreamName": "s", "Records": records}))
                .await
        };
        let (status, answer) = put(vec![record("k", 1); PUT_RECORDS_MAX]).await;
        assert_eq!((status, &answer["FailedRecordCount"]), (200, &json!(0)));
        assert_eq!(answer["Records"].as_array().unwrap().len(), 500);
        let (status, answer) = put(vec![record("k", 1); PUT_RECORDS_MAX + 1]).await;
        assert_eq!((status, &answer["__type"]), (400, &json!("ValidationException")));

        // Ten records of 1 MiB with their keys are 10 MiB to the byte.
        let whole = record("k", (PUT_BYTES_MAX / 10) - 1);
        let (status, answer) = put(vec![whole.clone(); 10]).await;
        assert_eq!((status, &answer["FailedRecordCount"]), (200, &json!(0)));
        let mut more = vec![whole; 10];
        more.push(json!({"PartitionKey": "k", "Data": ""}));
        let (status, answer) = put(more).await;
        assert_eq!((status, &answer["__type"]), (400, &json!("InvalidArgumentException")));
        assert_eq!(stored(&client, "s").await, (510, 500 + PUT_BYTES_MAX - 10));
    });
}

#[test]
fn times_at_the_ends_of_their_range_are_answered() {
    block_on(async {
        let client = client(&SimDisk::new());
        client.stream("s", 1).await;
        client.put("s", "k", "v").await;
        let mut answered = 0;
        for time in [
            "0",
            "-1",
            "-0.0",
            "1e-320",
            "0.001",
            "-9223372036854775808",
            "9223372036854775807",
            "9223372036854775.807",
            "9223372036854776",
            "18446744073709551615",
            "18446744073709551616",
            "1e18",
            "1e19",
            "1e300",
            "-1e300",
            "1e999",
            "-1e999",
            "253402300800",
            "8640000000001",
            "1.7976931348623157e308",
        ] {
            let requests = [
                (
                    "GetShardIterator",
                    format!(
                        r#"{{"StreamName":"s","ShardId":"shardId-000000000000","ShardIteratorType":"AT_TIMESTAMP","Timestamp":{time}}}"#
                    ),
                ),
                (
                    "ListShards",
                    format!(r#"{{"StreamName":"s","ShardFilter":{{"Type":"FROM_TIMESTAMP","Timestamp":{time}}}}}"#),
                ),
                (
                    "ListShards",
                    format!(r#"{{"StreamName":"s","StreamCreationTimestamp":{time}}}"#),
                ),
            ];
            for (operation, body) in requests {
                let target = format!("Kinesis_20131202.{operation}");
                let response = client.raw(&target, "application/x-amz-json-1.1", body.as_bytes()).await;
                assert!(
                    matches!(response.status, 200 | 400),
                    "{operation} {time}: {}",
                    response.status
                );
                if operation == "GetShardIterator" && response.status == 200 {
                    let answer: Value = serde_json::from_slice(&response.body).unwrap();
                    client.data(answer["ShardIterator"].as_str().unwrap()).await;
                }
                answered += 1;
            }
        }
        // In CBOR times can be floats that JSON cannot write.
        for bits in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            f64::MAX,
            f64::MIN_POSITIVE,
        ] {
            let text = |text: &str| ciborium::Value::Text(text.to_owned());
            let body = ciborium::Value::Map(vec![
                (text("StreamName"), text("s")),
                (text("ShardId"), text("shardId-000000000000")),
                (text("ShardIteratorType"), text("AT_TIMESTAMP")),
                (
                    text("Timestamp"),
                    ciborium::Value::Tag(1, Box::new(ciborium::Value::Float(bits))),
                ),
            ]);
            let mut bytes = Vec::new();
            ciborium::into_writer(&body, &mut bytes).unwrap();
            let target = "Kinesis_20131202.GetShardIterator";
            let response = client.raw(target, "application/x-amz-cbor-1.1", &bytes).await;
            assert!(matches!(response.status, 200 | 400), "{bits}: {}", response.status);
            answered += 1;
        }
        assert_eq!(answered, 66);
    });
}

/// Everything that a client keeps of a stream is worth nothing for another one that took its name.
#[test]
fn a_stream_that_took_a_name_is_not_mistaken_for_the_old_one() {
    block_on(async {
        let disk = SimDisk::new();
        let client = client(&disk);
        client.stream("s", 1).await;
        client.stream("neighbour", 1).await;
        let receipt = client.put("s", "k", "old").await;
        let old = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let page = client.ok("ListShards", json!({"StreamName": "neighbour"})).await;
        assert!(page.get("NextToken").is_none());
        assert_eq!(client.data(&old).await, ["old"]);
        client.ok("DeleteStream", json!({"StreamName": "s"})).await;
        client.clock.advance(1);
        client.stream("s", 1).await;
        client.put("s", "k", "new").await;
        for round in 0..2 {
            let (error, _) = client.error("GetRecords", json!({"ShardIterator": old})).await;
            assert_eq!(error, "ResourceNotFoundException", "round {round}");
            let body = json!({
                "StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "AT_SEQUENCE_NUMBER",
                "StartingSequenceNumber": receipt["SequenceNumber"],
            });
            let (error, message) = client.error("GetShardIterator", body).await;
            assert_eq!(error, "InvalidArgumentException");
            assert!(message.contains("did not come from this stream"), "{message}");
            let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
            assert_eq!(client.data(&iterator).await, ["new"]);
        }
    });
}
