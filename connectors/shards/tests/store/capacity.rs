//! The service's limits per shard and second, and on-demand streams that grow and shrink with their load.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidemill_shards::env::SimDisk;
use tidemill_shards::kinesis::SubscriptionOptions;
use tidemill_shards::{Capacity, StoreOptions};

use crate::kinesis::Client;
use crate::support::*;

const MINUTE_MS: u64 = 60_000;

async fn limited(shards: u32) -> Client {
    let client = Client::new(&SimDisk::new());
    let body = json!({"StreamName": "s", "ShardCount": shards, "Tags": {"tidemill:capacity": "enforced"}});
    client.ok("CreateStream", body).await;
    client
}

/// PutRecords of so many records of so many bytes, one after the other to the shards of a stream of two.
async fn put_many(client: &Client, count: usize, bytes: usize) -> Value {
    let data = STANDARD.encode(vec![0; bytes - 1]);
    let hash_keys = ["0", "340282366920938463463374607431768211455"];
    let records: Vec<Value> = (0..count)
        .map(|index| json!({"PartitionKey": "k", "Data": data, "ExplicitHashKey": hash_keys[index % 2]}))
        .collect();
    client
        .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
        .await
}

#[test]
fn records_beyond_a_shards_share_are_refused_one_by_one() {
    block_on(async {
        let client = limited(2).await;
        // Two shards take a MiB each.
        let answer = put_many(&client, 40, 64 << 10).await;
        assert_eq!(answer["FailedRecordCount"], 8);
        let records = answer["Records"].as_array().unwrap();
        let failed: Vec<&Value> = records
            .iter()
            .filter(|record| record.get("ErrorCode").is_some())
            .collect();
        assert_eq!(failed.len(), 8);
        assert_eq!(
            records[39],
            json!({
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": "Rate exceeded for shard shardId-000000000001 in stream s under account 000000000000.",
            })
        );
        let body = json!({"StreamName": "s", "PartitionKey": "k", "ExplicitHashKey": "0", "Data": ""});
        let (error, message) = client.error("PutRecord", body.clone()).await;
        assert_eq!(error, "ProvisionedThroughputExceededException");
        assert!(message.contains("shardId-000000000000"), "{message}");
        client.clock.advance(1_000);
        client.ok("PutRecord", body).await;
        // What was accepted is there, in order; what was refused is not.
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["Records"].as_array().unwrap().len(), 17);
    });
}

#[test]
fn reads_beyond_a_shards_share_are_refused() {
    block_on(async {
        let client = limited(1).await;
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let body = json!({"ShardIterator": iterator});
        for _ in 0..5 {
            client.ok("GetRecords", body.clone()).await;
        }
        let (error, message) = client.error("GetRecords", body.clone()).await;
        assert_eq!(error, "ProvisionedThroughputExceededException");
        assert!(
            message.starts_with("Rate exceeded for shard shardId-000000000000"),
            "{message}"
        );
        client.clock.advance(200);
        client.ok("GetRecords", body.clone()).await;
        // Six MiB that were read are paid off in three seconds, of which one was saved up.
        let entries = (0..12).map(|_| entry("k", vec![0; 512 << 10])).collect();
        client.api.store().put_records(&name("s"), entries).await.unwrap();
        client.clock.advance(1_000);
        assert_eq!(
            client.ok("GetRecords", body.clone()).await["Records"]
                .as_array()
                .unwrap()
                .len(),
            12
        );
        client.clock.advance(1_900);
        assert_eq!(
            client.error("GetRecords", body.clone()).await.0,
            "ProvisionedThroughputExceededException"
        );
        client.clock.advance(200);
        client.ok("GetRecords", body).await;
    });
}

#[test]
fn the_streams_tag_goes_before_the_stores_option() {
    block_on(async {
        let options = StoreOptions {
            capacity: Capacity::Enforced,
            ..options()
        };
        let client = Client::with(&SimDisk::new(), options, SubscriptionOptions::default());
        client.stream("s", 2).await;
        assert_eq!(put_many(&client, 500, 2).await["FailedRecordCount"], 0);
        let tag = |value: &str| json!({"StreamName": "s", "Tags": {"tidemill:capacity": value}});
        assert_eq!(put_many(&client, 100, 64 << 10).await["FailedRecordCount"], 70);
        client.ok("AddTagsToStream", tag("unlimited")).await;
        assert_eq!(put_many(&client, 100, 64 << 10).await["FailedRecordCount"], 0);
        let (error, message) = client.error("AddTagsToStream", tag("plenty")).await;
        assert_eq!(error, "InvalidArgumentException");
        assert!(message.contains("use \"unlimited\" or \"enforced\""), "{message}");
        let body = json!({"StreamName": "s", "TagKeys": ["tidemill:capacity"]});
        client.ok("RemoveTagsFromStream", body).await;
        assert_ne!(put_many(&client, 100, 64 << 10).await["FailedRecordCount"], 0);
        // Streams of a store without the option have no limits.
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        for _ in 0..10 {
            assert_eq!(put_many(&client, 50, 64 << 10).await["FailedRecordCount"], 0);
        }
    });
}

async fn open_shards(client: &Client) -> i64 {
    let answer = client.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    answer["StreamDescriptionSummary"]["OpenShardCount"].as_i64().unwrap()
}

/// So many records in a minute, over all hash keys; most are refused, which asks for capacity all the same.
async fn load(client: &Client, batches: usize) {
    let records: Vec<Value> = (0..500)
        .map(|index: u128| {
            let key = (u128::MAX / 500 * index).to_string();
            json!({"PartitionKey": "k", "Data": "", "ExplicitHashKey": key})
        })
        .collect();
    let body = json!({"StreamName": "s", "Records": records});
    for _ in 0..batches {
        client.ok("PutRecords", body.clone()).await;
    }
    client.clock.advance(MINUTE_MS);
}

#[test]
fn on_demand_streams_grow_with_their_peak_and_shrink_after_a_quiet_day() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        let body = json!({
            "StreamName": "s",
            "StreamModeDetails": {"StreamMode": "ON_DEMAND"},
            "Tags": {"tidemill:capacity": "enforced"},
        });
        client.ok("CreateStream", body).await;
        let store = client.api.store().clone();
        assert_eq!((store.scale_on_demand().await, open_shards(&client).await), (0, 4));

        // 180,000 records in a minute are the share of three shards: six are kept for them.
        load(&client, 360).await;
        assert_eq!((store.scale_on_demand().await, open_shards(&client).await), (2, 6));
        // The children are not taken for idle.
        assert_eq!((store.scale_on_demand().await, open_shards(&client).await), (0, 6));

        // Eight shards' worth: it doubles at most in one look.
        load(&client, 960).await;
        store.scale_on_demand().await;
        assert_eq!(open_shards(&client).await, 12);
        store.scale_on_demand().await;
        let grown = open_shards(&client).await;
        assert!((16..=18).contains(&grown), "{grown}");

        // A quiet evening changes nothing, a quiet day does.
        client.clock.advance(12 * 60 * MINUTE_MS);
        load(&client, 1).await;
        assert_eq!((store.scale_on_demand().await, open_shards(&client).await), (0, grown));
        client.clock.advance(24 * 60 * MINUTE_MS);
        store.scale_on_demand().await;
        assert_eq!(open_shards(&client).await, 4);

        // Provisioned streams, and those without limits, are left alone.
        let tag = json!({"StreamName": "s", "Tags": {"tidemill:capacity": "unlimited"}});
        client.ok("AddTagsToStream", tag).await;
        load(&client, 960).await;
        assert_eq!(store.scale_on_demand().await, 0);
    });
}
