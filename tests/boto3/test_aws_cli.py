"""The `aws` command-line interface: its arguments, paginators, waiters, exit codes, and how it is pointed here.

What the operations do is tested elsewhere; the CLI builds on a botocore of its own.
"""

import base64
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

# What version 1 of the CLI ends with when a request fails.
REFUSED = 255


@pytest.fixture(scope="session")
def aws(endpoint, tmp_path_factory):
    """Runs `aws kinesis`; answers its exit code, what it printed, and what it complained of."""
    program = Path(sys.executable).with_name("aws")
    nothing = tmp_path_factory.mktemp("aws")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_ENDPOINT_URL_KINESIS": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        # Not the settings of whoever runs the tests.
        "AWS_CONFIG_FILE": str(nothing / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(nothing / "credentials"),
        "NO_PROXY": "127.0.0.1,localhost",
    }

    def run(*arguments, **more):
        command = [program, *more.get("before", ()), "kinesis", *arguments]
        done = subprocess.run(command, env=environment | more.get("env", {}), capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_stream_from_its_creation_to_its_end(aws, tmp_path):
    stream = f"cli-{uuid.uuid4()}"
    of_stream = ("--stream-name", stream)

    def ask(*arguments):
        code, said, complained = aws(*arguments)
        assert (code, complained) == (0, ""), (arguments, said, complained)
        return json.loads(said) if said else None

    assert ask("create-stream", *of_stream, "--shard-count", "2", "--tags", "team=red,stage=test") is None
    ask("wait", "stream-exists", *of_stream)

    # Data on the command line, in a file, and in records written in short.
    bytes_file = tmp_path / "data"
    bytes_file.write_bytes(bytes(range(256)))
    first = ask("put-record", *of_stream, "--partition-key", "a", "--explicit-hash-key", "0", "--data", "hello")
    ask("put-record", *of_stream, "--partition-key", "a", "--explicit-hash-key", "0", "--data", f"fileb://{bytes_file}")
    put = ask("put-records", *of_stream, "--records", "Data=x,PartitionKey=a,ExplicitHashKey=0", "Data=y,PartitionKey=b")
    assert put["FailedRecordCount"] == 0 and len(put["Records"]) == 2

    # Iterators in quotation marks, as --output json prints them, work as those of --output text.
    at = ("--shard-id", first["ShardId"], "--shard-iterator-type")
    iterator = ask("get-shard-iterator", *of_stream, *at, "TRIM_HORIZON", "--query", "ShardIterator")
    records = ask("get-records", "--shard-iterator", f'"{iterator}"')["Records"]
    assert [base64.b64decode(record["Data"]) for record in records[:3]] == [b"hello", bytes(range(256)), b"x"]
    assert records[0]["SequenceNumber"] == first["SequenceNumber"]
    arrived = str(records[0]["ApproximateArrivalTimestamp"])
    since = ask("get-shard-iterator", *of_stream, *at, "AT_TIMESTAMP", "--timestamp", arrived)
    assert ask("get-records", "--shard-iterator", since["ShardIterator"])["Records"] == records

    # Pages are put together.
    listed = ask("describe-stream", *of_stream, "--page-size", "1")["StreamDescription"]
    assert [shard["ShardId"] for shard in listed["Shards"]] == ["shardId-000000000000", "shardId-000000000001"]
    assert stream in ask("list-streams", "--page-size", "1")["StreamNames"]
    arn = listed["StreamARN"]
    assert ask("list-tags-for-resource", "--resource-arn", arn)["Tags"] == [
        {"Key": "stage", "Value": "test"},
        {"Key": "team", "Value": "red"},
    ]

    ask("delete-stream", "--stream-arn", arn)
    ask("wait", "stream-not-exists", *of_stream)


def test_errors_have_the_exit_codes_of_the_cli(aws):
    code, said, complained = aws("describe-stream", "--stream-name", "nobody-knows-it")
    assert (code, said) == (REFUSED, "")
    assert "(ResourceNotFoundException) when calling the DescribeStream operation: Stream nobody-knows-it" in complained

    code, said, complained = aws("create-stream", "--stream-name", "not a name", "--shard-count", "1")
    assert (code, said) == (REFUSED, "")
    assert "(ValidationException)" in complained and "Value 'not a name' at 'streamName'" in complained

    code, _, complained = aws("get-records", "--shard-iterator", "AAAA")
    assert code == REFUSED and "(InvalidArgumentException)" in complained


def test_the_option_goes_before_the_environment(aws, endpoint):
    # Port 9 is discard: nobody is there.
    nowhere = {"AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:9"}
    code, _, complained = aws("list-streams", env=nowhere)
    assert code == REFUSED and "http://127.0.0.1:9/" in complained
    code, said, complained = aws("list-streams", env=nowhere, before=("--endpoint-url", endpoint))
    assert (code, complained) == (0, ""), complained
    assert "StreamNames" in json.loads(said)
