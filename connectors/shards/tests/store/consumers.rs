//! Consumers as a client sees them.

use serde_json::{Value, json};
use tidemill_shards::StoreOptions;
use tidemill_shards::env::SimDisk;
use tidemill_shards::kinesis::SubscriptionOptions;

use crate::kinesis::Client;
use crate::support::*;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

async fn register(client: &Client, name: &str) -> Value {
    let body = json!({"StreamARN": ARN, "ConsumerName": name});
    client.ok("RegisterStreamConsumer", body).await["Consumer"].clone()
}

async fn names(client: &Client) -> Vec<String> {
    let listed = client.ok("ListStreamConsumers", json!({"StreamARN": ARN})).await;
    let consumers = listed["Consumers"].as_array().unwrap().iter();
    consumers
        .map(|consumer| consumer["ConsumerName"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn life_of_a_consumer() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        let consumer = register(&client, "c").await;
        assert_eq!(
            consumer,
            json!({
                "ConsumerName": "c", "ConsumerARN": format!("{ARN}/consumer/c:{}", NOW_MS / 1000),
                "ConsumerStatus": "ACTIVE", "ConsumerCreationTimestamp": NOW_MS as f64 / 1000.0,
            })
        );
        let (name, message) = client
            .error("RegisterStreamConsumer", json!({"StreamARN": ARN, "ConsumerName": "c"}))
            .await;
        assert_eq!(name, "ResourceInUseException");
        assert!(message.contains("already exists"), "{message}");
        let arn = consumer["ConsumerARN"].clone();
        for body in [
            json!({"ConsumerARN": arn}),
            json!({"StreamARN": ARN, "ConsumerName": "c"}),
        ] {
            let described = client.ok("DescribeStreamConsumer", body).await["ConsumerDescription"].clone();
            assert_eq!(
                (&described["ConsumerARN"], &described["StreamARN"]),
                (&arn, &json!(ARN))
            );
        }
        let summary = client.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
        assert_eq!(summary["StreamDescriptionSummary"]["ConsumerCount"], 1);

        for (body, expected) in [
            (json!({}), "InvalidArgumentException"),
            (json!({"StreamARN": ARN}), "InvalidArgumentException"),
            (json!({"ConsumerName": "c"}), "InvalidArgumentException"),
            (
                json!({"ConsumerARN": arn, "StreamARN": ARN}),
                "InvalidArgumentException",
            ),
            (
                json!({"StreamARN": ARN, "ConsumerName": "d"}),
                "ResourceNotFoundException",
            ),
            (
                json!({"ConsumerARN": format!("{ARN}/consumer/c:1")}),
                "ResourceNotFoundException",
            ),
            (
                json!({"ConsumerARN": format!("{ARN}x/consumer/c:1")}),
                "ResourceNotFoundException",
            ),
            (
                json!({"ConsumerARN": format!("{ARN}/consumer/c")}),
                "ValidationException",
            ),
        ] {
            for operation in ["DescribeStreamConsumer", "DeregisterStreamConsumer"] {
                let (name, message) = client.error(operation, body.clone()).await;
                assert_eq!(name, expected, "{body}: {message}");
            }
        }
        for (body, expected) in [
            (json!({"StreamARN": ARN, "ConsumerName": "a b"}), "ValidationException"),
            (
                json!({"StreamARN": format!("{ARN}x"), "ConsumerName": "c"}),
                "ResourceNotFoundException",
            ),
            (
                json!({"StreamARN": ARN, "ConsumerName": "t", "Tags": {"k": "x".repeat(257)}}),
                "ValidationException",
            ),
        ] {
            assert_eq!(client.error("RegisterStreamConsumer", body).await.0, expected);
        }

        // It is there after a restart, and gone after another when it was deregistered before.
        drop(client);
        let client = Client::new(&disk);
        assert_eq!(names(&client).await, ["c"]);
        client.ok("DeregisterStreamConsumer", json!({"ConsumerARN": arn})).await;
        assert!(names(&client).await.is_empty());
        drop(client);
        let client = Client::new(&disk);
        assert!(names(&client).await.is_empty());
        client.clock.advance(5_000);
        assert_ne!(register(&client, "c").await["ConsumerARN"], arn);
    });
}

#[test]
fn consumers_go_with_their_stream() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        register(&client, "c").await;
        let store = client.api.store().clone();
        assert!(store.has_consumers(&name("s")).unwrap());
        client
            .ok(
                "DeleteStream",
                json!({"StreamName": "s", "EnforceConsumerDeletion": true}),
            )
            .await;
        client.stream("s", 1).await;
        assert!(!store.has_consumers(&name("s")).unwrap());
        assert!(names(&client).await.is_empty());
        drop((client, store));
        assert!(names(&Client::new(&disk)).await.is_empty());
    });
}

#[test]
fn a_stream_has_twenty_consumers_listed_page_by_page() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        for index in 0..20 {
            register(&client, &format!("c{index:02}")).await;
        }
        let (error, _) = client
            .error(
                "RegisterStreamConsumer",
                json!({"StreamARN": ARN, "ConsumerName": "one-more"}),
            )
            .await;
        assert_eq!(error, "LimitExceededException");
        let mut all = Vec::new();
        let mut body = json!({"StreamARN": ARN, "MaxResults": 7});
        let mut pages = 0;
        loop {
            let page = client.ok("ListStreamConsumers", body.clone()).await;
            let consumers = page["Consumers"].as_array().unwrap().clone();
            assert!(consumers.len() <= 7);
            all.extend(consumers);
            pages += 1;
            if page["NextToken"].is_null() {
                break;
            }
            body["NextToken"] = page["NextToken"].clone();
        }
        let sorted: Vec<String> = (0..20).map(|index| format!("c{index:02}")).collect();
        let listed: Vec<&str> = all.iter().map(|one| one["ConsumerName"].as_str().unwrap()).collect();
        assert_eq!((pages, listed), (3, sorted.iter().map(String::as_str).collect()));

        let wrong_created = json!({"StreamARN": ARN, "StreamCreationTimestamp": 5});
        assert_eq!(
            client.error("ListStreamConsumers", wrong_created).await.0,
            "ResourceNotFoundException"
        );
        body["StreamCreationTimestamp"] = json!(NOW_MS / 1000);
        assert_eq!(
            client.error("ListStreamConsumers", body.clone()).await.0,
            "InvalidArgumentException"
        );
        body.as_object_mut().unwrap().remove("StreamCreationTimestamp");
        // The token of a stream is none for another.
        client.stream("other", 1).await;
        let mut other = body.clone();
        other["StreamARN"] = json!(ARN.replace("/s", "/other"));
        assert_eq!(
            client.error("ListStreamConsumers", other).await.0,
            "InvalidArgumentException"
        );
        client.clock.advance(300_001);
        assert_eq!(
            client.error("ListStreamConsumers", body).await.0,
            "ExpiredNextTokenException"
        );
    });
}

#[test]
fn states_are_shown_when_the_life_cycle_takes_time() {
    block_on(async {
        let disk = SimDisk::new();
        let options = StoreOptions {
            lifecycle_delay_ms: 1_000,
            ..options()
        };
        let client = Client::with(&disk, options, SubscriptionOptions::default());
        client.stream("s", 1).await;
        client.clock.advance(1_000);
        let status = async |name: &str| {
            let body = json!({"StreamARN": ARN, "ConsumerName": name});
            client.ok("DescribeStreamConsumer", body).await["ConsumerDescription"]["ConsumerStatus"].clone()
        };
        assert_eq!(register(&client, "c0").await["ConsumerStatus"], "CREATING");
        assert_eq!(status("c0").await, "CREATING");
        let arn = format!("{ARN}/consumer/c0:{}", NOW_MS / 1000 + 1);
        let subscribe =
            json!({"ConsumerARN": arn, "ShardId": "shardId-000000000000", "StartingPosition": {"Type": "LATEST"}});
        assert_eq!(
            client.error("SubscribeToShard", subscribe).await.0,
            "ResourceInUseException"
        );
        for index in 1..5 {
            register(&client, &format!("c{index}")).await;
        }
        let sixth = json!({"StreamARN": ARN, "ConsumerName": "c5"});
        assert_eq!(
            client.error("RegisterStreamConsumer", sixth.clone()).await.0,
            "LimitExceededException"
        );
        client.clock.advance(1_000);
        assert_eq!(status("c0").await, "ACTIVE");
        client.ok("RegisterStreamConsumer", sixth).await;

        let body = json!({"StreamARN": ARN, "ConsumerName": "c0"});
        client.ok("DeregisterStreamConsumer", body.clone()).await;
        assert_eq!(status("c0").await, "DELETING");
        assert_eq!(
            client.error("RegisterStreamConsumer", body.clone()).await.0,
            "ResourceInUseException"
        );
        client.clock.advance(1_000);
        assert_eq!(
            client.error("DescribeStreamConsumer", body.clone()).await.0,
            "ResourceNotFoundException"
        );
        client.ok("RegisterStreamConsumer", body).await;
    });
}

#[test]
fn tags_of_a_consumer_are_kept() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        let body = json!({"StreamARN": ARN, "ConsumerName": "c", "Tags": {"b": "2", "a": "1"}});
        client.ok("RegisterStreamConsumer", body).await;
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let store = client.api.store().clone();
        let consumer = store.consumers(&name("s")).unwrap().remove(0).0;
        assert_eq!(consumer.tags, [tag("a", "1"), tag("b", "2")]);
        let resource = json!({"ResourceARN": consumer.arn});
        let with = |more: Value| {
            let mut body = resource.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        client
            .ok("TagResource", with(json!({"Tags": {"c": "3", "a": "0"}})))
            .await;
        client.ok("UntagResource", with(json!({"TagKeys": ["b", "z"]}))).await;
        assert_eq!(
            client.error("GetResourcePolicy", resource.clone()).await.0,
            "ResourceNotFoundException"
        );
        let policy = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kinesis:SubscribeToShard"}]}"#;
        client.ok("PutResourcePolicy", with(json!({"Policy": policy}))).await;
        let bad = with(json!({"Policy": "{}"}));
        assert_eq!(
            client.error("PutResourcePolicy", bad).await.0,
            "InvalidArgumentException"
        );
        drop((client, store));
        let client = Client::new(&disk);
        let consumer = client.api.store().consumers(&name("s")).unwrap().remove(0).0;
        assert_eq!(consumer.tags, [tag("a", "0"), tag("c", "3")]);
        let listed = client.ok("ListTagsForResource", resource.clone()).await;
        assert_eq!(
            listed["Tags"],
            json!([{"Key": "a", "Value": "0"}, {"Key": "c", "Value": "3"}])
        );
        assert_eq!(client.ok("GetResourcePolicy", resource.clone()).await["Policy"], policy);
        client.ok("DeleteResourcePolicy", resource.clone()).await;
        assert_eq!(
            client.error("DeleteResourcePolicy", resource.clone()).await.0,
            "ResourceNotFoundException"
        );
        // The stream has none of it.
        assert_eq!(
            client.ok("ListTagsForResource", json!({"ResourceARN": ARN})).await["Tags"],
            json!([])
        );
        let body = json!({"ConsumerARN": consumer.arn});
        client.ok("DeregisterStreamConsumer", body).await;
        assert_eq!(
            client.error("ListTagsForResource", resource).await.0,
            "ResourceNotFoundException"
        );
    });
}
