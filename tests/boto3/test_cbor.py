"""The Kinesis API in CBOR 1.1, as the Java SDK, KPL and KCL speak it.

boto3 speaks JSON to Kinesis, but botocore has a CBOR reader and writer for other services: with the model of Kinesis they
are a client that is not our own. Only their timestamps differ: this protocol counts milliseconds, as whole numbers.
"""

import datetime
import urllib.error
import urllib.request

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.parsers import RpcV2CBORParser
from botocore.serialize import RpcV2CBORSerializer

CONTENT_TYPE = "application/x-amz-cbor-1.1"
FIRST = "shardId-000000000000"
EPOCH = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)


class Writer(RpcV2CBORSerializer):
    def _serialize_type_timestamp(self, serialized, value, shape, key):
        serialized.extend(self._get_initial_byte(self.TAG_MAJOR_TYPE, 1))
        milliseconds = (value - EPOCH) // datetime.timedelta(milliseconds=1)
        self._serialize_type_integer(serialized, milliseconds, shape, key)


class Reader(RpcV2CBORParser):
    def _parse_tag(self, stream, additional_info):
        assert additional_info == 1
        value = self.parse_data_item(stream)
        assert isinstance(value, int)
        return EPOCH + datetime.timedelta(milliseconds=value)

    def read(self, body):
        stream = self.get_peekable_stream_from_bytes(body)
        value = self.parse_data_item(stream)
        assert stream.read() == b""
        return value


@pytest.fixture
def cbor(endpoint, kinesis):
    """Calls an operation; answers status and body."""

    def call(operation, **parameters):
        body = bytearray()
        shape = kinesis.meta.service_model.operation_model(operation).input_shape
        Writer()._serialize_data_item(body, parameters, shape)
        headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": f"Kinesis_20131202.{operation}"}
        request = urllib.request.Request(endpoint, data=bytes(body), headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer = opener.open(request)
        except urllib.error.HTTPError as error:
            answer = error
        if answer.headers["Content-Type"] == "application/vnd.amazon.eventstream":
            return answer.status, answer
        assert answer.headers["Content-Type"] == CONTENT_TYPE
        body = answer.read()
        # Maps of indefinite length, as the service writes them.
        assert body[:1] in (b"", b"\xbf")
        return answer.status, Reader().read(body) if body else None

    return call


@pytest.fixture
def ok(cbor):
    def call(operation, **parameters):
        status, answer = cbor(operation, **parameters)
        assert status == 200, answer
        return answer

    return call


def test_records_and_times_are_the_same_in_both_protocols(kinesis, new_stream, ok):
    name = new_stream()
    data = [bytes(range(256)), b"", b"x" * 100_000]
    answer = ok("PutRecords", StreamName=name, Records=[{"Data": one, "PartitionKey": "k"} for one in data])
    assert answer["FailedRecordCount"] == 0
    start = {"StreamName": name, "ShardId": FIRST, "ShardIteratorType": "TRIM_HORIZON"}
    by_cbor = ok("GetRecords", ShardIterator=ok("GetShardIterator", **start)["ShardIterator"])
    by_json = kinesis.get_records(ShardIterator=kinesis.get_shard_iterator(**start)["ShardIterator"])
    assert [record["Data"] for record in by_cbor["Records"]] == data
    assert by_cbor["Records"] == by_json["Records"]
    # A start in milliseconds: the first record, and no record before.
    first = by_cbor["Records"][0]["ApproximateArrivalTimestamp"]
    start = {"StreamName": name, "ShardId": FIRST, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": first}
    answer = ok("GetRecords", ShardIterator=ok("GetShardIterator", **start)["ShardIterator"])
    assert [record["Data"] for record in answer["Records"]] == data
    by_cbor = ok("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]
    by_json = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert by_cbor == by_json


def test_errors_have_their_name_and_message(cbor):
    status, answer = cbor("DescribeStream", StreamName="no-such-stream")
    assert status == 400
    assert answer["__type"] == "ResourceNotFoundException"
    assert "no-such-stream" in answer["message"]
    status, answer = cbor("DescribeStream", StreamName="not a name")
    assert (status, answer["__type"]) == (400, "ValidationException")
    assert "'streamName'" in answer["message"]


def test_events_of_a_subscription_are_in_cbor(kinesis, new_stream, ok):
    name = new_stream()
    ok("PutRecord", StreamName=name, Data=b"\x00\xff", PartitionKey="k")
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    consumer = ok("RegisterStreamConsumer", StreamARN=arn, ConsumerName="c")["Consumer"]["ConsumerARN"]
    answer = ok("SubscribeToShard", ConsumerARN=consumer, ShardId=FIRST, StartingPosition={"Type": "TRIM_HORIZON"})
    buffer, events = EventStreamBuffer(), []
    while len(events) < 2:
        buffer.add_data(answer.read1(65_536))
        events += list(buffer)
    answer.close()
    assert events[0].headers[":event-type"] == "initial-response"
    assert Reader().read(events[0].payload) == {}
    assert events[1].headers[":event-type"] == "SubscribeToShardEvent"
    event = Reader().read(events[1].payload)
    assert [record["Data"] for record in event["Records"]] == [b"\x00\xff"]
    assert event["ContinuationSequenceNumber"] == event["Records"][0]["SequenceNumber"]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"\xa0\x00", b"\xbf", b"\xa1\x01\x02", b"\x9b" + b"\xff" * 8, b"\xa1\x6aStreamName\x7b" + b"\xff" * 8, b"\x81" * 100_000],
)
def test_what_is_no_cbor_is_refused(endpoint, body):
    headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": "Kinesis_20131202.DescribeStream"}
    request = urllib.request.Request(endpoint, data=body, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    assert error.value.code == 400
    assert Reader().read(error.value.read())["__type"] == "SerializationException"
