"""Operations on streams: resharding, retention, tags, policies and the rest, as boto3 uses them."""

import json
import uuid

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

SPACE = 2**128


def code(error):
    return error.value.response["Error"]["Code"]


def summary(kinesis, name):
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]


def arn(kinesis, name):
    return summary(kinesis, name)["StreamARN"]


def shards(kinesis, name):
    pages = kinesis.get_paginator("list_shards").paginate(StreamName=name)
    return [shard for page in pages for shard in page["Shards"]]


def open_shards(kinesis, name):
    """The open shards by their hash keys, which must tile the space."""
    found = [shard for shard in shards(kinesis, name) if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
    found.sort(key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
    next_key = 0
    for shard in found:
        assert int(shard["HashKeyRange"]["StartingHashKey"]) == next_key
        next_key = int(shard["HashKeyRange"]["EndingHashKey"]) + 1
    assert next_key == SPACE
    return found


def middle(shard):
    bounds = shard["HashKeyRange"]
    return str((int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"])) // 2)


def read_by_lineage(kinesis, name):
    """Follows the stream from its first shards through ChildShards, each child after all its parents."""
    known = {shard["ShardId"]: shard for shard in shards(kinesis, name)}
    parents = {
        name: [shard[key] for key in ("ParentShardId", "AdjacentParentShardId") if key in shard]
        for name, shard in known.items()
    }
    waiting = [shard for shard, of in parents.items() if not of]
    done, records, told = set(), [], set(waiting)
    while waiting:
        shard = waiting.pop(0)
        position = kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        position = position["ShardIterator"]
        while True:
            answer = kinesis.get_records(ShardIterator=position, Limit=7)
            records += answer["Records"]
            if "NextShardIterator" not in answer:
                assert answer["ChildShards"]
                done.add(shard)
                for child in answer["ChildShards"]:
                    assert shard in child["ParentShards"]
                    if child["ShardId"] not in told and set(child["ParentShards"]) <= done:
                        told.add(child["ShardId"])
                        waiting.append(child["ShardId"])
                break
            assert "ChildShards" not in answer
            position = answer["NextShardIterator"]
            if not answer["Records"] and answer["MillisBehindLatest"] == 0:
                done.add(shard)
                break
    assert done == set(known)
    return records


def test_order_of_each_key_holds_over_splits_and_merges(kinesis, new_stream):
    name = new_stream(2)
    number = 0

    def put(count):
        nonlocal number
        records = [
            {"PartitionKey": f"key-{index % 11}", "Data": str(index).encode()} for index in range(number, number + count)
        ]
        number += count
        assert kinesis.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0

    put(60)
    for shard in open_shards(kinesis, name):
        kinesis.split_shard(StreamName=name, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle(shard))
        put(40)
    found = open_shards(kinesis, name)
    assert len(found) == 4
    kinesis.merge_shards(
        StreamName=name, ShardToMerge=found[2]["ShardId"], AdjacentShardToMerge=found[1]["ShardId"]
    )
    put(60)
    answer = kinesis.update_shard_count(StreamName=name, TargetShardCount=5, ScalingType="UNIFORM_SCALING")
    assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (3, 5)
    put(60)
    assert len(open_shards(kinesis, name)) == 5
    assert summary(kinesis, name)["OpenShardCount"] == 5

    records = read_by_lineage(kinesis, name)
    assert len(records) == number
    seen = {}
    for record in records:
        assert int(record["Data"]) > seen.get(record["PartitionKey"], -1)
        seen[record["PartitionKey"]] = int(record["Data"])
    for shard in shards(kinesis, name):
        ending = shard["SequenceNumberRange"].get("EndingSequenceNumber")
        if ending:
            assert f"{int(ending):x}"[11:27] == "7fffffffffffffff"


def test_resharding_that_makes_no_sense(kinesis, new_stream):
    name = new_stream(3)
    first, second, third = (shard["ShardId"] for shard in open_shards(kinesis, name))
    for start in ("0", "1", str(SPACE - 1)):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            kinesis.split_shard(StreamName=name, ShardToSplit=first, NewStartingHashKey=start)
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        kinesis.split_shard(StreamName=name, ShardToSplit="shardId-000000000042", NewStartingHashKey="5")
    for pair in ((first, third), (second, second)):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            kinesis.merge_shards(StreamName=name, ShardToMerge=pair[0], AdjacentShardToMerge=pair[1])
    kinesis.merge_shards(StreamName=name, ShardToMerge=first, AdjacentShardToMerge=second)
    with pytest.raises(kinesis.exceptions.InvalidArgumentException):
        kinesis.split_shard(StreamName=name, ShardToSplit=first, NewStartingHashKey="5")
    for target in (5, 7):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            kinesis.update_shard_count(StreamName=name, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
    with pytest.raises(kinesis.exceptions.LimitExceededException):
        kinesis.create_stream(StreamName=f"test-{uuid.uuid4()}", ShardCount=1_000_000)
    on_demand = new_stream(None)
    with pytest.raises(ClientError) as error:
        kinesis.update_shard_count(StreamName=on_demand, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    assert code(error) == "ValidationException"


def test_retention(kinesis, new_stream):
    name = new_stream()
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=8760)
    assert summary(kinesis, name)["RetentionPeriodHours"] == 8760
    kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    assert kinesis.describe_stream(StreamName=name)["StreamDescription"]["RetentionPeriodHours"] == 48
    for call, hours in (
        (kinesis.increase_stream_retention_period, 24),
        (kinesis.increase_stream_retention_period, 8761),
        (kinesis.decrease_stream_retention_period, 23),
        (kinesis.decrease_stream_retention_period, 49),
    ):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            call(StreamName=name, RetentionPeriodHours=hours)


def test_tags(kinesis, new_stream):
    name = new_stream(1, Tags={"created": "with"})
    resource = arn(kinesis, name)
    kinesis.add_tags_to_stream(StreamName=name, Tags={"a": "1", "b": ""})
    kinesis.tag_resource(ResourceARN=resource, Tags={"a": "2", "ü z": "x.y:/=+-@_"})
    expected = [("a", "2"), ("b", ""), ("created", "with"), ("ü z", "x.y:/=+-@_")]
    listed = [(tag["Key"], tag["Value"]) for tag in kinesis.list_tags_for_resource(ResourceARN=resource)["Tags"]]
    assert listed == expected
    pages, start = [], {}
    while True:
        page = kinesis.list_tags_for_stream(StreamName=name, Limit=3, **start)
        pages += page["Tags"]
        if not page["HasMoreTags"]:
            break
        start = {"ExclusiveStartTagKey": page["Tags"][-1]["Key"]}
    assert [(tag["Key"], tag["Value"]) for tag in pages] == expected
    kinesis.remove_tags_from_stream(StreamName=name, TagKeys=["a", "missing"])
    kinesis.untag_resource(ResourceARN=resource, TagKeys=["b", "ü z"])
    assert kinesis.list_tags_for_stream(StreamName=name)["Tags"] == [{"Key": "created", "Value": "with"}]
    with pytest.raises(kinesis.exceptions.InvalidArgumentException):
        kinesis.add_tags_to_stream(StreamName=name, Tags={f"k{index}": "" for index in range(50)})
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        kinesis.list_tags_for_resource(ResourceARN=resource + "-other")


def test_resource_policy(kinesis, new_stream):
    resource = arn(kinesis, new_stream())
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        kinesis.get_resource_policy(ResourceARN=resource)
    statement = {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "kinesis:GetRecords"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    kinesis.put_resource_policy(ResourceARN=resource, Policy=policy)
    assert kinesis.get_resource_policy(ResourceARN=resource)["Policy"] == policy
    with pytest.raises(kinesis.exceptions.InvalidArgumentException):
        kinesis.put_resource_policy(ResourceARN=resource, Policy="{")
    kinesis.delete_resource_policy(ResourceARN=resource)
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        kinesis.get_resource_policy(ResourceARN=resource)


def test_monitoring(kinesis, new_stream):
    name = new_stream()
    answer = kinesis.enable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["IncomingBytes", "OutgoingBytes"])
    assert answer["CurrentShardLevelMetrics"] == []
    assert answer["DesiredShardLevelMetrics"] == ["IncomingBytes", "OutgoingBytes"]
    assert summary(kinesis, name)["EnhancedMonitoring"] == [{"ShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"]}]
    answer = kinesis.disable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])
    assert answer["CurrentShardLevelMetrics"] == ["IncomingBytes", "OutgoingBytes"]
    assert answer["DesiredShardLevelMetrics"] == []


def test_encryption_is_told(kinesis, new_stream):
    name = new_stream()
    kinesis.start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    stream = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    assert (stream["EncryptionType"], stream["KeyId"]) == ("KMS", "alias/aws/kinesis")
    assert kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"")["EncryptionType"] == "KMS"
    kinesis.stop_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert summary(kinesis, name)["EncryptionType"] == "NONE"


def test_modes_sizes_and_throughput(kinesis, new_stream):
    name = new_stream(2)
    resource = arn(kinesis, name)
    kinesis.update_max_record_size(StreamARN=resource, MaxRecordSizeInKiB=10240)
    assert summary(kinesis, name)["MaxRecordSizeInKiB"] == 10240
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"x" * (9 << 20))
    with pytest.raises(ClientError) as error:
        kinesis.update_stream_warm_throughput(StreamARN=resource, WarmThroughputMiBps=5)
    assert code(error) == "ValidationException"
    kinesis.update_stream_mode(StreamARN=resource, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    answer = kinesis.update_stream_warm_throughput(StreamARN=resource, WarmThroughputMiBps=5)
    assert answer["WarmThroughput"] == {"TargetMiBps": 5, "CurrentMiBps": 5}
    told = summary(kinesis, name)
    assert told["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert told["WarmThroughput"]["TargetMiBps"] == 5
    assert told["OpenShardCount"] == 2


def test_records_are_spread_where_keys_decide_on_nothing(kinesis, new_stream):
    name = new_stream(4)
    with pytest.raises(ClientError) as error:
        kinesis.put_record(StreamName=name, Data=b"x")
    assert code(error) == "ValidationException"
    kinesis.update_stream_record_distribution_strategy(
        StreamARN=arn(kinesis, name), RecordDistributionStrategy="AUTO"
    )
    assert summary(kinesis, name)["RecordDistributionStrategy"] == "AUTO"
    answer = kinesis.put_records(StreamName=name, Records=[{"Data": b"x"} for _ in range(100)])
    counts = {}
    for receipt in answer["Records"]:
        counts[receipt["ShardId"]] = counts.get(receipt["ShardId"], 0) + 1
    assert sorted(counts.values()) == [25, 25, 25, 25]
    records = read_by_lineage(kinesis, name)
    assert len(records) == 100 and all("PartitionKey" not in record for record in records)


def test_limits_and_account_settings(kinesis, new_stream):
    new_stream(3)
    limits = kinesis.describe_limits()
    assert 3 <= limits["OpenShardCount"] <= limits["ShardLimit"]
    assert limits["OnDemandStreamCount"] <= limits["OnDemandStreamCountLimit"]
    for status in ("ENABLED", "DISABLED"):
        kinesis.update_account_settings(MinimumThroughputBillingCommitment={"Status": status})
        told = kinesis.describe_account_settings()["MinimumThroughputBillingCommitment"]
        assert told["Status"].startswith("ENABLED")


def test_a_stream_with_limits_refuses_what_is_beyond_them(kinesis, new_stream):
    stream = new_stream(1, Tags={"tidemill:capacity": "enforced"})
    records = [{"PartitionKey": "k", "Data": b"x" * 100_000}] * 100
    answer = kinesis.put_records(StreamName=stream, Records=records)
    failed = [record for record in answer["Records"] if "ErrorCode" in record]
    assert len(failed) == answer["FailedRecordCount"] > 0
    assert {record["ErrorCode"] for record in failed} == {"ProvisionedThroughputExceededException"}
    assert failed[0]["ErrorMessage"].startswith(f"Rate exceeded for shard shardId-000000000000 in stream {stream} ")
    # Without the tag there are none.
    kinesis.remove_tags_from_stream(StreamName=stream, TagKeys=["tidemill:capacity"])
    assert kinesis.put_records(StreamName=stream, Records=records)["FailedRecordCount"] == 0
    with pytest.raises(kinesis.exceptions.InvalidArgumentException):
        kinesis.add_tags_to_stream(StreamName=stream, Tags={"tidemill:capacity": "plenty"})


def test_the_caller_is_the_root_of_the_account_that_arns_name(endpoint, kinesis, new_stream):
    sts = boto3.client(
        "sts",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}),
    )
    caller = sts.get_caller_identity()
    stream = kinesis.describe_stream_summary(StreamName=new_stream())["StreamDescriptionSummary"]
    account = stream["StreamARN"].split(":")[4]
    assert (caller["Account"], caller["UserId"]) == (account, account)
    assert caller["Arn"] == f"arn:aws:iam::{account}:root"
    with pytest.raises(ClientError) as refused:
        sts.get_session_token()
    assert refused.value.response["Error"]["Code"] == "InvalidAction"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
