"""Consumers and SubscribeToShard of a running server, as boto3 uses them: an event stream over HTTP/1.1."""

import uuid

import pytest
from botocore.exceptions import ClientError, EventStreamError

FIRST = "shardId-000000000000"


def code(error):
    return error.value.response["Error"]["Code"]


@pytest.fixture
def stream_arn(kinesis, new_stream):
    name = new_stream(2)
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]


@pytest.fixture
def consumer_arn(kinesis, stream_arn):
    return register(kinesis, stream_arn)


def register(kinesis, stream_arn, name=None, **options):
    name = name or f"consumer-{uuid.uuid4()}"
    answer = kinesis.register_stream_consumer(StreamARN=stream_arn, ConsumerName=name, **options)
    return answer["Consumer"]["ConsumerARN"]


def put(kinesis, stream_arn, data, shard=0):
    ranges = ["0", str(2**127)]
    return kinesis.put_record(StreamARN=stream_arn, Data=data, PartitionKey="k", ExplicitHashKey=ranges[shard])


def subscribe(kinesis, consumer_arn, shard=FIRST, **position):
    answer = kinesis.subscribe_to_shard(ConsumerARN=consumer_arn, ShardId=shard, StartingPosition=position)
    return answer["EventStream"]


def records(events, count):
    """The next records, at least so many."""
    found = []
    for event in events:
        found += event["SubscribeToShardEvent"]["Records"]
        if len(found) >= count:
            return found
    raise AssertionError("the subscription ended too soon")


def test_a_consumer_is_registered_described_and_deregistered(kinesis, stream_arn):
    answer = kinesis.register_stream_consumer(StreamARN=stream_arn, ConsumerName="c", Tags={"team": "a"})["Consumer"]
    assert answer["ConsumerName"] == "c" and answer["ConsumerStatus"] == "ACTIVE"
    prefix, seconds = answer["ConsumerARN"].rsplit(":", 1)
    assert prefix == f"{stream_arn}/consumer/c"
    assert int(seconds) == int(answer["ConsumerCreationTimestamp"].timestamp())
    by_arn = kinesis.describe_stream_consumer(ConsumerARN=answer["ConsumerARN"])["ConsumerDescription"]
    by_name = kinesis.describe_stream_consumer(StreamARN=stream_arn, ConsumerName="c")["ConsumerDescription"]
    assert by_arn == by_name == {**answer, "StreamARN": stream_arn}
    with pytest.raises(ClientError) as error:
        register(kinesis, stream_arn, "c")
    assert code(error) == "ResourceInUseException"
    kinesis.deregister_stream_consumer(ConsumerARN=answer["ConsumerARN"])
    for call in (kinesis.describe_stream_consumer, kinesis.deregister_stream_consumer):
        with pytest.raises(ClientError) as error:
            call(StreamARN=stream_arn, ConsumerName="c")
        assert code(error) == "ResourceNotFoundException"


def test_consumers_are_listed_page_by_page_up_to_the_limit(kinesis, stream_arn):
    arns = [register(kinesis, stream_arn, f"c{index:02}") for index in range(20)]
    with pytest.raises(ClientError) as error:
        register(kinesis, stream_arn, "one-more")
    assert code(error) == "LimitExceededException"
    pages = list(kinesis.get_paginator("list_stream_consumers").paginate(StreamARN=stream_arn, MaxResults=7))
    assert len(pages) == 3
    assert [consumer["ConsumerARN"] for page in pages for consumer in page["Consumers"]] == arns
    name = stream_arn.rsplit("/", 1)[1]
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["ConsumerCount"] == 20


def test_records_are_pushed_from_where_the_subscription_starts(kinesis, stream_arn, consumer_arn):
    sequences = [put(kinesis, stream_arn, f"{index}".encode())["SequenceNumber"] for index in range(3)]
    put(kinesis, stream_arn, b"other shard", shard=1)
    events = subscribe(kinesis, consumer_arn, Type="TRIM_HORIZON")
    found = records(events, 3)
    assert [record["Data"] for record in found] == [b"0", b"1", b"2"]
    assert [record["SequenceNumber"] for record in found] == sequences
    assert all(record["PartitionKey"] == "k" for record in found)
    put(kinesis, stream_arn, b"3")
    assert [record["Data"] for record in records(events, 1)] == [b"3"]
    events.close()
    for position, expected in [
        ({"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": sequences[1]}, [b"1", b"2", b"3"]),
        ({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": sequences[1]}, [b"2", b"3"]),
        ({"Type": "AT_TIMESTAMP", "Timestamp": found[0]["ApproximateArrivalTimestamp"]}, [b"0", b"1", b"2", b"3"]),
    ]:
        other = register(kinesis, stream_arn)
        events = subscribe(kinesis, other, **position)
        assert [record["Data"] for record in records(events, len(expected))] == expected
        events.close()


def test_the_first_event_of_a_subscription_at_the_end_is_empty(kinesis, stream_arn, consumer_arn):
    put(kinesis, stream_arn, b"before")
    events = subscribe(kinesis, consumer_arn, Type="LATEST")
    event = next(iter(events))["SubscribeToShardEvent"]
    assert event["Records"] == [] and event["MillisBehindLatest"] == 0
    assert int(event["ContinuationSequenceNumber"]) > 0
    put(kinesis, stream_arn, b"after")
    assert [record["Data"] for record in records(events, 1)] == [b"after"]
    events.close()


def test_a_second_subscription_at_once_is_refused(kinesis, stream_arn, consumer_arn):
    events = subscribe(kinesis, consumer_arn, Type="LATEST")
    with pytest.raises(ClientError) as error:
        subscribe(kinesis, consumer_arn, Type="LATEST")
    assert code(error) == "ResourceInUseException"
    other_shard = subscribe(kinesis, consumer_arn, shard="shardId-000000000001", Type="LATEST")
    other_shard.close()
    events.close()


def test_a_subscription_ends_with_its_consumer(kinesis, stream_arn, consumer_arn):
    events = subscribe(kinesis, consumer_arn, Type="LATEST")
    pushed = iter(events)
    next(pushed)
    kinesis.deregister_stream_consumer(ConsumerARN=consumer_arn)
    with pytest.raises(EventStreamError) as error:
        list(pushed)
    assert code(error) == "ResourceNotFoundException"


def test_what_cannot_be_subscribed_to_is_refused(kinesis, stream_arn, consumer_arn):
    for arn, shard, position, expected in [
        (consumer_arn + "1", FIRST, {"Type": "LATEST"}, "ResourceNotFoundException"),
        (consumer_arn, "shardId-000000000009", {"Type": "LATEST"}, "ResourceNotFoundException"),
        (consumer_arn, FIRST, {"Type": "AT_SEQUENCE_NUMBER"}, "InvalidArgumentException"),
        (consumer_arn, FIRST, {"Type": "NONSENSE"}, "ValidationException"),
        (stream_arn, FIRST, {"Type": "LATEST"}, "ValidationException"),
    ]:
        with pytest.raises(ClientError) as error:
            subscribe(kinesis, arn, shard=shard, **position)
        assert code(error) == expected


def test_a_subscription_ends_with_the_children_of_a_shard_that_is_split(kinesis, stream_arn, consumer_arn):
    events = subscribe(kinesis, consumer_arn, Type="TRIM_HORIZON")
    put(kinesis, stream_arn, b"before")
    assert [record["Data"] for record in records(iter(events), 1)] == [b"before"]
    name = stream_arn.rsplit("/", 1)[1]
    kinesis.split_shard(StreamName=name, ShardToSplit=FIRST, NewStartingHashKey="1000")
    last = [event["SubscribeToShardEvent"] for event in events][-1]
    assert not last["Records"] and "ContinuationSequenceNumber" not in last
    children = last["ChildShards"]
    assert [child["HashKeyRange"]["StartingHashKey"] for child in children] == ["0", "1000"]
    assert all(child["ParentShards"] == [FIRST] for child in children)
    # What goes to a child now is read from the child.
    put(kinesis, stream_arn, b"after")
    events = subscribe(kinesis, consumer_arn, children[0]["ShardId"], Type="TRIM_HORIZON")
    assert [record["Data"] for record in records(events, 1)] == [b"after"]


def test_a_stream_with_consumers_is_deleted_only_when_that_is_said(kinesis, stream_arn, consumer_arn):
    name = stream_arn.rsplit("/", 1)[1]
    with pytest.raises(ClientError) as error:
        kinesis.delete_stream(StreamName=name)
    assert code(error) == "ResourceInUseException"
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    with pytest.raises(ClientError) as error:
        kinesis.describe_stream_consumer(ConsumerARN=consumer_arn)
    assert code(error) == "ResourceNotFoundException"
    # A new stream of that name has none of them.
    kinesis.create_stream(StreamName=name, ShardCount=1)
    assert kinesis.list_stream_consumers(StreamARN=stream_arn)["Consumers"] == []
    kinesis.delete_stream(StreamName=name)
