"""Producer dedup: what docs/KINESIS.md tells users to do, with answers that are lost on the way."""

import uuid

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.httpsession import URLLib3Session


class Producer:
    """Numbers the requests of one process to one stream. One thread uses it, one request after the other."""

    def __init__(self, kinesis, stream, producer, epoch):
        self.kinesis, self.stream = kinesis, stream
        self.producer, self.epoch, self.sequence = producer, epoch, 0
        # Once a call: the SDK's own retries send the same headers again.
        for operation in ("PutRecord", "PutRecords"):
            kinesis.meta.events.register(f"before-call.kinesis.{operation}", self.number)

    def number(self, params, **_):
        params["headers"]["x-tidemill-producer-id"] = self.producer
        params["headers"]["x-tidemill-producer-epoch"] = str(self.epoch)
        params["headers"]["x-tidemill-producer-sequence"] = str(self.sequence)

    def put(self, records):
        """Stores all records, each once."""
        outcomes = []
        while records:
            answer = self.kinesis.put_records(StreamName=self.stream, Records=records)
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            outcomes.append(headers["x-tidemill-producer-outcome"])
            if outcomes[-1] != "nothing":
                self.sequence += 1
            # Those that were refused are a new request.
            records = [record for record, result in zip(records, answer["Records"]) if "ErrorCode" in result]
        return outcomes


class LostAnswers:
    """Sends requests and breaks the connection before the answer arrives, for as many of them as it is told."""

    def __init__(self, kinesis, operation):
        self.remaining = self.lost = 0
        kinesis.meta.events.register(f"before-send.kinesis.{operation}", self.send)

    def send(self, request, **_):
        if self.remaining == 0:
            return None
        self.remaining -= 1
        self.lost += 1
        assert URLLib3Session().send(request).status_code == 200
        raise ConnectionClosedError(endpoint_url=request.url)


@pytest.fixture
def client(endpoint):
    """A client of its own, for its events are changed; it repeats by itself."""
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"mode": "standard", "max_attempts": 4}),
    )


def records(prefix, count):
    return [{"Data": f"{prefix}-{index}".encode(), "PartitionKey": f"key-{index}"} for index in range(count)]


def stored(kinesis, stream):
    found = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        position = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while True:
            answer = kinesis.get_records(ShardIterator=position)
            found += [record["Data"].decode() for record in answer["Records"]]
            if not answer["Records"] and answer["MillisBehindLatest"] == 0:
                break
            position = answer["NextShardIterator"]
    return sorted(found)


def code(error):
    return error.value.response["Error"]["Code"]


def test_requests_whose_answers_are_lost_are_repeated_by_the_sdk_and_stored_once(client, new_stream):
    stream = new_stream(3)
    answers = LostAnswers(client, "PutRecords")
    producer = Producer(client, stream, f"boto3-{uuid.uuid4()}", epoch=1)
    expected = []
    for request in range(12):
        batch = records(f"request-{request}", 40)
        expected += [record["Data"].decode() for record in batch]
        answers.remaining = request % 4
        assert producer.put(batch) == ["repeated" if request % 4 else "stored"]
    assert answers.lost == 18
    assert stored(client, stream) == sorted(expected)


def test_without_numbers_the_same_answers_lost_store_twice(client, new_stream):
    """That the test above could fail."""
    stream = new_stream()
    answers = LostAnswers(client, "PutRecords")
    answers.remaining = 1
    client.put_records(StreamName=stream, Records=records("plain", 3))
    assert len(stored(client, stream)) == 6


def test_a_repeated_put_record_has_the_same_sequence_number(client, new_stream):
    stream = new_stream()
    producer = Producer(client, stream, "single", epoch=0)
    put = {"StreamName": stream, "Data": b"once", "PartitionKey": "k"}
    first = client.put_record(**put)
    again = client.put_record(**put)
    assert (again["ShardId"], again["SequenceNumber"]) == (first["ShardId"], first["SequenceNumber"])
    assert again["ResponseMetadata"]["HTTPHeaders"]["x-tidemill-producer-outcome"] == "repeated"
    producer.sequence += 1
    client.put_record(**put)
    assert stored(client, stream) == ["once", "once"]


def test_what_cannot_be_the_next_request_is_refused_by_name(client, new_stream):
    stream = new_stream()
    producer = Producer(client, stream, "refused", epoch=5)

    def refused(epoch, sequence, data=b"x"):
        producer.epoch, producer.sequence = epoch, sequence
        with pytest.raises(ClientError) as error:
            client.put_record(StreamName=stream, Data=data, PartitionKey="k")
        return code(error)

    assert refused(5, 1) == "UnknownProducerException"
    producer.epoch, producer.sequence = 5, 0
    client.put_record(StreamName=stream, Data=b"first", PartitionKey="k")
    assert refused(5, 2) == "OutOfSequenceException"
    assert refused(5, 0, b"other") == "SequenceReusedException"
    assert refused(4, 1) == "ProducerFencedException"
    assert refused(-1, 0) == "ValidationException"
    assert refused(5, "") == "ValidationException"
    producer.epoch, producer.sequence = 5, 1
    for _ in range(6):
        client.put_record(StreamName=stream, Data=b"more", PartitionKey="k")
        producer.sequence += 1
    assert refused(5, 0, b"first") == "SequenceForgottenException"
    assert stored(client, stream) == ["first"] + ["more"] * 6
