"""Requests that break the constraints of the service's own model, which botocore ships: each must be refused in its words."""

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

MODEL = Session().get_service_model("kinesis")
# Later releases; they must say so.
MISSING = {name for name in MODEL.operation_names if "Queue" in name or "Channel" in name} | {
    "DeregisterStreamConsumer",
    "DescribeStreamConsumer",
    "ListStreamConsumers",
    "RegisterStreamConsumer",
    "SubscribeToShard",
}
OPERATIONS = sorted(set(MODEL.operation_names) - MISSING)
# botocore makes the endpoint of these, and refuses another type itself, validation or not.
OF_ENDPOINT = {"StreamARN", "ResourceARN", "ConsumerARN", "StreamId"}


@pytest.fixture(scope="module")
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


def error(client, operation, **request):
    method = getattr(client, python_name(client, operation))
    with pytest.raises(ClientError) as error:
        method(**request)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def python_name(client, operation):
    return next(name for name, api in client.meta.method_to_api_mapping.items() if api == operation)


def lower_first(name):
    return name[0].lower() + name[1:]


def sound(shape, name=""):
    """A value that keeps the constraints of its shape."""
    if shape.type_name == "structure":
        return {key: sound(shape.members[key], key) for key in shape.required_members}
    if shape.type_name == "list":
        return [sound(shape.member)]
    if shape.type_name == "map":
        return {"k": "v"}
    if shape.type_name in ("integer", "long"):
        return max(shape.metadata.get("min", 1), 1)
    if shape.type_name == "boolean":
        return False
    if shape.type_name == "timestamp":
        return 0
    if shape.type_name == "blob":
        return b"x"
    if getattr(shape, "enum", None):
        return shape.enum[0]
    if name == "ResourceARN" or name == "StreamARN":
        return "arn:aws:kinesis:us-east-1:000000000000:stream/missing"
    if name == "StreamId":
        return "abcdefghij0123456789-abc"
    return "1"


def broken(shape):
    """Values that break one constraint each, with what the service says of it."""
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.type_name in ("integer", "long"):
        if low is not None:
            yield low - 1, f"Member must have value greater than or equal to {low}"
        if high is not None:
            yield high + 1, f"Member must have value less than or equal to {high}"
    if shape.type_name == "string":
        if getattr(shape, "enum", None):
            yield "nonsense", "Member must satisfy enum value set: ["
            return
        if low:
            yield "", f"Member must have length greater than or equal to {low}"
        if high is not None and high <= 4096:
            yield "a" * (high + 1), f"Member must have length less than or equal to {high}"
        if shape.metadata.get("pattern"):
            yield "not/a value", "Member must satisfy regular expression pattern: "
    if shape.type_name == "list":
        if low:
            yield [], f"Member must have length greater than or equal to {low}"
        if high is not None and high <= 1000:
            yield [sound(shape.member)] * (high + 1), f"Member must have length less than or equal to {high}"
    if shape.type_name == "map":
        if low:
            yield {}, f"Member must have length greater than or equal to {low}"
        if high is not None:
            yield {f"k{n}": "" for n in range(high + 1)}, f"Member must have length less than or equal to {high}"
        yield {"k" * 129: ""}, "Map keys must satisfy constraint: [Member must have length less than or equal to 128"
        yield {"k": "v" * 257}, "Map value must satisfy constraint: [Member must have length less than or equal to 256"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_members_that_are_required(unchecked, operation):
    shape = MODEL.operation_model(operation).input_shape
    required = shape.required_members
    if not required:
        return
    name, message = error(unchecked, operation)
    assert name == "ValidationException"
    plural = "s" if len(required) > 1 else ""
    assert message.startswith(f"{len(required)} validation error{plural} detected: ")
    for member in required:
        text = f"Value null at '{lower_first(member)}' failed to satisfy constraint: Member must not be null"
        assert text in message


@pytest.mark.parametrize("operation", OPERATIONS)
def test_members_that_break_a_constraint(unchecked, operation):
    shape = MODEL.operation_model(operation).input_shape
    for member, of in shape.members.items():
        request = sound(shape)
        if operation == "PutRecords":
            request["Records"] = [{"Data": b"", "PartitionKey": "k"}]
        for value, constraint in broken(of):
            name, message = error(unchecked, operation, **{**request, member: value})
            assert name == "ValidationException", (member, value, name, message)
            assert f"at '{lower_first(member)}' failed to satisfy constraint: " in message, (member, message)
            assert constraint in message, (member, message)
        if of.type_name == "structure":
            for inner, inner_shape in of.members.items():
                for value, constraint in broken(inner_shape):
                    request_with = {**request, member: {**sound(of), inner: value}}
                    name, message = error(unchecked, operation, **request_with)
                    assert name == "ValidationException", (member, inner, value, name, message)
                    assert f"at '{lower_first(member)}.{lower_first(inner)}' failed" in message
                    assert constraint in message, (inner, message)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_members_of_another_type(unchecked, operation):
    shape = MODEL.operation_model(operation).input_shape
    for member, of in shape.members.items():
        if of.type_name == "string" and member not in OF_ENDPOINT:
            name, _ = error(unchecked, operation, **{**sound(shape), member: 5})
            assert name == "SerializationException", member


@pytest.mark.parametrize("operation", sorted(MISSING))
def test_operations_of_later_releases_say_so(unchecked, operation):
    if operation == "SubscribeToShard":
        name, message = error(unchecked, operation, ConsumerARN="x", ShardId="x", StartingPosition={"Type": "LATEST"})
    else:
        name, message = error(unchecked, operation)
    assert name == "UnsupportedOperationException"
    assert operation in message
