"""Replay of vectors: requests to send, and the comparison of replies with the expected ones."""

from __future__ import annotations

import json
from typing import Any

import grpc
import ml_dtypes  # noqa: F401  NumPy learns bfloat16
import numpy as np
from google.protobuf import json_format

from pooling_wire.v1 import pooling_pb2 as pb
from tests.server.support import details_of
from tests.vectors.generate import FOLDER

Record = dict[str, Any]
LIMIT_S = 30


def load(name: str) -> list[Record]:
    """Return the vectors of a file."""
    vectors: list[Record] = json.loads((FOLDER / f"{name}.json").read_text())["vectors"]
    return vectors


def names() -> list[str]:
    """Return the names of all files."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def request_of(vector: Record) -> Any:
    """Return the request message of a unary vector, with its data repeated."""
    message = getattr(pb, f"{vector['method']}Request")()
    json_format.ParseDict(vector["request"], message)
    for field, times in vector.get("repeat", {}).items():
        tensor = getattr(message, field)
        tensor.data = tensor.data * times
    return message


def stream_items(vector: Record) -> list[Any]:
    """Return the messages of a stream."""
    item = getattr(pb, f"{vector['method']}Request")
    return [json_format.ParseDict(record, item()) for record in vector["requests"]]


def assert_reply(message: Any, expected: Record) -> None:
    """Assert that a reply has exactly the expected tensors."""
    fields = {field.json_name: value for field, value in message.ListFields()}
    assert fields.keys() == expected.keys()
    for name, record in expected.items():
        if name == "more":
            assert len(fields[name]) == len(record)
            for layer, tensors in zip(fields[name], record, strict=True):
                assert_reply(layer, tensors)
        else:
            assert_tensor(fields[name], record)


def assert_tensor(tensor: pb.Tensor, record: Record) -> None:
    """Assert that a tensor has the type, the shape and the bytes of its record."""
    assert pb.ElementType.Name(tensor.element_type) == record["elementType"]
    assert list(tensor.shape) == record["shape"]
    expected = bytes.fromhex(record["hex"]) * record.get("times", 1)
    if len(expected) > 1 << 16:  # a difference of large texts takes minutes to print
        assert (tensor.data == expected) is True
    else:
        assert tensor.data.hex() == expected.hex()


def error_of(error: grpc.RpcError) -> Record:
    """Return the code, reason and field of a status."""
    details = details_of(error)
    violation = details["BadRequest"].field_violations[0]
    reason = details["ErrorInfo"].reason
    return {"code": error.code().name, "reason": reason, "field": violation.field}


def assert_stream(replies: list[Any], expected: list[Record]) -> None:
    """Assert that the replies of a stream are the expected ones, in order."""
    assert [reply.id for reply in replies] == [record["id"] for record in expected]
    for reply, record in zip(replies, expected, strict=True):
        if "error" in record:
            code = next(code.name for code in grpc.StatusCode if code.value[0] == reply.error.code)
            actual = {"code": code, "reason": reply.error.reason, "field": reply.error.field}
            assert actual == record["error"]
        else:
            assert_reply(reply.response, record["reply"])


def array_of(tensor: pb.Tensor) -> np.ndarray:
    """Return the elements of a message, decoded by NumPy alone."""
    name = pb.ElementType.Name(tensor.element_type).removeprefix("ELEMENT_TYPE_").lower()
    return np.frombuffer(tensor.data, np.dtype(name)).reshape(tensor.shape)
