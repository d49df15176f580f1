//! SubscribeToShard: its frames, read by the SDK's own reader, and how a subscription ends.

use std::time::Duration;

use aws_smithy_eventstream::frame::read_message_from;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_shards::StoreOptions;
use tidemill_shards::env::SimDisk;
use tidemill_shards::kinesis::{ApiBody, RequestContext, Subscription, SubscriptionOptions};

use crate::kinesis::Client;
use crate::support::*;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
const FIRST: &str = "shardId-000000000000";
const HOUR: Duration = Duration::from_secs(3_600);

/// Times that do not come, so that only what a test does moves a subscription.
fn patient() -> SubscriptionOptions {
    SubscriptionOptions {
        life: HOUR,
        heartbeat: HOUR,
        again_after: Duration::ZERO,
        ..SubscriptionOptions::default()
    }
}

async fn client(options: SubscriptionOptions) -> Client {
    let client = Client::with(&SimDisk::new(), crate::support::options(), options);
    client.stream("s", 1).await;
    let body = json!({"StreamARN": ARN, "ConsumerName": "c"});
    client.ok("RegisterStreamConsumer", body).await;
    client
}

fn request(start: Value) -> Value {
    json!({"ConsumerARN": format!("{ARN}/consumer/c:{}", NOW_MS / 1000), "ShardId": FIRST, "StartingPosition": start})
}

async fn subscribe_as(client: &Client, content_type: &str, body: Vec<u8>) -> Box<Subscription> {
    let target = "Kinesis_20131202.SubscribeToShard";
    let context = RequestContext::default();
    let response = client
        .api
        .handle(target, content_type, Bytes::from(body), &context)
        .await;
    match response.body {
        ApiBody::Events(subscription) => {
            assert_eq!(response.status, 200);
            assert!(
                response
                    .headers
                    .contains(&("content-type", "application/vnd.amazon.eventstream".to_owned()))
            );
            subscription
        }
        ApiBody::Full(body) => panic!("{}", String::from_utf8_lossy(&body)),
    }
}

async fn subscribe(client: &Client, start: Value) -> Box<Subscription> {
    let body = request(start).to_string().into_bytes();
    let mut subscription = subscribe_as(client, "application/x-amz-json-1.1", body).await;
    let first = next(&mut subscription).await.unwrap();
    assert_eq!(first, ("event".to_owned(), "initial-response".to_owned(), json!({})));
    subscription
}

/// Message type, type of the event or exception, payload.
async fn next(subscription: &mut Subscription) -> Option<(String, String, Value)> {
    let frame = subscription.next().await?;
    let message = read_message_from(frame).unwrap();
    let header = |name: &str| {
        let found = message.headers().iter().find(|header| header.name().as_str() == name);
        found.map(|header| header.value().as_string().unwrap().as_str().to_owned())
    };
    assert_eq!(header(":content-type").unwrap(), "application/json");
    let kind = header(":message-type").unwrap();
    let name = header(":event-type").or(header(":exception-type")).unwrap();
    Some((kind, name, serde_json::from_slice(message.payload()).unwrap()))
}

async fn event(subscription: &mut Subscription) -> Value {
    let (kind, name, payload) = next(subscription).await.unwrap();
    assert_eq!(
        (kind.as_str(), name.as_str()),
        ("event", "SubscribeToShardEvent"),
        "{payload}"
    );
    payload
}

/// The name of the exception that ends a subscription.
async fn end(subscription: &mut Subscription) -> Option<String> {
    let last = next(subscription).await;
    assert!(next(subscription).await.is_none());
    last.map(|(kind, name, payload)| {
        assert_eq!(kind, "exception", "{payload}");
        assert!(!payload["message"].as_str().unwrap().is_empty());
        name
    })
}

fn data(event: &Value) -> Vec<String> {
    let records = event["Records"].as_array().unwrap().iter();
    records
        .map(|r| String::from_utf8(STANDARD.decode(r["Data"].as_str().unwrap()).unwrap()).unwrap())
        .collect()
}

#[test]
fn records_are_pushed_and_the_continuation_goes_on_behind_them() {
    block_on(async {
        let client = client(patient()).await;
        client.put("s", "k", "0").await;
        let mut subscription = subscribe(&client, json!({"Type": "LATEST"})).await;
        let empty = event(&mut subscription).await;
        assert!(data(&empty).is_empty());
        assert_eq!(empty["MillisBehindLatest"], 0);
        assert!(empty.get("ChildShards").is_none());

        // The next event is asked for before there is one.
        let (pushed, receipt) = tokio::join!(event(&mut subscription), client.put("s", "k", "1"));
        assert_eq!(data(&pushed), ["1"]);
        let record = &pushed["Records"][0];
        assert_eq!(record["SequenceNumber"], receipt["SequenceNumber"]);
        assert_eq!(record["PartitionKey"], "k");
        assert_eq!(record["ApproximateArrivalTimestamp"], NOW_MS as f64 / 1000.0);
        assert_eq!(pushed["ContinuationSequenceNumber"], receipt["SequenceNumber"]);
        client.put("s", "k", "2").await;
        client.put("s", "k", "3").await;
        assert_eq!(data(&event(&mut subscription).await), ["2", "3"]);

        // Going on behind either number loses and repeats nothing, also where nothing had been read.
        for (number, expected) in [
            (&empty["ContinuationSequenceNumber"], vec!["1", "2", "3"]),
            (&pushed["ContinuationSequenceNumber"], vec!["2", "3"]),
        ] {
            let start = json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number});
            let mut next = subscribe(&client, start).await;
            assert_eq!(data(&event(&mut next).await), expected);
        }
    });
}

#[test]
fn every_kind_of_starting_position() {
    block_on(async {
        let client = client(patient()).await;
        let mut numbers = Vec::new();
        for index in 0..3 {
            client.clock.advance(1_000);
            let receipt = client.put("s", "k", &index.to_string()).await;
            numbers.push(receipt["SequenceNumber"].clone());
        }
        for (start, expected) in [
            (json!({"Type": "TRIM_HORIZON"}), vec!["0", "1", "2"]),
            (json!({"Type": "LATEST"}), vec![]),
            (
                json!({"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": numbers[1]}),
                vec!["1", "2"],
            ),
            (
                json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": numbers[1]}),
                vec!["2"],
            ),
            (
                json!({"Type": "AT_TIMESTAMP", "Timestamp": (NOW_MS + 2_500) as f64 / 1000.0}),
                vec!["2"],
            ),
        ] {
            let mut subscription = subscribe(&client, start.clone()).await;
            assert_eq!(data(&event(&mut subscription).await), expected, "{start}");
        }
    });
}

#[test]
fn events_in_cbor_for_whoever_asked_in_cbor() {
    block_on(async {
        let client = client(patient()).await;
        client.put("s", "k", "0").await;
        let mut body = Vec::new();
        ciborium::into_writer(&request(json!({"Type": "TRIM_HORIZON"})), &mut body).unwrap();
        let mut subscription = subscribe_as(&client, "application/x-amz-cbor-1.1", body).await;
        let initial = read_message_from(subscription.next().await.unwrap()).unwrap();
        assert_eq!(&initial.payload()[..], b"\xbf\xff");
        let message = read_message_from(subscription.next().await.unwrap()).unwrap();
        let event: ciborium::Value = ciborium::from_reader(&message.payload()[..]).unwrap();
        let text = format!("{event:?}");
        assert!(text.contains("Bytes([48])") && text.contains("Tag(1"), "{text}");
    });
}

#[test]
fn a_slow_client_is_given_one_piece_at_a_time() {
    block_on(async {
        let client = client(patient()).await;
        let big = "x".repeat(400_000);
        for _ in 0..5 {
            client.put("s", "k", &big).await;
        }
        let mut subscription = subscribe(&client, json!({"Type": "TRIM_HORIZON"})).await;
        let mut counts = Vec::new();
        while counts.iter().sum::<usize>() < 5 {
            let event = event(&mut subscription).await;
            counts.push(data(&event).len());
            let left = counts.iter().sum::<usize>() < 5;
            assert_eq!(event["MillisBehindLatest"] != 0, left);
        }
        assert!(
            counts.len() > 1 && counts.iter().all(|count| (1..=3).contains(count)),
            "{counts:?}"
        );
    });
}

#[test]
fn empty_events_come_regularly() {
    block_on(async {
        let options = SubscriptionOptions {
            heartbeat: Duration::from_millis(1),
            ..patient()
        };
        let client = client(options).await;
        let mut subscription = subscribe(&client, json!({"Type": "LATEST"})).await;
        for _ in 0..5 {
            let event = event(&mut subscription).await;
            assert!(data(&event).is_empty() && event["ContinuationSequenceNumber"].is_string());
        }
    });
}

#[test]
fn a_subscription_ends_with_its_life_and_with_the_server() {
    block_on(async {
        let options = SubscriptionOptions {
            life: Duration::from_millis(300),
            ..patient()
        };
        let short = client(options).await;
        let mut subscription = subscribe(&short, json!({"Type": "LATEST"})).await;
        while next(&mut subscription).await.is_some() {}
        drop(subscription);
        assert_eq!(short.api.subscriptions(), 0);

        let client = client(patient()).await;
        let mut subscription = subscribe(&client, json!({"Type": "LATEST"})).await;
        event(&mut subscription).await;
        let (ended, ()) = tokio::join!(end(&mut subscription), async { client.api.end_subscriptions() });
        assert_eq!(ended, None);
        let mut late = subscribe(&client, json!({"Type": "LATEST"})).await;
        assert_eq!(end(&mut late).await, None);
    });
}

#[test]
fn one_consumer_reads_a_shard_once() {
    block_on(async {
        let client = client(patient()).await;
        let mut first = subscribe(&client, json!({"Type": "LATEST"})).await;
        event(&mut first).await;
        let (ended, mut second) = tokio::join!(end(&mut first), subscribe(&client, json!({"Type": "LATEST"})));
        assert_eq!(ended.as_deref(), Some("ResourceInUseException"));
        event(&mut second).await;
        assert_eq!(client.api.subscriptions(), 1);
        drop((first, second));
        assert_eq!(client.api.subscriptions(), 0);

        let strict = SubscriptionOptions {
            again_after: HOUR,
            ..patient()
        };
        let client = self::client(strict).await;
        let mut first = subscribe(&client, json!({"Type": "LATEST"})).await;
        let (name, message) = client
            .error("SubscribeToShard", request(json!({"Type": "LATEST"})))
            .await;
        assert_eq!(name, "ResourceInUseException");
        assert!(message.contains("Another active subscription"), "{message}");
        // The one there is was not touched, and other consumers are not concerned.
        event(&mut first).await;
        client
            .ok(
                "RegisterStreamConsumer",
                json!({"StreamARN": ARN, "ConsumerName": "other"}),
            )
            .await;
        let mut other = request(json!({"Type": "LATEST"}));
        other["ConsumerARN"] = json!(format!("{ARN}/consumer/other:{}", NOW_MS / 1000));
        subscribe_as(&client, "application/x-amz-json-1.1", other.to_string().into_bytes()).await;
    });
}

#[test]
fn whoever_is_gone_is_told_as_an_exception() {
    block_on(async {
        let client = client(patient()).await;
        let mut subscription = subscribe(&client, json!({"Type": "LATEST"})).await;
        event(&mut subscription).await;
        let body = json!({"StreamARN": ARN, "ConsumerName": "c"});
        let (ended, _) = tokio::join!(
            end(&mut subscription),
            client.ok("DeregisterStreamConsumer", body.clone())
        );
        assert_eq!(ended.as_deref(), Some("ResourceNotFoundException"));

        client.ok("RegisterStreamConsumer", body).await;
        let mut subscription = subscribe(&client, json!({"Type": "LATEST"})).await;
        event(&mut subscription).await;
        let delete = json!({"StreamName": "s", "EnforceConsumerDeletion": true});
        let (ended, _) = tokio::join!(end(&mut subscription), client.ok("DeleteStream", delete));
        assert_eq!(ended.as_deref(), Some("ResourceNotFoundException"));
    });
}

#[test]
fn wrong_requests_are_answered_before_anything_begins() {
    block_on(async {
        let client = client(patient()).await;
        let with = |change: &dyn Fn(&mut Value)| {
            let mut body = request(json!({"Type": "LATEST"}));
            change(&mut body);
            body
        };
        for (body, expected) in [
            (json!({}), "ValidationException"),
            (with(&|b| b["StartingPosition"] = json!({})), "ValidationException"),
            (
                with(&|b| b["StartingPosition"]["Type"] = json!("X")),
                "ValidationException",
            ),
            (with(&|b| b["ConsumerARN"] = json!(ARN)), "ValidationException"),
            (
                with(&|b| b["StartingPosition"] = json!("LATEST")),
                "SerializationException",
            ),
            (
                with(&|b| b["ShardId"] = json!("shardId-000000000007")),
                "ResourceNotFoundException",
            ),
            (
                with(&|b| b["ConsumerARN"] = json!(format!("{ARN}/consumer/c:1"))),
                "ResourceNotFoundException",
            ),
            (
                with(&|b| b["StartingPosition"]["Type"] = json!("AT_TIMESTAMP")),
                "InvalidArgumentException",
            ),
            (
                with(&|b| b["StartingPosition"] = json!({"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "1"})),
                "InvalidArgumentException",
            ),
            (
                with(&|b| b["StartingPosition"]["SequenceNumber"] = json!("1")),
                "InvalidArgumentException",
            ),
            (with(&|b| b["DryRun"] = json!(true)), "DryRunOperationException"),
        ] {
            let (name, message) = client.error("SubscribeToShard", body.clone()).await;
            assert_eq!(name, expected, "{body}: {message}");
        }
        assert_eq!(client.api.subscriptions(), 0);
    });
}

/// Eight MiB at two per second, of which the first two come at once; on a stream without limits nobody waits.
#[test]
fn a_consumer_has_its_own_share_of_a_shard_with_limits() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        for (capacity, seconds) in [("enforced", 2.5..3.5), ("unlimited", 0.0..0.1)] {
            let options = StoreOptions {
                segment_bytes: 32 << 20,
                ..crate::support::options()
            };
            let client = Client::with(&SimDisk::new(), options, patient());
            let tags = json!({"tidemill:capacity": capacity});
            let body = json!({"StreamName": "s", "ShardCount": 1, "Tags": tags});
            client.ok("CreateStream", body).await;
            let body = json!({"StreamARN": ARN, "ConsumerName": "c"});
            client.ok("RegisterStreamConsumer", body).await;
            let entries = (0..16).map(|_| entry("k", vec![0; 512 << 10])).collect();
            client.api.store().put_records(&name("s"), entries).await.unwrap();
            let mut subscription = subscribe(&client, json!({"Type": "TRIM_HORIZON"})).await;
            let began = tokio::time::Instant::now();
            let mut records = 0;
            while records < 16 {
                records += event(&mut subscription).await["Records"].as_array().unwrap().len();
            }
            let took = began.elapsed().as_secs_f64();
            assert!(seconds.contains(&took), "{capacity}: {took} s of the test's own time");
        }
    });
}
