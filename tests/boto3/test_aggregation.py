"""The format of the Kinesis Producer Library, with the aggregator that Amazon gives away for it (aws-kinesis-agg).

What that puts together, a job takes apart; what a job puts together, that takes apart.
"""

import base64
import hashlib
import json
import time
import urllib.request
import uuid

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import deaggregate_records

# How long a job may take until it has written what it was given.
PATIENCE_S = 120
MAGIC = b"\xf3\x89\x9a\xc2"


@pytest.fixture
def start_job(endpoint):
    """Starts jobs, and deletes them afterwards."""
    started = []

    def request(method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(endpoint + path, data, headers, method=method)
        # Not through a proxy of the environment.
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE_S).close()

    def start(sql):
        name = f"job-{uuid.uuid4()}"
        request("POST", "/v1/jobs", {"name": name, "sql": sql, "checkpoint_interval_ms": 200})
        started.append(name)

    yield start
    for name in started:
        request("DELETE", f"/v1/jobs/{name}?force=true")


def records_of(kinesis, stream, enough):
    """Reads a stream from its beginning until what it holds is enough, or nothing more can be hoped for."""
    end = time.monotonic() + PATIENCE_S
    while True:
        records = []
        for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
            iterator = kinesis.get_shard_iterator(
                StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while True:
                answer = kinesis.get_records(ShardIterator=iterator)
                records += answer["Records"]
                iterator = answer["NextShardIterator"]
                if answer["MillisBehindLatest"] == 0:
                    break
        if enough(records) or time.monotonic() > end:
            return records
        time.sleep(0.1)


def hash_key(partition_key):
    return int(hashlib.md5(partition_key.encode()).hexdigest(), 16)


def test_a_job_takes_apart_what_aws_kinesis_agg_put_together(kinesis, new_stream, start_job):
    source, sink = new_stream(2), new_stream()
    expected = []
    for shard in kinesis.list_shards(StreamName=source)["Shards"]:
        first, last = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        # As the library does: rows of one shard in a record, which goes there whatever its own key is.
        aggregator = RecordAggregator()
        rows = []
        for index in range(300):
            key = f"key-{index % 7}"
            if first <= hash_key(key) <= last:
                # Half of them with a hash key of their own, which is the middle of the shard.
                explicit = str((first + last) // 2) if index % 2 else None
                assert aggregator.add_user_record(key, json.dumps({"id": index}), explicit) is None
                rows.append({"id": index, "k": key, "sub": len(rows)})
        assert len(rows) > 2
        _, _, data = aggregator.clear_and_get().get_contents()
        assert data.startswith(MAGIC)
        put = kinesis.put_record(StreamName=source, PartitionKey="any", ExplicitHashKey=str(first), Data=data)
        expected += [row | {"shard": shard["ShardId"], "seq": put["SequenceNumber"]} for row in rows]
    # One that was not put together, between the others.
    put = kinesis.put_record(StreamName=source, PartitionKey="alone", Data=json.dumps({"id": 1000}).encode())
    expected.append({"id": 1000, "k": "alone", "sub": 0, "shard": put["ShardId"], "seq": put["SequenceNumber"]})

    start_job(
        f"""
        CREATE TABLE a (id BIGINT, k STRING METADATA FROM 'partition-key' VIRTUAL,
            sub BIGINT METADATA FROM 'sub-sequence-number' VIRTUAL, shard STRING METADATA FROM 'shard-id' VIRTUAL,
            seq STRING METADATA FROM 'sequence-number' VIRTUAL)
        WITH ('connector' = 'kinesis', 'stream' = '{source}', 'format' = 'json', 'source.init.position' = 'TRIM_HORIZON');
        CREATE TABLE b (id BIGINT, k STRING, sub BIGINT, shard STRING, seq STRING)
        WITH ('connector' = 'kinesis', 'stream' = '{sink}', 'format' = 'json');
        INSERT INTO b SELECT id, k, sub, shard, seq FROM a;
        """
    )
    found = records_of(kinesis, sink, lambda records: len(records) >= len(expected))
    found = [json.loads(record["Data"]) for record in found]
    assert sorted(found, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])


def test_aws_kinesis_agg_takes_apart_what_a_job_put_together(kinesis, new_stream, start_job):
    source, sink = new_stream(), new_stream(2)
    rows = [{"id": index, "k": f"key-{index % 5}"} for index in range(500)]
    puts = [{"PartitionKey": row["k"], "Data": json.dumps(row).encode()} for row in rows]
    assert kinesis.put_records(StreamName=source, Records=puts)["FailedRecordCount"] == 0
    start_job(
        f"""
        CREATE TABLE a (id BIGINT, k STRING)
        WITH ('connector' = 'kinesis', 'stream' = '{source}', 'format' = 'json', 'source.init.position' = 'TRIM_HORIZON');
        CREATE TABLE b (id BIGINT, k STRING) PARTITIONED BY (k)
        WITH ('connector' = 'kinesis', 'stream' = '{sink}', 'format' = 'json', 'sink.aggregation.enabled' = 'true');
        INSERT INTO b SELECT id, k FROM a;
        """
    )

    def taken_apart(records):
        # As a Lambda function gets them.
        return [
            user["kinesis"]
            for record in records
            for user in deaggregate_records(
                {
                    "kinesis": {
                        "kinesisSchemaVersion": "1.0",
                        "partitionKey": record["PartitionKey"],
                        "sequenceNumber": record["SequenceNumber"],
                        "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
                        "data": base64.b64encode(record["Data"]),
                    }
                }
            )
        ]

    records = records_of(kinesis, sink, lambda records: len(taken_apart(records)) >= len(rows))
    assert any(record["Data"].startswith(MAGIC) for record in records) and len(records) < len(rows)
    found = [(user["partitionKey"], json.loads(base64.b64decode(user["data"]))) for user in taken_apart(records)]
    assert all(key == row["k"] for key, row in found)
    # Each once, and those of a key in their order.
    for key in {row["k"] for row in rows}:
        assert [row for _, row in found if row["k"] == key] == [row for row in rows if row["k"] == key]
