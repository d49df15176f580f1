//! The operations on streams as a client sees them.

use serde_json::{Value, json};
use tidemill_shards::env::SimDisk;

use crate::kinesis::Client;
use crate::support::*;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
const MIDDLE: &str = "170141183460469231731687303715884105728";

async fn summary(client: &Client, stream: &str) -> Value {
    client.ok("DescribeStreamSummary", json!({"StreamName": stream})).await["StreamDescriptionSummary"].clone()
}

async fn shards(client: &Client, stream: &str) -> Vec<Value> {
    client.ok("ListShards", json!({"StreamName": stream})).await["Shards"]
        .as_array()
        .unwrap()
        .clone()
}

/// Asserts the name of an error, and what is said.
async fn refused(client: &Client, operation: &str, body: Value, expected: (&str, &str)) {
    let (name, message) = client.error(operation, body.clone()).await;
    assert_eq!(name, expected.0, "{operation} {body}: {message}");
    assert!(message.contains(expected.1), "{operation} {body}: {message}");
}

#[test]
fn a_split_shard_ends_with_its_children() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        client.put("s", "a", "1").await;
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let body = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": MIDDLE});
        assert_eq!(client.ok("SplitShard", body.clone()).await, Value::Null);
        let all = shards(&client, "s").await;
        assert_eq!(all.len(), 3);
        let ending = all[0]["SequenceNumberRange"]["EndingSequenceNumber"].as_str().unwrap();
        let hexadecimal = format!(
            "{:x}",
            ending.parse::<tidemill_shards::SequenceNumber>().unwrap().counter
        );
        assert_eq!(hexadecimal, "7fffffffffffffff");
        for child in &all[1..] {
            assert_eq!(child["ParentShardId"], "shardId-000000000000");
            assert_eq!(child["AdjacentParentShardId"], Value::Null);
            assert_eq!(child["SequenceNumberRange"]["EndingSequenceNumber"], Value::Null);
        }
        assert_eq!(all[2]["HashKeyRange"]["StartingHashKey"], MIDDLE);
        assert_eq!(summary(&client, "s").await["OpenShardCount"], 2);

        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["Records"].as_array().unwrap().len(), 1);
        assert_eq!(answer["NextShardIterator"], Value::Null);
        assert_eq!(answer["MillisBehindLatest"], 0);
        let children = answer["ChildShards"].as_array().unwrap();
        assert_eq!(children.len(), 2);
        assert_eq!(children[1]["ShardId"], "shardId-000000000002");
        assert_eq!(children[1]["ParentShards"], json!(["shardId-000000000000"]));
        assert_eq!(children[1]["HashKeyRange"], all[2]["HashKeyRange"]);
        let latest = client.iterator("s", json!({"ShardIteratorType": "LATEST"})).await;
        let answer = client.ok("GetRecords", json!({"ShardIterator": latest})).await;
        assert_eq!(answer["ChildShards"].as_array().unwrap().len(), 2);

        let already = ("InvalidArgumentException", "has already been merged or split");
        refused(&client, "SplitShard", body, already).await;
        for (hash, shard, expected) in [
            (
                "0",
                "shardId-000000000001",
                ("InvalidArgumentException", "is not both greater than one plus"),
            ),
            (
                MIDDLE,
                "shardId-000000000001",
                ("InvalidArgumentException", "less than the shard's EndingHashKey"),
            ),
            (
                "5",
                "shardId-000000000009",
                (
                    "ResourceNotFoundException",
                    "Could not find shard shardId-000000000009 in stream s under account 000000000000.",
                ),
            ),
            (
                "5",
                "nonsense",
                ("ResourceNotFoundException", "Could not find shard nonsense"),
            ),
            (
                "999999999999999999999999999999999999999",
                "shardId-000000000001",
                ("InvalidArgumentException", "range"),
            ),
        ] {
            let body = json!({"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": hash});
            refused(&client, "SplitShard", body, expected).await;
        }

        let merge =
            |one: &str, other: &str| json!({"StreamName": "s", "ShardToMerge": one, "AdjacentShardToMerge": other});
        let (left, right) = ("shardId-000000000001", "shardId-000000000002");
        client.ok("MergeShards", merge(left, right)).await;
        let child = shards(&client, "s").await.pop().unwrap();
        assert_eq!(
            (&child["ParentShardId"], &child["AdjacentParentShardId"]),
            (&json!(left), &json!(right))
        );
        let body = json!({"StreamName": "s", "ShardId": left, "ShardIteratorType": "TRIM_HORIZON"});
        let iterator = client.ok("GetShardIterator", body).await["ShardIterator"].clone();
        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["ChildShards"][0]["ParentShards"], json!([left, right]));
        refused(&client, "MergeShards", merge(left, right), already).await;
        refused(
            &client,
            "MergeShards",
            merge("shardId-000000000003", "shardId-000000000007"),
            ("ResourceNotFoundException", ""),
        )
        .await;
        client.stream("t", 3).await;
        let apart = json!({"StreamName": "t", "ShardToMerge": "shardId-000000000000", "AdjacentShardToMerge": "shardId-000000000002"});
        refused(
            &client,
            "MergeShards",
            apart,
            (
                "InvalidArgumentException",
                "are not an adjacent pair of shards eligible for merging",
            ),
        )
        .await;
    });
}

#[test]
fn lists_of_shards_follow_the_lineage_over_time() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        let count = async |filter: Value| {
            let answer = client
                .ok("ListShards", json!({"StreamName": "s", "ShardFilter": filter}))
                .await;
            let ids: Vec<u64> = answer["Shards"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s["ShardId"].as_str().unwrap()[8..].parse().unwrap())
                .collect();
            ids
        };
        client.clock.advance(10_000);
        let body = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": MIDDLE});
        client.ok("SplitShard", body).await;
        client.clock.advance(10_000);
        let at = |ms: u64| (NOW_MS + ms) as f64 / 1000.0;
        assert_eq!(count(json!({"Type": "AT_LATEST"})).await, [1, 2]);
        assert_eq!(count(json!({"Type": "AT_TRIM_HORIZON"})).await, [0]);
        assert_eq!(count(json!({"Type": "FROM_TRIM_HORIZON"})).await, [0, 1, 2]);
        assert_eq!(
            count(json!({"Type": "AT_TIMESTAMP", "Timestamp": at(9_999)})).await,
            [0]
        );
        assert_eq!(
            count(json!({"Type": "AT_TIMESTAMP", "Timestamp": at(10_001)})).await,
            [1, 2]
        );
        assert_eq!(
            count(json!({"Type": "FROM_TIMESTAMP", "Timestamp": at(5_000)})).await,
            [0, 1, 2]
        );
        assert_eq!(
            count(json!({"Type": "FROM_TIMESTAMP", "Timestamp": at(15_000)})).await,
            [1, 2]
        );
        assert_eq!(
            count(json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000000"})).await,
            [1, 2]
        );
        // Closed shards go when their records have.
        client.clock.advance(24 * 3_600_000 + 1 - 10_000);
        assert_eq!(count(json!({"Type": "AT_TRIM_HORIZON"})).await, [1, 2]);
        assert_eq!(shards(&client, "s").await.len(), 2);
        let body = json!({"StreamName": "s"});
        let description = client.ok("DescribeStream", body).await["StreamDescription"].clone();
        assert_eq!(description["Shards"].as_array().unwrap().len(), 2);
        let expired = json!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "LATEST"});
        refused(&client, "GetShardIterator", expired, ("ResourceNotFoundException", "")).await;
    });
}

#[test]
fn shard_counts_are_updated_within_the_limits() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 3).await;
        let body =
            |target: i64| json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        let answer = client.ok("UpdateShardCount", body(5)).await;
        assert_eq!(
            answer,
            json!({"StreamName": "s", "CurrentShardCount": 3, "TargetShardCount": 5, "StreamARN": ARN})
        );
        assert_eq!(summary(&client, "s").await["OpenShardCount"], 5);
        refused(
            &client,
            "UpdateShardCount",
            body(11),
            ("InvalidArgumentException", "over double your current open shard count"),
        )
        .await;
        refused(
            &client,
            "UpdateShardCount",
            body(2),
            ("InvalidArgumentException", "below half your current open shard count"),
        )
        .await;
        refused(
            &client,
            "UpdateShardCount",
            body(0),
            ("ValidationException", "'targetShardCount'"),
        )
        .await;
        client.stream("t", 40).await;
        // 45 of 50 shards are there.
        let limit = (
            "LimitExceededException",
            "Limit: 50. Number of additional shards that would have resulted from this request: 10.",
        );
        let grow = json!({"StreamName": "t", "TargetShardCount": 50, "ScalingType": "UNIFORM_SCALING"});
        refused(&client, "UpdateShardCount", grow, limit).await;
        // The user does not decide on the shards of an on-demand stream.
        client.ok("CreateStream", json!({"StreamName": "o"})).await;
        let on_demand = ("ValidationException", "ON_DEMAND");
        for (operation, more) in [
            (
                "UpdateShardCount",
                json!({"TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"}),
            ),
            (
                "SplitShard",
                json!({"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "5"}),
            ),
            (
                "MergeShards",
                json!({"ShardToMerge": "shardId-000000000000", "AdjacentShardToMerge": "shardId-000000000001"}),
            ),
        ] {
            let mut body = more;
            body["StreamName"] = "o".into();
            refused(&client, operation, body, on_demand).await;
        }
        let limits = client.ok("DescribeLimits", json!({})).await;
        assert_eq!(
            (&limits["ShardLimit"], &limits["OpenShardCount"]),
            (&json!(50), &json!(49))
        );
        assert_eq!(
            (&limits["OnDemandStreamCount"], &limits["OnDemandStreamCountLimit"]),
            (&json!(1), &json!(1))
        );
    });
}

#[test]
fn retention_changes_both_ways_and_is_checked() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        let body = |hours: i64| json!({"StreamName": "s", "RetentionPeriodHours": hours});
        client.ok("IncreaseStreamRetentionPeriod", body(8_760)).await;
        assert_eq!(summary(&client, "s").await["RetentionPeriodHours"], 8_760);
        client.ok("DecreaseStreamRetentionPeriod", body(24)).await;
        assert_eq!(summary(&client, "s").await["RetentionPeriodHours"], 24);
        for (operation, hours, text) in [
            (
                "IncreaseStreamRetentionPeriod",
                23,
                "Minimum allowed retention period is 24 hours.",
            ),
            ("IncreaseStreamRetentionPeriod", -1, "is too short."),
            (
                "IncreaseStreamRetentionPeriod",
                8_761,
                "Maximum allowed retention period is 8760 hours.",
            ),
            (
                "DecreaseStreamRetentionPeriod",
                48,
                "can not be longer than existing retention period (24 hours)",
            ),
        ] {
            refused(&client, operation, body(hours), ("InvalidArgumentException", text)).await;
        }
        client.ok("IncreaseStreamRetentionPeriod", body(48)).await;
        let shorter = (
            "InvalidArgumentException",
            "can not be shorter than existing retention period (48 hours)",
        );
        refused(&client, "IncreaseStreamRetentionPeriod", body(36), shorter).await;
        refused(
            &client,
            "IncreaseStreamRetentionPeriod",
            json!({"StreamName": "s"}),
            ("ValidationException", "'retentionPeriodHours'"),
        )
        .await;
    });
}

#[test]
fn tags_by_name_and_by_arn_are_the_same() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        client
            .ok(
                "AddTagsToStream",
                json!({"StreamName": "s", "Tags": {"b": "2", "a": "1", "c": ""}}),
            )
            .await;
        client
            .ok(
                "TagResource",
                json!({"ResourceARN": ARN, "Tags": {"d": "4", "a": "one"}}),
            )
            .await;
        let first = client
            .ok("ListTagsForStream", json!({"StreamName": "s", "Limit": 2}))
            .await;
        assert_eq!(
            first,
            json!({"Tags": [{"Key": "a", "Value": "one"}, {"Key": "b", "Value": "2"}], "HasMoreTags": true})
        );
        let rest = client
            .ok(
                "ListTagsForStream",
                json!({"StreamName": "s", "ExclusiveStartTagKey": "b"}),
            )
            .await;
        assert_eq!(
            rest,
            json!({"Tags": [{"Key": "c", "Value": ""}, {"Key": "d", "Value": "4"}], "HasMoreTags": false})
        );
        client
            .ok(
                "RemoveTagsFromStream",
                json!({"StreamName": "s", "TagKeys": ["a", "nothing"]}),
            )
            .await;
        client
            .ok("UntagResource", json!({"ResourceARN": ARN, "TagKeys": ["b", "c"]}))
            .await;
        drop(client);
        let client = Client::new(&disk);
        let tags = client.ok("ListTagsForResource", json!({"ResourceARN": ARN})).await;
        assert_eq!(tags, json!({"Tags": [{"Key": "d", "Value": "4"}]}));

        let many: serde_json::Map<String, Value> = (0..50).map(|n| (format!("k{n}"), "".into())).collect();
        refused(
            &client,
            "AddTagsToStream",
            json!({"StreamName": "s", "Tags": many}),
            ("InvalidArgumentException", "at most 50"),
        )
        .await;
        refused(
            &client,
            "TagResource",
            json!({"ResourceARN": ARN, "Tags": {"k": "<"}}),
            ("InvalidArgumentException", "invalid characters"),
        )
        .await;
        refused(
            &client,
            "TagResource",
            json!({"ResourceARN": ARN, "Tags": {"": "x"}}),
            ("ValidationException", "Map keys must satisfy"),
        )
        .await;
        refused(
            &client,
            "AddTagsToStream",
            json!({"StreamName": "s", "Tags": {}}),
            ("ValidationException", "'tags'"),
        )
        .await;
        refused(
            &client,
            "UntagResource",
            json!({"ResourceARN": ARN, "TagKeys": []}),
            ("ValidationException", "'tagKeys'"),
        )
        .await;
        let long = json!({"ResourceARN": ARN, "TagKeys": ["x".repeat(129)]});
        refused(
            &client,
            "UntagResource",
            long,
            (
                "ValidationException",
                "Member must satisfy constraint: [Member must have length less than or equal to 128",
            ),
        )
        .await;
        refused(
            &client,
            "UntagResource",
            json!({"ResourceARN": ARN, "TagKeys": [1]}),
            ("SerializationException", ""),
        )
        .await;
        for other in [
            format!("{ARN}-other"),
            format!("{ARN}/consumer/c:1"),
            ARN.replace("us-east-1", "eu-west-1"),
            ARN.replace("stream", "queue"),
        ] {
            refused(
                &client,
                "ListTagsForResource",
                json!({"ResourceARN": other}),
                ("ResourceNotFoundException", "not found"),
            )
            .await;
        }
        refused(
            &client,
            "ListTagsForResource",
            json!({"ResourceARN": "s"}),
            ("ValidationException", "'resourceARN'"),
        )
        .await;
    });
}

#[test]
fn policies_are_kept_until_they_are_deleted() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        let missing = ("ResourceNotFoundException", "No resource policy found");
        refused(&client, "GetResourcePolicy", json!({"ResourceARN": ARN}), missing).await;
        refused(&client, "DeleteResourcePolicy", json!({"ResourceARN": ARN}), missing).await;
        let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"kinesis:*"}}"#;
        client
            .ok("PutResourcePolicy", json!({"ResourceARN": ARN, "Policy": policy}))
            .await;
        assert_eq!(
            client.ok("GetResourcePolicy", json!({"ResourceARN": ARN})).await,
            json!({"Policy": policy})
        );
        let bad = ("InvalidArgumentException", "is not a JSON object");
        refused(
            &client,
            "PutResourcePolicy",
            json!({"ResourceARN": ARN, "Policy": "nonsense"}),
            bad,
        )
        .await;
        client.ok("DeleteResourcePolicy", json!({"ResourceARN": ARN})).await;
        refused(&client, "GetResourcePolicy", json!({"ResourceARN": ARN}), missing).await;
    });
}

#[test]
fn monitoring_and_encryption_are_told_as_they_were_asked_for() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 1).await;
        let metrics = |names: &[&str]| json!({"StreamName": "s", "ShardLevelMetrics": names});
        let answer = client
            .ok("EnableEnhancedMonitoring", metrics(&["OutgoingBytes", "IncomingBytes"]))
            .await;
        assert_eq!(answer["CurrentShardLevelMetrics"], json!([]));
        assert_eq!(
            answer["DesiredShardLevelMetrics"],
            json!(["IncomingBytes", "OutgoingBytes"])
        );
        assert_eq!(answer["StreamARN"], ARN);
        assert_eq!(
            summary(&client, "s").await["EnhancedMonitoring"],
            json!([{"ShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"]}])
        );
        let answer = client.ok("EnableEnhancedMonitoring", metrics(&["ALL"])).await;
        assert_eq!(answer["DesiredShardLevelMetrics"].as_array().unwrap().len(), 7);
        let answer = client
            .ok("DisableEnhancedMonitoring", metrics(&["IncomingBytes"]))
            .await;
        assert_eq!(answer["DesiredShardLevelMetrics"].as_array().unwrap().len(), 6);
        client.ok("DisableEnhancedMonitoring", metrics(&["ALL"])).await;
        let wrong = (
            "ValidationException",
            "Value '[Nonsense]' at 'shardLevelMetrics' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [",
        );
        refused(&client, "EnableEnhancedMonitoring", metrics(&["Nonsense"]), wrong).await;
        refused(
            &client,
            "EnableEnhancedMonitoring",
            metrics(&[]),
            ("ValidationException", "greater than or equal to 1"),
        )
        .await;

        let key = |kind: &str| json!({"StreamName": "s", "EncryptionType": kind, "KeyId": "alias/aws/kinesis"});
        client.ok("StartStreamEncryption", key("KMS")).await;
        let told = summary(&client, "s").await;
        assert_eq!(
            (&told["EncryptionType"], &told["KeyId"]),
            (&json!("KMS"), &json!("alias/aws/kinesis"))
        );
        assert_eq!(client.put("s", "k", "x").await["EncryptionType"], "KMS");
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["Records"][0]["EncryptionType"], "KMS");
        refused(
            &client,
            "StartStreamEncryption",
            key("NONE"),
            ("InvalidArgumentException", "KMS"),
        )
        .await;
        refused(
            &client,
            "StartStreamEncryption",
            key("AES"),
            ("ValidationException", "'encryptionType'"),
        )
        .await;
        client.ok("StopStreamEncryption", key("KMS")).await;
        let told = summary(&client, "s").await;
        assert_eq!(
            (&told["EncryptionType"], &told["KeyId"]),
            (&json!("NONE"), &Value::Null)
        );
    });
}

#[test]
fn modes_sizes_and_throughput_change() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 2).await;
        let mode = |mode: &str| json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": mode}});
        let warm = json!({"StreamARN": ARN, "WarmThroughputMiBps": 30});
        refused(
            &client,
            "UpdateStreamWarmThroughput",
            warm.clone(),
            ("ValidationException", "ON_DEMAND"),
        )
        .await;
        client.ok("UpdateStreamMode", mode("ON_DEMAND")).await;
        let told = summary(&client, "s").await;
        assert_eq!(told["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
        assert_eq!(
            (&told["OpenShardCount"], &told["WarmThroughput"]),
            (&json!(2), &Value::Null)
        );
        let answer = client.ok("UpdateStreamWarmThroughput", warm).await;
        let throughput = json!({"TargetMiBps": 30, "CurrentMiBps": 30});
        assert_eq!(
            answer,
            json!({"StreamARN": ARN, "StreamName": "s", "WarmThroughput": throughput})
        );
        assert_eq!(summary(&client, "s").await["WarmThroughput"], throughput);
        client.ok("UpdateStreamMode", mode("PROVISIONED")).await;
        assert_eq!(summary(&client, "s").await["WarmThroughput"], Value::Null);
        refused(
            &client,
            "UpdateStreamMode",
            json!({"StreamName": "s"}),
            ("ValidationException", "2 validation errors detected"),
        )
        .await;

        let size = |kib: i64| json!({"StreamARN": ARN, "MaxRecordSizeInKiB": kib});
        client.ok("UpdateMaxRecordSize", size(2_048)).await;
        assert_eq!(summary(&client, "s").await["MaxRecordSizeInKiB"], 2_048);
        client.put("s", "k", &"x".repeat(2 << 20 >> 1)).await;
        refused(
            &client,
            "UpdateMaxRecordSize",
            size(1_023),
            ("ValidationException", "'maxRecordSizeInKiB'"),
        )
        .await;
        client
            .ok(
                "CreateStream",
                json!({"StreamName": "o", "WarmThroughputMiBps": 9, "RecordDistributionStrategy": "AUTO"}),
            )
            .await;
        let told = summary(&client, "o").await;
        assert_eq!(told["WarmThroughput"]["TargetMiBps"], 9);
        assert_eq!(told["RecordDistributionStrategy"], "AUTO");
    });
}

#[test]
fn records_need_no_key_where_they_are_spread() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        client.stream("s", 4).await;
        let body = json!({"StreamName": "s", "Data": "AAAA"});
        let missing = "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: Member must not be null";
        refused(&client, "PutRecord", body.clone(), ("ValidationException", missing)).await;
        let records = json!({"StreamName": "s", "Records": [{"Data": "AAAA", "PartitionKey": "k"}, {"Data": "AAAA"}]});
        refused(
            &client,
            "PutRecords",
            records,
            ("ValidationException", "Value null at 'records.2.member.partitionKey'"),
        )
        .await;

        client
            .ok(
                "UpdateStreamRecordDistributionStrategy",
                json!({"StreamARN": ARN, "RecordDistributionStrategy": "AUTO"}),
            )
            .await;
        let mut counts = std::collections::BTreeMap::new();
        for index in 0..40 {
            let mut body = body.clone();
            if index % 2 == 0 {
                body["PartitionKey"] = "the same".into();
            }
            let shard = client.ok("PutRecord", body).await["ShardId"].to_string();
            *counts.entry(shard).or_insert(0) += 1;
        }
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10, 10]);
        let iterator = client.iterator("s", json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let answer = client.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        let keys: Vec<&Value> = answer["Records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| &record["PartitionKey"])
            .collect();
        assert!(
            keys.contains(&&Value::Null) || keys.contains(&&json!("the same")),
            "{keys:?}"
        );
        client
            .ok(
                "UpdateStreamRecordDistributionStrategy",
                json!({"StreamARN": ARN, "RecordDistributionStrategy": "USER_PARTITION_KEY"}),
            )
            .await;
        refused(&client, "PutRecord", body, ("ValidationException", missing)).await;
    });
}

#[test]
fn account_settings_are_kept() {
    block_on(async {
        let disk = SimDisk::new();
        let client = Client::new(&disk);
        let told = async |client: &Client| {
            client.ok("DescribeAccountSettings", json!({})).await["MinimumThroughputBillingCommitment"].clone()
        };
        assert_eq!(told(&client).await, json!({"Status": "DISABLED"}));
        let set = |status: &str| json!({"MinimumThroughputBillingCommitment": {"Status": status}});
        let enabled = client.ok("UpdateAccountSettings", set("ENABLED")).await;
        assert_eq!(
            enabled["MinimumThroughputBillingCommitment"]["StartedAt"],
            NOW_MS as f64 / 1000.0
        );
        drop(client);
        let client = Client::new(&disk);
        assert_eq!(told(&client).await["Status"], "ENABLED");
        client.ok("UpdateAccountSettings", set("DISABLED")).await;
        assert_eq!(told(&client).await["Status"], "ENABLED_UNTIL_EARLIEST_ALLOWED_END");
        client.clock.advance(86_400_000);
        assert_eq!(told(&client).await["Status"], "DISABLED");
        refused(
            &client,
            "UpdateAccountSettings",
            set("MAYBE"),
            ("ValidationException", "'minimumThroughputBillingCommitment.status'"),
        )
        .await;
    });
}

#[test]
fn clients_see_the_states_when_they_last() {
    block_on(async {
        let client = Client::with_delay(&SimDisk::new(), 1_000);
        let status = async || summary(&client, "s").await["StreamStatus"].as_str().unwrap().to_owned();
        client.stream("s", 1).await;
        assert_eq!(status().await, "CREATING");
        let description = client.ok("DescribeStream", json!({"StreamName": "s"})).await["StreamDescription"].clone();
        assert_eq!(description["Shards"], json!([]));
        let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": ""});
        refused(
            &client,
            "PutRecord",
            put.clone(),
            (
                "ResourceNotFoundException",
                "Stream s under account 000000000000 not found.",
            ),
        )
        .await;
        refused(
            &client,
            "ListShards",
            json!({"StreamName": "s"}),
            ("ResourceInUseException", "not ACTIVE, instead in state CREATING"),
        )
        .await;
        let iterator = json!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "LATEST"});
        refused(&client, "GetShardIterator", iterator, ("ResourceNotFoundException", "")).await;
        client.clock.advance(1_000);
        assert_eq!(status().await, "ACTIVE");
        let split = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": MIDDLE});
        client.ok("SplitShard", split).await;
        assert_eq!(status().await, "UPDATING");
        client.ok("PutRecord", put.clone()).await;
        let retention = json!({"StreamName": "s", "RetentionPeriodHours": 48});
        refused(
            &client,
            "IncreaseStreamRetentionPeriod",
            retention,
            (
                "ResourceInUseException",
                "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING",
            ),
        )
        .await;
        client.clock.advance(1_000);
        client.ok("DeleteStream", json!({"StreamName": "s"})).await;
        assert_eq!(status().await, "DELETING");
        assert_eq!(
            client.ok("ListStreams", json!({})).await["StreamSummaries"][0]["StreamStatus"],
            "DELETING"
        );
        refused(&client, "PutRecord", put, ("ResourceNotFoundException", "")).await;
        client.clock.advance(1_000);
        refused(
            &client,
            "DescribeStreamSummary",
            json!({"StreamName": "s"}),
            ("ResourceNotFoundException", ""),
        )
        .await;
        assert_eq!(client.ok("ListStreams", json!({})).await["StreamNames"], json!([]));
    });
}
