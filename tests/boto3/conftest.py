"""Fixtures for tests of a running server, named by TIDEMILL_ENDPOINT."""

import os
import uuid

import boto3
import pytest
from botocore.config import Config


@pytest.fixture(scope="session")
def endpoint():
    """The server's URL. There is no default: these tests never skip."""
    return os.environ["TIDEMILL_ENDPOINT"]


@pytest.fixture(scope="session")
def kinesis(endpoint):
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}),
    )


@pytest.fixture
def new_stream(kinesis):
    """Creates streams with names of their own, and deletes them afterwards."""
    created = []

    def create(shards=1, **options):
        name = f"test-{uuid.uuid4()}"
        if shards is not None:
            options["ShardCount"] = shards
        kinesis.create_stream(StreamName=name, **options)
        kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        created.append(name)
        return name

    yield create
    for name in created:
        try:
            kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
        except kinesis.exceptions.ResourceNotFoundException:
            pass
