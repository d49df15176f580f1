//! The Kinesis API as a client sees it: names of errors, messages, pages, iterators.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_shards::env::{ManualClock, SimDisk};
use tidemill_shards::kinesis::{ApiBody, KinesisApi, RequestContext, SubscriptionOptions};
use tidemill_shards::limits::ROOM_RETRY_MS;
use tidemill_shards::{ShardStore, StoreOptions};

use crate::support::*;

/// An answer with a whole body.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Client {
    pub(crate) api: KinesisApi,
    pub(crate) clock: ManualClock,
}

impl Client {
    pub(crate) fn new(disk: &SimDisk) -> Self {
        Self::with_delay(disk, 0)
    }

    /// A store that tells of each change for a while.
    pub(crate) fn with_delay(disk: &SimDisk, lifecycle_delay_ms: u64) -> Self {
        let options = StoreOptions {
            lifecycle_delay_ms,
            ..options()
        };
        Self::with(disk, options, SubscriptionOptions::default())
    }

    pub(crate) fn with(disk: &SimDisk, options: StoreOptions, subscriptions: SubscriptionOptions) -> Self {
        let clock = ManualClock::new(NOW_MS);
        let options = StoreOptions {
            shards_max: 50,
            ..options
        };
        let store = ShardStore::open_in(environment(disk, &clock), options).unwrap();
        Self {
            api: KinesisApi::with_options(store, subscriptions),
            clock,
        }
    }

    pub(crate) async fn raw(&self, target: &str, content_type: &str, body: &[u8]) -> Response {
        self.in_context(target, content_type, body, &RequestContext::default())
            .await
    }

    pub(crate) async fn in_context(
        &self,
        target: &str,
        content_type: &str,
        body: &[u8],
        context: &RequestContext,
    ) -> Response {
        let body = Bytes::copy_from_slice(body);
        let response = self.api.handle(target, content_type, body, context).await;
        let ApiBody::Full(body) = response.body else {
            panic!("{target} was answered with a subscription");
        };
        Response {
            status: response.status,
            headers: response.headers,
            body,
        }
    }

    pub(crate) async fn call(&self, operation: &str, body: Value) -> (u16, Value) {
        let target = format!("Kinesis_20131202.{operation}");
        let response = self
            .raw(&target, "application/x-amz-json-1.1", body.to_string().as_bytes())
            .await;
        let json = if response.body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&response.body).unwrap()
        };
        (response.status, json)
    }

    pub(crate) async fn ok(&self, operation: &str, body: Value) -> Value {
        let (status, answer) = self.call(operation, body).await;
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// The name and message of an error.
    pub(crate) async fn error(&self, operation: &str, body: Value) -> (String, String) {
        let (status, answer) = self.call(operation, body).await;
        assert_eq!(status, 400, "{operation}: {answer}");
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        (text("__type"), text("message") + &text("Message"))
    }

    pub(crate) async fn stream(&self, name: &str, shards: u32) {
        self.ok("CreateStream", json!({"StreamName": name, "ShardCount": shards}))
            .await;
    }

    pub(crate) async fn put(&self, stream: &str, key: &str, data: &str) -> Value {
        let data = STANDARD.encode(data);
        self.ok(
            "PutRecord",
            json!({"StreamName": stream, "PartitionKey": key, "Data": data}),
        )
        .await
    }

    pub(crate) async fn iterator(&self, stream: &str, kind: Value) -> String {
        let mut body = json!({"StreamName": stream, "ShardId": "shardId-000000000000"});
        body.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        self.ok("GetShardIterator", body).await["ShardIterator"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn data(&self, iterator: &str) -> Vec<String> {
        let answer = self.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        let records = answer["Records"].as_array().unwrap().iter();
        records
            .map(|r| String::from_utf8(STANDARD.decode(r["Data"].as_str().unwrap()).unwrap()).unwrap())
            .collect()
    }
}

#[test]
fn transport_level_errors_are_those_of_the_service() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        let content_type = "application/x-amz-json-1.1";
        let list = "Kinesis_20131202.ListStreams";
        let response = client.raw(list, content_type, b"{}").await;
        assert_eq!(response.status, 200);
        let names: Vec<&str> = response.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["content-type", "x-amzn-RequestId", "x-amz-id-2"]);
        let context = RequestContext {
            request_id: Some("mine".into()),
            ..RequestContext::default()
        };
        let response = client.in_context(list, content_type, b"{}", &context).await;
        assert!(response.headers.contains(&("x-amzn-RequestId", "mine".to_owned())));

        let with_charset = client
            .raw(list, "application/x-amz-json-1.1; charset=utf-8", b"{}")
            .await;
        assert_eq!(with_charset.status, 200);
        let response = client.raw(list, "text/plain", b"{}").await;
        assert_eq!(
            (response.status, &response.body[..]),
            (404, &b"<UnknownOperationException/>\n"[..])
        );
        assert_eq!(client.raw("", content_type, b"{}").await.status, 403);
        let response = client.raw(list, content_type, &vec![b' '; (16 << 20) + 1]).await;
        assert_eq!((response.status, response.body.len()), (413, 0));
        for (target, body, expected) in [
            (list, &b"{"[..], r#"{"__type":"SerializationException"}"#),
            (list, b"[]", r#"{"__type":"SerializationException"}"#),
            (
                "Kinesis_20131202.Nonsense",
                b"{}",
                r#"{"__type":"UnknownOperationException"}"#,
            ),
            (
                "DynamoDB_20120810.ListTables",
                b"{}",
                r#"{"__type":"UnknownOperationException"}"#,
            ),
        ] {
            let response = client.raw(target, content_type, body).await;
            assert_eq!(
                (response.status, String::from_utf8(response.body).unwrap().as_str()),
                (400, expected)
            );
        }
        let (name, message) = client.error("CreateQueue", json!({})).await;
        assert_eq!(name, "UnsupportedOperationException");
        assert!(message.contains("CreateQueue"), "{message}");
        for (encoding, status) in [
            ("identity", 200),
            ("amz-1.0", 200),
            ("", 200),
            ("gzip", 400),
            ("identity, zstd", 400),
        ] {
            let context = RequestContext {
                content_encoding: Some(encoding.to_owned()),
                ..RequestContext::default()
            };
            let response = client.in_context(list, content_type, b"{}", &context).await;
            assert_eq!(response.status, status, "{encoding}");
        }
    });
}

#[test]
fn wrong_types_are_serialization_exceptions() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        for (operation, body, expected) in [
            (
                "DescribeStream",
                json!({"StreamName": true}),
                "class java.lang.Boolean can not be converted to an String",
            ),
            (
                "DescribeStream",
                json!({"StreamName": 5}),
                "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String",
            ),
            (
                "DescribeStream",
                json!({"StreamName": []}),
                "Start of list found where not expected",
            ),
            (
                "DescribeStream",
                json!({"StreamName": {}}),
                "Start of structure or map found where not expected.",
            ),
            (
                "DescribeStream",
                json!({"Limit": "1"}),
                "class java.lang.String can not be converted to an Integer",
            ),
            ("PutRecords", json!({"Records": "x"}), "Expected list or null"),
            ("PutRecords", json!({"Records": ["x"]}), "Expected null"),
            (
                "PutRecord",
                json!({"Data": "abc"}),
                "'abc' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 3",
            ),
            (
                "PutRecord",
                json!({"Data": "ab%="}),
                "'ab%=' can not be converted to a Blob: Invalid Base64 character: '%'",
            ),
            (
                "GetShardIterator",
                json!({"Timestamp": "x"}),
                "class java.lang.String can not be converted to milliseconds since epoch",
            ),
        ] {
            let (name, message) = client.error(operation, body).await;
            assert_eq!(
                (name.as_str(), message.as_str()),
                ("SerializationException", expected),
                "{operation}"
            );
        }
    });
}

#[test]
fn all_violated_constraints_come_in_one_message() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        let (name, message) = client
            .error("CreateStream", json!({"StreamName": "a b", "ShardCount": 0}))
            .await;
        assert_eq!(name, "ValidationException");
        assert_eq!(
            message,
            "2 validation errors detected: Value '0' at 'shardCount' failed to satisfy constraint: Member must have \
             value greater than or equal to 1; Value 'a b' at 'streamName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        );
        for (operation, body, expected) in [
            (
                "CreateStream",
                json!({}),
                "Value null at 'streamName' failed to satisfy constraint: Member must not be null",
            ),
            (
                "CreateStream",
                json!({"StreamName": "a", "StreamModeDetails": {"StreamMode": "X"}}),
                "Value 'X' at 'streamModeDetails.streamMode' failed to satisfy constraint: Member must satisfy enum value \
                 set: [PROVISIONED, ON_DEMAND]",
            ),
            (
                "DescribeStream",
                json!({"StreamName": "a".repeat(129)}),
                "Member must have length less than or equal to 128",
            ),
            (
                "DescribeStream",
                json!({"StreamName": "a", "Limit": 10_001}),
                "Member must have value less than or equal to 10000",
            ),
            (
                "PutRecords",
                json!({"StreamName": "a", "Records": [{"Data": "", "PartitionKey": "k"}, {"Data": "", "PartitionKey": ""}]}),
                "Value '' at 'records.2.member.partitionKey' failed to satisfy constraint: Member must have length greater \
                 than or equal to 1",
            ),
            (
                "PutRecords",
                json!({"StreamName": "a", "Records": []}),
                "Value '[]' at 'records' failed to satisfy constraint",
            ),
            (
                "PutRecords",
                json!({"StreamName": "a", "Records": vec![json!({"Data": "", "PartitionKey": "k"}); 501]}),
                "Member must have length less than or equal to 500",
            ),
            (
                "PutRecord",
                json!({"StreamName": "a", "PartitionKey": "k", "Data": "", "ExplicitHashKey": "-1"}),
                r"Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})",
            ),
            (
                "GetRecords",
                json!({"ShardIterator": "x".repeat(513)}),
                "Member must have length less than or equal to 512",
            ),
        ] {
            let (name, message) = client.error(operation, body).await;
            assert_eq!(name, "ValidationException", "{operation}: {message}");
            assert!(message.contains(expected), "{operation}: {message}");
        }
    });
}

#[test]
fn life_of_a_stream() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 3).await;
        let (name, message) = client
            .error("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
            .await;
        assert_eq!(name, "ResourceInUseException");
        assert_eq!(message, "Stream s under account 000000000000 already exists.");
        let (name, message) = client
            .error("CreateStream", json!({"StreamName": "t", "ShardCount": 48}))
            .await;
        assert_eq!(name, "LimitExceededException");
        assert!(message.contains("Limit: 50. Number of additional shards"), "{message}");
        for body in [
            json!({"StreamName": "t", "ShardCount": 1, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}),
            json!({"StreamName": "t", "StreamModeDetails": {"StreamMode": "PROVISIONED"}}),
            json!({"StreamName": "t", "ShardCount": 1, "WarmThroughputMiBps": 5}),
            json!({"StreamName": "t", "Tags": {"k": "<"}}),
        ] {
            assert_eq!(client.error("CreateStream", body).await.0, "InvalidArgumentException");
        }

        let first = client
            .ok("DescribeStream", json!({"StreamName": "s", "Limit": 2}))
            .await["StreamDescription"]
            .clone();
        assert_eq!(first["StreamStatus"], "ACTIVE");
        assert_eq!(first["StreamCreationTimestamp"], NOW_MS as f64 / 1000.0);
        assert_eq!(first["StreamModeDetails"]["StreamMode"], "PROVISIONED");
        assert_eq!(first["HasMoreShards"], true);
        assert_eq!(first["Shards"].as_array().unwrap().len(), 2);
        let arn = first["StreamARN"].as_str().unwrap().to_owned();
        assert_eq!(arn, "arn:aws:kinesis:us-east-1:000000000000:stream/s");
        let body = json!({"StreamARN": arn, "ExclusiveStartShardId": "shardId-000000000001"});
        let second = client.ok("DescribeStream", body).await["StreamDescription"].clone();
        assert_eq!(second["HasMoreShards"], false);
        assert_eq!(second["Shards"][0]["ShardId"], "shardId-000000000002");
        assert_eq!(
            second["Shards"][0]["HashKeyRange"]["EndingHashKey"],
            "340282366920938463463374607431768211455"
        );
        let summary =
            client.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await["StreamDescriptionSummary"].clone();
        assert_eq!(
            (
                summary["OpenShardCount"].as_u64(),
                summary["RetentionPeriodHours"].as_u64()
            ),
            (Some(3), Some(24))
        );

        client.ok("CreateStream", json!({"StreamName": "on-demand"})).await;
        let summary = client
            .ok("DescribeStreamSummary", json!({"StreamName": "on-demand"}))
            .await;
        assert_eq!(
            summary["StreamDescriptionSummary"]["StreamModeDetails"]["StreamMode"],
            "ON_DEMAND"
        );
        assert_eq!(summary["StreamDescriptionSummary"]["OpenShardCount"], 4);

        client
            .ok(
                "DeleteStream",
                json!({"StreamName": "s", "EnforceConsumerDeletion": true}),
            )
            .await;
        for (operation, body) in [
            ("DescribeStream", json!({"StreamName": "s"})),
            ("DeleteStream", json!({"StreamARN": arn})),
            ("PutRecord", json!({"StreamName": "s", "PartitionKey": "k", "Data": ""})),
        ] {
            assert_eq!(
                client.error(operation, body).await.0,
                "ResourceNotFoundException",
                "{operation}"
            );
        }
        for body in [
            json!({}),
            json!({"StreamName": "x", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/on-demand"}),
        ] {
            assert_eq!(client.error("DescribeStream", body).await.0, "InvalidArgumentException");
        }
    });
}

#[test]
fn listings_go_on_with_tokens_that_expire_and_cannot_be_forged() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        for name in ["c", "a", "b"] {
            client.stream(name, 5).await;
        }
        let page = client.ok("ListStreams", json!({"Limit": 2})).await;
        assert_eq!(page["StreamNames"], json!(["a", "b"]));
        assert_eq!(page["HasMoreStreams"], true);
        assert_eq!(page["StreamSummaries"][1]["StreamName"], "b");
        let token = page["NextToken"].as_str().unwrap();
        let last = client.ok("ListStreams", json!({"NextToken": token})).await;
        assert_eq!(
            (&last["StreamNames"], &last["HasMoreStreams"]),
            (&json!(["c"]), &json!(false))
        );
        assert!(last.get("NextToken").is_none());
        let after = client.ok("ListStreams", json!({"ExclusiveStartStreamName": "a"})).await;
        assert_eq!(after["StreamNames"], json!(["b", "c"]));

        let page = client
            .ok("ListShards", json!({"StreamName": "a", "MaxResults": 3}))
            .await;
        assert_eq!(page["Shards"].as_array().unwrap().len(), 3);
        let shards = page["NextToken"].as_str().unwrap();
        let rest = client
            .ok("ListShards", json!({"NextToken": shards, "MaxResults": 3}))
            .await;
        assert_eq!(rest["Shards"][0]["ShardId"], "shardId-000000000003");
        assert!(rest.get("NextToken").is_none());

        let together = client
            .error("ListShards", json!({"NextToken": shards, "StreamName": "a"}))
            .await;
        assert_eq!(together.0, "InvalidArgumentException");
        // The token of one listing is none for another, and a changed one is none at all.
        assert_eq!(
            client.error("ListStreams", json!({"NextToken": shards})).await.0,
            "InvalidArgumentException"
        );
        let mut forged = STANDARD.decode(shards).unwrap();
        forged[20] ^= 1;
        let forged = STANDARD.encode(forged);
        assert_eq!(
            client.error("ListShards", json!({"NextToken": forged})).await.0,
            "InvalidArgumentException"
        );
        client.clock.advance(300_001);
        assert_eq!(
            client.error("ListShards", json!({"NextToken": shards})).await.0,
            "ExpiredNextTokenException"
        );
    });
}

#[test]
fn shard_filters() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 3).await;
        client.clock.advance(10_000);
        let ids = async |filter: Value| {
            let answer = client
                .ok("ListShards", json!({"StreamName": "s", "ShardFilter": filter}))
                .await;
            answer["Shards"].as_array().unwrap().len()
        };
        let seconds = NOW_MS / 1000;
        assert_eq!(
            ids(json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000000"})).await,
            2
        );
        for kind in ["AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST"] {
            assert_eq!(ids(json!({"Type": kind})).await, 3, "{kind}");
        }
        for kind in ["AT_TIMESTAMP", "FROM_TIMESTAMP"] {
            assert_eq!(ids(json!({"Type": kind, "Timestamp": seconds - 5})).await, 3, "{kind}");
            assert_eq!(ids(json!({"Type": kind, "Timestamp": seconds + 5})).await, 3, "{kind}");
        }
        for (filter, expected) in [
            (json!({"Type": "AFTER_SHARD_ID"}), "InvalidArgumentException"),
            (json!({"Type": "AT_TIMESTAMP"}), "InvalidArgumentException"),
            (
                json!({"Type": "AT_TIMESTAMP", "Timestamp": seconds + 999}),
                "InvalidArgumentException",
            ),
            (
                json!({"Type": "AT_LATEST", "ShardId": "shardId-000000000000"}),
                "InvalidArgumentException",
            ),
            (json!({"Type": "NONSENSE"}), "ValidationException"),
            (json!({}), "ValidationException"),
        ] {
            let body = json!({"StreamName": "s", "ShardFilter": filter});
            assert_eq!(client.error("ListShards", body).await.0, expected);
        }
        let body = json!({"StreamName": "s", "StreamCreationTimestamp": seconds});
        assert_eq!(
            client.ok("ListShards", body).await["Shards"].as_array().unwrap().len(),
            3
        );
        let body = json!({"StreamName": "s", "StreamCreationTimestamp": seconds - 60});
        assert_eq!(client.error("ListShards", body).await.0, "ResourceNotFoundException");
    });
}

#[test]
fn records_are_read_from_every_kind_of_iterator() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        let mut sequences = Vec::new();
        for index in 0..4 {
            client.clock.advance(1000);
            let receipt = client.put("s", "k", &format!("{index}")).await;
            assert_eq!(receipt["ShardId"], "shardId-000000000000");
            sequences.push(receipt["SequenceNumber"].as_str().unwrap().to_owned());
        }
        let from = async |kind: Value| client.data(&client.iterator("s", kind).await).await;
        assert_eq!(
            from(json!({"ShardIteratorType": "TRIM_HORIZON"})).await,
            ["0", "1", "2", "3"]
        );
        assert!(from(json!({"ShardIteratorType": "LATEST"})).await.is_empty());
        let at = |kind: &str| json!({"ShardIteratorType": kind, "StartingSequenceNumber": sequences[1]});
        assert_eq!(from(at("AT_SEQUENCE_NUMBER")).await, ["1", "2", "3"]);
        assert_eq!(from(at("AFTER_SEQUENCE_NUMBER")).await, ["2", "3"]);
        let time = json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": (NOW_MS + 2500) as f64 / 1000.0});
        assert_eq!(from(time).await, ["2", "3"]);

        // Reading page by page, with the age of what is behind.
        let mut iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        for (index, behind) in [(0, 3000), (1, 2000), (2, 1000), (3, 0)] {
            let answer = client
                .ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 1}))
                .await;
            let record = &answer["Records"][0];
            assert_eq!(record["Data"], STANDARD.encode(index.to_string()));
            assert_eq!(record["PartitionKey"], "k");
            assert_eq!(record["SequenceNumber"], sequences[index as usize].as_str());
            assert_eq!(
                record["ApproximateArrivalTimestamp"],
                (NOW_MS + 1000 * (index + 1)) as f64 / 1000.0
            );
            assert_eq!(answer["MillisBehindLatest"], behind);
            iterator = answer["NextShardIterator"].as_str().unwrap().to_owned();
        }
        assert!(iterator.len() <= 512);
        assert!(client.data(&iterator).await.is_empty());
        client.put("s", "k", "4").await;
        assert_eq!(client.data(&format!("\"{iterator}\"")).await, ["4"]);

        for (body, expected) in [
            (
                json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}),
                "and no StartingSequenceNumber.",
            ),
            (
                json!({"ShardIteratorType": "LATEST", "StartingSequenceNumber": sequences[0]}),
                "and also a StartingSequenceNumber.",
            ),
            (
                json!({"ShardIteratorType": "AT_TIMESTAMP"}),
                "Must specify timestampInMillis parameter",
            ),
            (
                json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": NOW_MS}),
                "cannot be greater than",
            ),
            (
                json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "5"}),
                "is invalid.",
            ),
        ] {
            let mut request = json!({"StreamName": "s", "ShardId": "shardId-000000000000"});
            request
                .as_object_mut()
                .unwrap()
                .extend(body.as_object().unwrap().clone());
            let (name, message) = client.error("GetShardIterator", request).await;
            assert_eq!(name, "InvalidArgumentException");
            assert!(message.ends_with(expected) || message.contains(expected), "{message}");
        }
        client.stream("two", 2).await;
        let other = json!({"StreamName": "two", "ShardId": "shardId-000000000001", "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": sequences[0]});
        let (_, message) = client.error("GetShardIterator", other).await;
        assert!(message.contains("It encodes shardId-000000000000"), "{message}");
        let other = json!({"StreamName": "two", "ShardId": "shardId-000000000000", "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": sequences[0]});
        let (_, message) = client.error("GetShardIterator", other).await;
        assert!(message.contains("did not come from this stream"), "{message}");
        let missing = json!({"StreamName": "s", "ShardId": "shardId-000000000009", "ShardIteratorType": "LATEST"});
        assert_eq!(
            client.error("GetShardIterator", missing).await.0,
            "ResourceNotFoundException"
        );
    });
}

#[test]
fn an_iterator_whose_records_expired_goes_on_at_the_trim_horizon() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        client.put("s", "k", "old").await;
        client.clock.advance(24 * 3_600_000 - 60_000);
        client.put("s", "k", "young").await;
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        assert_eq!(client.data(&iterator).await, ["old", "young"]);
        client.clock.advance(60_001);
        assert_eq!(client.data(&iterator).await, ["young"]);
        let at = json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": NOW_MS / 1_000});
        assert_eq!(client.data(&client.iterator("s", at).await).await, ["young"]);
        client.clock.advance(24 * 3_600_000);
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["Records"], json!([]));
        assert_eq!(answer["MillisBehindLatest"], 0);
        client.put("s", "k", "new").await;
        let next = answer["NextShardIterator"].as_str().unwrap();
        assert_eq!(client.data(next).await, ["new"]);
    });
}

#[test]
fn iterators_expire_cannot_be_forged_and_survive_a_restart() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        client.put("s", "k", "0").await;
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        drop(client);
        let client = Client::new(&disk);
        assert_eq!(client.data(&iterator).await, ["0"]);
        let sound = STANDARD.decode(&iterator).unwrap();
        for at in 0..sound.len() {
            let mut forged = sound.clone();
            forged[at] ^= 1;
            let error = client
                .error("GetRecords", json!({"ShardIterator": STANDARD.encode(forged)}))
                .await;
            assert_eq!(
                error,
                (
                    "InvalidArgumentException".to_owned(),
                    "Invalid ShardIterator.".to_owned()
                ),
                "byte {at}"
            );
        }
        // The iterator of another store.
        let other = Client::new(&SimDisk::new());
        other.stream("s", 1).await;
        assert_eq!(
            other.error("GetRecords", json!({"ShardIterator": iterator})).await.0,
            "InvalidArgumentException"
        );

        client.clock.advance(300_001);
        let (name, message) = client.error("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(name, "ExpiredIteratorException");
        assert!(
            message.starts_with("Iterator expired. The iterator was created at time Fri Jan 15 08:00:00 UTC 2027"),
            "{message}"
        );
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        client.ok("DeleteStream", json!({"StreamName": "s"})).await;
        assert_eq!(
            client.error("GetRecords", json!({"ShardIterator": iterator})).await.0,
            "ResourceNotFoundException"
        );
    });
}

#[test]
fn puts_are_checked_and_answered_each() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 4).await;
        let records: Vec<Value> = (0..20)
            .map(|index| json!({"PartitionKey": format!("{index}"), "Data": STANDARD.encode(format!("{index}"))}))
            .collect();
        let answer = client
            .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
            .await;
        assert_eq!(answer["FailedRecordCount"], 0);
        assert_eq!(answer["Records"].as_array().unwrap().len(), 20);
        let last =
            json!({"PartitionKey": "x", "Data": "", "ExplicitHashKey": "340282366920938463463374607431768211455"});
        let answer = client
            .ok("PutRecords", json!({"StreamName": "s", "Records": [last]}))
            .await;
        assert_eq!(answer["Records"][0]["ShardId"], "shardId-000000000003");

        let mebibyte = STANDARD.encode(vec![0u8; 1 << 20]);
        let fits = STANDARD.encode(vec![0u8; (1 << 20) - 1]);
        client
            .ok(
                "PutRecord",
                json!({"StreamName": "s", "PartitionKey": "k", "Data": fits}),
            )
            .await;
        for (operation, body) in [
            (
                "PutRecord",
                json!({"StreamName": "s", "PartitionKey": "k", "Data": mebibyte}),
            ),
            (
                "PutRecord",
                json!({"StreamName": "s", "PartitionKey": "k", "Data": "", "ExplicitHashKey": "340282366920938463463374607431768211456"}),
            ),
            (
                "PutRecord",
                json!({"StreamName": "s", "PartitionKey": "k", "Data": "", "SequenceNumberForOrdering": "12"}),
            ),
            (
                "PutRecords",
                json!({"StreamName": "s", "Records": vec![json!({"PartitionKey": "kk", "Data": STANDARD.encode(vec![0u8; (1 << 20) - 2])}); 11]}),
            ),
        ] {
            let (name, message) = client.error(operation, body).await;
            assert_eq!(name, "InvalidArgumentException", "{message}");
        }
        let large = json!({"StreamName": "s", "PartitionKey": "k", "Data": mebibyte});
        let (_, message) = client.error("PutRecord", large).await;
        assert!(message.contains("have 1048577 bytes"), "{message}");
        assert!(message.contains("which is 1024, allows 1048576 bytes"), "{message}");
        assert!(message.contains("greater MaxRecordSizeInKiB, up to 10240"), "{message}");
        let receipt = client.put("s", "k", "a").await;
        let body = json!({"StreamName": "s", "PartitionKey": "k", "Data": "", "SequenceNumberForOrdering": receipt["SequenceNumber"]});
        client.ok("PutRecord", body).await;
        let dry = json!({"StreamName": "s", "PartitionKey": "k", "Data": "", "DryRun": true});
        assert_eq!(client.error("PutRecord", dry).await.0, "DryRunOperationException");
        // Larger records where the stream asks for them.
        client
            .ok(
                "CreateStream",
                json!({"StreamName": "large", "ShardCount": 1, "MaxRecordSizeInKiB": 2048}),
            )
            .await;
        client
            .ok(
                "PutRecord",
                json!({"StreamName": "large", "PartitionKey": "k", "Data": mebibyte}),
            )
            .await;
    });
}

#[test]
fn a_full_disk_is_an_internal_failure_to_repeat_and_readers_go_on() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        client.put("s", "k", "stored").await;
        disk.set_capacity(Some(disk.bytes()));
        let large = json!({"StreamName": "s", "PartitionKey": "k", "Data": STANDARD.encode(vec![0u8; 9_000])});
        let records =
            json!({"StreamName": "s", "Records": [{"PartitionKey": "k", "Data": STANDARD.encode(vec![0u8; 9_000])}]});
        for (operation, body) in [("PutRecord", &large), ("PutRecords", &records)] {
            let (status, answer) = client.call(operation, body.clone()).await;
            // Without a message, as the service answers it: SDKs repeat it.
            assert_eq!(
                (status, answer),
                (500, json!({"__type": "InternalFailure"})),
                "{operation}"
            );
        }
        assert_eq!(client.api.store().failure(), None, "the log is not poisoned");
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["Records"].as_array().unwrap().len(), 1);
        disk.set_capacity(None);
        client.clock.advance(ROOM_RETRY_MS);
        client.ok("PutRecord", large).await;
    });
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        prop::sample::select(vec![
            "s",
            "shardId-000000000000",
            "LATEST",
            "AT_TIMESTAMP",
            "AAAA",
            "0",
            "UNIFORM_SCALING",
            "KMS",
            "ALL",
            "arn:aws:kinesis:us-east-1:000000000000:stream/s"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            fields(inner).prop_map(Value::Object),
        ]
    })
}

fn fields(value: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    const NAMES: [&str; 39] = [
        "ShardToSplit",
        "NewStartingHashKey",
        "ShardToMerge",
        "AdjacentShardToMerge",
        "TargetShardCount",
        "ScalingType",
        "RetentionPeriodHours",
        "ResourceARN",
        "TagKeys",
        "Policy",
        "ShardLevelMetrics",
        "EncryptionType",
        "KeyId",
        "WarmThroughputMiBps",
        "RecordDistributionStrategy",
        "StreamName",
        "StreamARN",
        "ShardCount",
        "Limit",
        "Records",
        "Data",
        "PartitionKey",
        "ExplicitHashKey",
        "ShardId",
        "ShardIteratorType",
        "StartingSequenceNumber",
        "Timestamp",
        "ShardIterator",
        "NextToken",
        "ShardFilter",
        "Type",
        "MaxResults",
        "Tags",
        "StreamModeDetails",
        "StreamMode",
        "ExclusiveStartShardId",
        "StreamCreationTimestamp",
        "SequenceNumberForOrdering",
        "StreamId",
    ];
    prop::collection::vec((prop::sample::select(NAMES.to_vec()), value), 0..6).prop_map(|entries| {
        entries
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_request_gets_an_answer_of_the_protocol(
        requests in prop::collection::vec((any::<prop::sample::Index>(), fields(json_values())), 1..20),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        const OPERATIONS: [&str; 39] = [
            "RegisterStreamConsumer", "DeregisterStreamConsumer", "DescribeStreamConsumer", "ListStreamConsumers",
            "CreateStream", "DeleteStream", "DescribeStream", "DescribeStreamSummary", "ListStreams", "ListShards",
            "PutRecord", "PutRecords", "GetShardIterator", "GetRecords", "AddTagsToStream",
            "DecreaseStreamRetentionPeriod", "DeleteResourcePolicy", "DescribeAccountSettings", "DescribeLimits",
            "DisableEnhancedMonitoring", "EnableEnhancedMonitoring", "GetResourcePolicy",
            "IncreaseStreamRetentionPeriod", "ListTagsForResource", "ListTagsForStream", "MergeShards",
            "PutResourcePolicy", "RemoveTagsFromStream", "SplitShard", "StartStreamEncryption", "StopStreamEncryption",
            "TagResource", "UntagResource", "UpdateAccountSettings", "UpdateMaxRecordSize", "UpdateShardCount",
            "UpdateStreamMode", "UpdateStreamRecordDistributionStrategy", "UpdateStreamWarmThroughput",
        ];
        block_on(async {
            let client = Client::new(&SimDisk::new());
            client.stream("s", 1).await;
            for (operation, mut fields) in requests {
                let operation = operation.get(&OPERATIONS);
                for named in [true, false] {
                    if named {
                        fields.entry("StreamName").or_insert("s".into());
                    } else {
                        fields.remove("StreamName");
                    }
                    let (status, answer) = client.call(operation, Value::Object(fields.clone())).await;
                    assert!(status == 200 || (status == 400 && answer["__type"].is_string()), "{operation}: {status} {answer}");
                }
                let target = format!("Kinesis_20131202.{operation}");
                let response = client.raw(&target, "application/x-amz-json-1.1", &bytes).await;
                assert_eq!(response.status, 400);
                // A sound request by chance: a byte that is an empty map.
                let response = client.raw(&target, "application/x-amz-cbor-1.1", &bytes).await;
                assert!(matches!(response.status, 200 | 400), "{operation}: {}", response.status);
            }
        });
    }
}

#[test]
fn a_broken_log_is_an_internal_failure_without_a_message() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        disk.fail_after(0);
        let body = json!({"StreamName": "s", "PartitionKey": "k", "Data": ""});
        assert_eq!(
            client.call("PutRecord", body).await,
            (500, json!({"__type": "InternalFailure"}))
        );
    });
}
