"""The Kinesis API of a running server, as boto3 uses it. Facts: the service's documentation and botocore's model."""

import datetime
import hashlib
import time
import uuid

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

FIRST = "shardId-000000000000"
HASH_KEY_MAX = 2**128 - 1


def code(error):
    return error.value.response["Error"]["Code"]


def message(error):
    return error.value.response["Error"]["Message"]


def iterator(kinesis, stream, kind="TRIM_HORIZON", shard=FIRST, **options):
    answer = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **options)
    return answer["ShardIterator"]


def read(kinesis, shard_iterator, **options):
    return kinesis.get_records(ShardIterator=shard_iterator, **options)


def data(answer):
    return [record["Data"] for record in answer["Records"]]


def read_shard(kinesis, stream, shard):
    records, position = [], iterator(kinesis, stream, shard=shard)
    while True:
        answer = read(kinesis, position)
        records += answer["Records"]
        position = answer["NextShardIterator"]
        if answer["MillisBehindLatest"] == 0 and not answer["Records"]:
            return records


@pytest.fixture(scope="session")
def unchecked(endpoint):
    """A client that sends what boto3 would refuse."""
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(parameter_validation=False, retries={"max_attempts": 0}),
    )


# Streams


def test_provisioned_stream_is_described_with_its_shards(kinesis, new_stream):
    before = time.time()
    name = new_stream(3)
    stream = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    assert stream["StreamName"] == name
    assert stream["StreamStatus"] == "ACTIVE"
    assert stream["StreamARN"].startswith("arn:aws:kinesis:") and stream["StreamARN"].endswith(f":stream/{name}")
    assert stream["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    assert stream["RetentionPeriodHours"] == 24
    assert stream["EncryptionType"] == "NONE"
    assert stream["EnhancedMonitoring"] == [{"ShardLevelMetrics": []}]
    assert stream["HasMoreShards"] is False
    assert abs(stream["StreamCreationTimestamp"].timestamp() - before) < 60
    assert [shard["ShardId"] for shard in stream["Shards"]] == [f"shardId-{index:012}" for index in range(3)]


def test_hash_key_ranges_of_open_shards_tile_the_space(kinesis, new_stream):
    for count in (1, 2, 3, 7):
        shards = kinesis.list_shards(StreamName=new_stream(count))["Shards"]
        next_key = 0
        for shard in shards:
            assert int(shard["HashKeyRange"]["StartingHashKey"]) == next_key
            next_key = int(shard["HashKeyRange"]["EndingHashKey"]) + 1
            assert int(shard["SequenceNumberRange"]["StartingSequenceNumber"]) > 0
            assert "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        assert next_key == HASH_KEY_MAX + 1


def test_stream_without_shard_count_is_on_demand_with_four_shards(kinesis, new_stream):
    for options in ({}, {"StreamModeDetails": {"StreamMode": "ON_DEMAND"}}):
        name = new_stream(None, **options)
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
        assert summary["OpenShardCount"] == 4
        assert summary["ConsumerCount"] == 0
        assert summary["StreamStatus"] == "ACTIVE"


def test_streams_are_named_by_arn_too(kinesis, new_stream):
    name = new_stream(1)
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    assert kinesis.describe_stream(StreamARN=arn)["StreamDescription"]["StreamName"] == name
    kinesis.put_record(StreamARN=arn, PartitionKey="k", Data=b"x")
    position = kinesis.get_shard_iterator(StreamARN=arn, ShardId=FIRST, ShardIteratorType="TRIM_HORIZON")
    assert data(kinesis.get_records(StreamARN=arn, ShardIterator=position["ShardIterator"])) == [b"x"]
    assert len(kinesis.list_shards(StreamARN=arn)["Shards"]) == 1
    with pytest.raises(ClientError) as error:
        kinesis.describe_stream(StreamARN=arn + "-other")
    assert code(error) == "ResourceNotFoundException"


def test_name_taken_and_name_unknown(kinesis, new_stream):
    name = new_stream(1)
    with pytest.raises(kinesis.exceptions.ResourceInUseException) as error:
        kinesis.create_stream(StreamName=name, ShardCount=1)
    assert message(error).startswith(f"Stream {name} under account ") and message(error).endswith("already exists.")
    missing = f"missing-{uuid.uuid4()}"
    for call in (
        lambda: kinesis.describe_stream(StreamName=missing),
        lambda: kinesis.describe_stream_summary(StreamName=missing),
        lambda: kinesis.delete_stream(StreamName=missing),
        lambda: kinesis.list_shards(StreamName=missing),
        lambda: kinesis.put_record(StreamName=missing, PartitionKey="k", Data=b""),
        lambda: kinesis.put_records(StreamName=missing, Records=[{"PartitionKey": "k", "Data": b""}]),
        lambda: iterator(kinesis, missing),
    ):
        with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
            call()


def test_deleted_stream_is_gone_with_its_records(kinesis, new_stream):
    name = new_stream(1)
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"old")
    position = iterator(kinesis, name)
    kinesis.delete_stream(StreamName=name)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        read(kinesis, position)
    kinesis.create_stream(StreamName=name, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    assert data(read(kinesis, iterator(kinesis, name))) == []


def test_modes_that_contradict_themselves_are_refused(kinesis):
    name = f"test-{uuid.uuid4()}"
    for options in (
        {"ShardCount": 1, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}},
        {"StreamModeDetails": {"StreamMode": "PROVISIONED"}},
    ):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            kinesis.create_stream(StreamName=name, **options)


# Listings


def test_describe_stream_goes_on_behind_a_shard(kinesis, new_stream):
    name = new_stream(5)
    first = kinesis.describe_stream(StreamName=name, Limit=2)["StreamDescription"]
    assert first["HasMoreShards"] is True and len(first["Shards"]) == 2
    rest = kinesis.describe_stream(StreamName=name, ExclusiveStartShardId=first["Shards"][-1]["ShardId"])
    rest = rest["StreamDescription"]
    assert rest["HasMoreShards"] is False
    assert [shard["ShardId"] for shard in rest["Shards"]] == [f"shardId-{index:012}" for index in (2, 3, 4)]
    pages = kinesis.get_paginator("describe_stream").paginate(StreamName=name, PaginationConfig={"PageSize": 2})
    assert sum(len(page["StreamDescription"]["Shards"]) for page in pages) == 5


def test_list_streams_pages_in_order_of_names(kinesis, new_stream):
    names = {new_stream(1) for _ in range(3)}
    listed, summaries, options = [], [], {}
    while True:
        page = kinesis.list_streams(Limit=1, **options)
        listed += page["StreamNames"]
        summaries += page["StreamSummaries"]
        assert page["HasMoreStreams"] == ("NextToken" in page)
        if not page["HasMoreStreams"]:
            break
        options = {"NextToken": page["NextToken"]}
    assert names <= set(listed)
    assert listed == sorted(listed)
    assert [summary["StreamName"] for summary in summaries] == listed
    assert all(summary["StreamStatus"] == "ACTIVE" for summary in summaries)
    after = kinesis.list_streams(ExclusiveStartStreamName=listed[0], Limit=10000)["StreamNames"]
    assert after == listed[1:]
    pages = kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 2})
    assert names <= {name for page in pages for name in page["StreamNames"]}


def test_list_shards_pages_with_tokens(kinesis, new_stream):
    name = new_stream(5)
    first = kinesis.list_shards(StreamName=name, MaxResults=3)
    assert len(first["Shards"]) == 3
    second = kinesis.list_shards(NextToken=first["NextToken"], MaxResults=3)
    assert [shard["ShardId"] for shard in second["Shards"]] == ["shardId-000000000003", "shardId-000000000004"]
    assert "NextToken" not in second
    behind = kinesis.list_shards(StreamName=name, ExclusiveStartShardId="shardId-000000000003")
    assert [shard["ShardId"] for shard in behind["Shards"]] == ["shardId-000000000004"]
    for call in (
        lambda: kinesis.list_shards(StreamName=name, NextToken=first["NextToken"]),
        lambda: kinesis.list_shards(NextToken="bm9uc2Vuc2U="),
        lambda: kinesis.list_shards(NextToken=first["NextToken"][:-4] + "AAAA"),
        lambda: kinesis.list_streams(NextToken=first["NextToken"]),
        lambda: kinesis.list_shards(),
    ):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            call()


def test_list_shards_filters(kinesis, new_stream):
    name = new_stream(3)
    created = kinesis.describe_stream(StreamName=name)["StreamDescription"]["StreamCreationTimestamp"]

    def count(**shard_filter):
        return len(kinesis.list_shards(StreamName=name, ShardFilter=shard_filter)["Shards"])

    assert count(Type="AFTER_SHARD_ID", ShardId=FIRST) == 2
    for kind in ("AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST"):
        assert count(Type=kind) == 3
    for kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP"):
        assert count(Type=kind, Timestamp=created) == 3
    for shard_filter in ({"Type": "AFTER_SHARD_ID"}, {"Type": "AT_TIMESTAMP"}):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            count(**shard_filter)
    assert len(kinesis.list_shards(StreamName=name, StreamCreationTimestamp=created)["Shards"]) == 3
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        kinesis.list_shards(StreamName=name, StreamCreationTimestamp=created - datetime.timedelta(minutes=5))


# Records


def test_put_record_returns_shard_and_rising_sequence_numbers(kinesis, new_stream):
    name = new_stream(1)
    receipts, previous = [], {}
    for index in range(10):
        receipt = kinesis.put_record(StreamName=name, PartitionKey="k", Data=f"{index}".encode(), **previous)
        assert receipt["ShardId"] == FIRST
        receipts.append(receipt["SequenceNumber"])
        previous = {"SequenceNumberForOrdering": receipt["SequenceNumber"]}
    numbers = [int(number) for number in receipts]
    assert numbers == sorted(set(numbers))
    start = kinesis.list_shards(StreamName=name)["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"]
    assert int(start) < numbers[0]
    records = read(kinesis, iterator(kinesis, name))["Records"]
    assert [record["SequenceNumber"] for record in records] == receipts
    assert [record["Data"] for record in records] == [f"{index}".encode() for index in range(10)]
    assert {record["PartitionKey"] for record in records} == {"k"}
    arrivals = [record["ApproximateArrivalTimestamp"] for record in records]
    assert arrivals == sorted(arrivals)
    assert abs(arrivals[-1].timestamp() - time.time()) < 60


def test_sequence_numbers_have_the_services_form(kinesis, new_stream):
    name = new_stream(2)
    receipt = kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"", ExplicitHashKey=str(HASH_KEY_MAX))
    digits = f"{int(receipt['SequenceNumber']):x}"
    assert len(digits) == 47
    assert digits[0] == "2" and digits[-1] == "2"
    assert abs(int(digits[1:10], 16) - time.time()) < 60
    assert int(digits[10], 16) == 1
    assert int(digits[11], 16) <= 7
    assert digits[27:29] == "00"
    assert abs(int(digits[29:38], 16) - time.time()) < 60
    assert int(digits[38:46], 16) == 1


def test_records_go_where_their_hash_says(kinesis, new_stream):
    name = new_stream(4)
    shards = kinesis.list_shards(StreamName=name)["Shards"]

    def shard_of(hash_key):
        for shard in shards:
            bounds = shard["HashKeyRange"]
            if int(bounds["StartingHashKey"]) <= hash_key <= int(bounds["EndingHashKey"]):
                return shard["ShardId"]
        raise AssertionError(hash_key)

    keys = [f"key-{index}" for index in range(50)] + ["schlüssel", "鍵", "x" * 256]
    records = [{"PartitionKey": key, "Data": key.encode()} for key in keys]
    answer = kinesis.put_records(StreamName=name, Records=records)
    assert answer["FailedRecordCount"] == 0
    for key, receipt in zip(keys, answer["Records"]):
        assert receipt["ShardId"] == shard_of(int.from_bytes(hashlib.md5(key.encode()).digest(), "big"))
    for shard in shards:
        for bound in ("StartingHashKey", "EndingHashKey"):
            hash_key = shard["HashKeyRange"][bound]
            receipt = kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"", ExplicitHashKey=hash_key)
            assert receipt["ShardId"] == shard["ShardId"]


def test_put_records_keeps_the_order_of_each_key(kinesis, new_stream):
    name = new_stream(4)
    for batch in range(4):
        records = [
            {"PartitionKey": f"key-{index % 7}", "Data": f"{batch * 500 + index}".encode()} for index in range(500)
        ]
        assert kinesis.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0
    seen = []
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        last = {}
        for record in read_shard(kinesis, name, shard["ShardId"]):
            number = int(record["Data"])
            assert last.get(record["PartitionKey"], -1) < number
            last[record["PartitionKey"]] = number
            seen.append(number)
    assert sorted(seen) == list(range(2000))


def test_empty_and_binary_data_survive(kinesis, new_stream):
    name = new_stream(1)
    payloads = [b"", bytes(range(256)), b"\xf3\x89\x9a\xc2" + b"not really aggregated", b"x" * (1024 * 1024 - 1)]
    for payload in payloads:
        kinesis.put_record(StreamName=name, PartitionKey="k", Data=payload)
    assert [record["Data"] for record in read_shard(kinesis, name, FIRST)] == payloads


def test_sizes_are_limited(kinesis, unchecked, new_stream):
    name = new_stream(1)
    with pytest.raises(ClientError) as error:
        kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"x" * 1024 * 1024)
    assert code(error) == "InvalidArgumentException"
    with pytest.raises(ClientError) as error:
        kinesis.put_records(
            StreamName=name, Records=[{"PartitionKey": "k", "Data": b"x" * (1024 * 1024 - 1)} for _ in range(11)]
        )
    assert code(error) == "InvalidArgumentException"
    with pytest.raises(ClientError) as error:
        unchecked.put_records(StreamName=name, Records=[{"PartitionKey": "k", "Data": b""} for _ in range(501)])
    assert code(error) == "ValidationException"
    with pytest.raises(ClientError) as error:
        unchecked.put_record(StreamName=name, PartitionKey="k" * 257, Data=b"")
    assert code(error) == "ValidationException"
    large = new_stream(1, MaxRecordSizeInKiB=2048)
    kinesis.put_record(StreamName=large, PartitionKey="k", Data=b"x" * 1024 * 1024)
    assert len(read_shard(kinesis, large, FIRST)) == 1


def test_hash_keys_out_of_range_are_refused(kinesis, new_stream):
    name = new_stream(1)
    with pytest.raises(kinesis.exceptions.InvalidArgumentException) as error:
        kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"", ExplicitHashKey=str(HASH_KEY_MAX + 1))
    assert "must be in the range: [0, 2^128-1]" in message(error)


# Iterators


@pytest.fixture
def numbered(kinesis, new_stream):
    """A stream with records 0 to 4, and their sequence numbers and arrival times."""
    name = new_stream(1)
    for index in range(5):
        kinesis.put_record(StreamName=name, PartitionKey="k", Data=f"{index}".encode())
        time.sleep(0.02)
    records = read(kinesis, iterator(kinesis, name))["Records"]
    return (
        name,
        [record["SequenceNumber"] for record in records],
        [record["ApproximateArrivalTimestamp"] for record in records],
    )


def test_every_iterator_type(kinesis, numbered):
    name, sequences, arrivals = numbered

    def numbers(kind, **options):
        return [int(payload) for payload in data(read(kinesis, iterator(kinesis, name, kind, **options)))]

    assert numbers("TRIM_HORIZON") == [0, 1, 2, 3, 4]
    assert numbers("LATEST") == []
    assert numbers("AT_SEQUENCE_NUMBER", StartingSequenceNumber=sequences[2]) == [2, 3, 4]
    assert numbers("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=sequences[2]) == [3, 4]
    assert numbers("AT_TIMESTAMP", Timestamp=0) == [0, 1, 2, 3, 4]
    assert numbers("AT_TIMESTAMP", Timestamp=arrivals[3]) == [3, 4]
    start = kinesis.list_shards(StreamName=name)["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"]
    assert numbers("AT_SEQUENCE_NUMBER", StartingSequenceNumber=start) == [0, 1, 2, 3, 4]
    latest = iterator(kinesis, name, "LATEST")
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"5")
    assert data(read(kinesis, latest)) == [b"5"]


def test_pages_tell_how_far_behind_they_are(kinesis, numbered):
    name, _, _ = numbered
    position, seen = iterator(kinesis, name), []
    assert len(position) <= 512
    for index in range(5):
        answer = read(kinesis, position, Limit=1)
        seen += [int(payload) for payload in data(answer)]
        assert (answer["MillisBehindLatest"] == 0) == (index == 4)
        position = answer["NextShardIterator"]
    assert seen == [0, 1, 2, 3, 4]
    answer = read(kinesis, position)
    assert answer["Records"] == [] and answer["MillisBehindLatest"] == 0
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"5")
    assert data(read(kinesis, f'"{answer["NextShardIterator"]}"')) == [b"5"]


def test_iterator_requests_that_make_no_sense(kinesis, numbered, new_stream):
    name, sequences, _ = numbered
    other = new_stream(2)
    time_ahead = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    for call in (
        lambda: iterator(kinesis, name, "AT_SEQUENCE_NUMBER"),
        lambda: iterator(kinesis, name, "LATEST", StartingSequenceNumber=sequences[0]),
        lambda: iterator(kinesis, name, "AT_SEQUENCE_NUMBER", StartingSequenceNumber="5"),
        lambda: iterator(kinesis, name, "AT_TIMESTAMP"),
        lambda: iterator(kinesis, name, "AT_TIMESTAMP", Timestamp=time_ahead),
        lambda: iterator(
            kinesis, other, "AT_SEQUENCE_NUMBER", "shardId-000000000001", StartingSequenceNumber=sequences[0]
        ),
        lambda: read(kinesis, "nonsense"),
        lambda: read(kinesis, iterator(kinesis, name)[:-4] + "AAAA"),
    ):
        with pytest.raises(kinesis.exceptions.InvalidArgumentException):
            call()
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException):
        iterator(kinesis, name, shard="shardId-000000000007")


# Errors and transport


def test_all_violated_constraints_come_in_one_message(unchecked):
    with pytest.raises(ClientError) as error:
        unchecked.create_stream(StreamName="not a name", ShardCount=0)
    assert code(error) == "ValidationException"
    assert message(error) == (
        "2 validation errors detected: Value '0' at 'shardCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1; "
        "Value 'not a name' at 'streamName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
    )
    with pytest.raises(ClientError) as error:
        unchecked.get_records()
    assert message(error) == (
        "1 validation error detected: Value null at 'shardIterator' failed to satisfy constraint: "
        "Member must not be null"
    )


def test_wrong_types_are_serialization_exceptions(unchecked):
    with pytest.raises(ClientError) as error:
        unchecked.describe_stream(StreamName="x", Limit="5")
    assert code(error) == "SerializationException"


def test_dry_run_changes_nothing(kinesis, new_stream):
    name = new_stream(1)
    with pytest.raises(ClientError) as error:
        kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"x", DryRun=True)
    assert code(error) == "DryRunOperationException"
    assert data(read(kinesis, iterator(kinesis, name))) == []


def test_operations_that_are_missing_say_so_by_name(kinesis):
    with pytest.raises(ClientError) as error:
        kinesis.list_queues()
    assert code(error) == "UnsupportedOperationException"
    assert "ListQueues" in message(error)


def test_every_answer_has_a_request_id(kinesis):
    answer = kinesis.list_streams()
    assert answer["ResponseMetadata"]["RequestId"]
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-id-2"]
    assert headers["content-type"] == "application/x-amz-json-1.1"
