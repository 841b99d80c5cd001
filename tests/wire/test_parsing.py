"""The copy-free parser agrees with the generated classes on every sequence of bytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import ForwardCall, InvalidTensorError, PoolSpec
from pooling_wire import FORWARD, METHODS
from pooling_wire.payloads import parsing
from pooling_wire.payloads.parsing import parse
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support import cases
from tests.wire.messages import TYPES, assert_parsed_as_generated, damaged, fields_of, varint
from tests.wire.support import MESSAGES, SAMPLES, arrays_in


@pytest.fixture(autouse=True, scope="module")
def _no_message_is_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "WHOLE_BELOW_BYTES", 0)
        yield


every_type = pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.DESCRIPTOR.name)


@every_type
@given(st.data())
@cases.many_examples
def test_random_fields_in_any_order(type_: Any, data: Any) -> None:
    drawn = data.draw(damaged(fields_of(type_.DESCRIPTOR)))
    assert_parsed_as_generated(type_, drawn)


REAL = {name: message.data for name, message in MESSAGES.items()} | {
    f"{method.name} item, negative id": method.encode_item(-7, call)
    for method in METHODS
    for call in SAMPLES[method.name].calls.values()
}


@pytest.mark.parametrize("name", REAL)
def test_real_messages_cut_and_changed_at_every_position(name: str) -> None:
    data = REAL[name]
    for type_ in TYPES:
        for end in range(len(data) + 1):
            assert_parsed_as_generated(type_, data[:end])
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            for type_ in TYPES[:6]:
                assert_parsed_as_generated(type_, bytes(changed))


@pytest.mark.parametrize("name", MESSAGES)
def test_real_messages_are_not_copied(name: str) -> None:
    """The arrays are views of the message: it is not left to the generated class."""
    data = MESSAGES[name].data
    buffer = np.frombuffer(data, np.uint8)
    arrays = list(arrays_in(MESSAGES[name].decode(data)))
    assert arrays
    for array in arrays:
        assert np.shares_memory(array, buffer)
        assert not array.flags.writeable


@pytest.mark.parametrize("as_buffer", [bytes, memoryview, lambda data: memoryview(bytearray(data))])
def test_views_keep_the_message_alive_and_are_read_only(as_buffer: Any) -> None:
    x = np.arange(4096, dtype=np.float32).reshape(1, 1, 64, 64)
    data = as_buffer(FORWARD.encode_request(ForwardCall(x, PoolSpec("max", 2))))
    view = FORWARD.decode_request(data).call.input
    del data
    gc.collect()
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[...] = 0
    np.testing.assert_array_equal(view, x)


def tensor(**fields: Any) -> pb.Tensor:
    return pb.Tensor(element_type=pb.ELEMENT_TYPE_UINT8, shape=[1, 1, 3], **fields)


def nested(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


TWO = b"\x10\x01\x10\x01"
ONE = pb.ForwardRequest(input=tensor(data=b"abc")).SerializeToString()
OTHER = pb.ForwardRequest(input=pb.Tensor(data=b"def")).SerializeToString()
INDICES = pb.BackwardRequest(indices=tensor(data=b"abc")).SerializeToString()
INPUT = pb.BackwardRequest(input=tensor(data=b"def")).SerializeToString()
FIELDS = {
    "two tensors": (pb.ForwardRequest, ONE + OTHER),
    "two payloads": (pb.ForwardRequest, nested(15, nested(15, b"a") + nested(15, b"b"))),
    "request in two parts": (pb.ForwardStreamRequest, nested(15, ONE) + nested(15, OTHER)),
    "both fields of a oneof": (pb.BackwardRequest, INDICES + INPUT),
    "both fields of a oneof, reversed": (pb.BackwardRequest, INPUT + INDICES),
    "three fields of a oneof": (pb.BackwardRequest, INDICES + INPUT + INDICES),
    "error after response": (pb.ForwardStreamResponse, nested(15, ONE) + nested(14, b"\x08\x03")),
    "response after error": (pb.ForwardStreamResponse, nested(14, b"\x08\x03") + nested(15, ONE)),
    "number in place of a tensor": (pb.ForwardRequest, b"\x78\x05" + ONE),
    "number in place of a payload": (pb.ForwardRequest, nested(15, b"\x78\x05")),
    "group": (pb.ForwardRequest, b"\x7b\x7c" + ONE),
    "tensor in a group": (pb.ForwardRequest, b"\x0b" + TWO + ONE + b"\x0c" + TWO),
    "group without an end": (pb.ForwardRequest, ONE + b"\x7b"),
    "field number 0": (pb.ForwardRequest, b"\x02\x00" + ONE),
    "unknown fields": (
        pb.ForwardRequest,
        nested(2000, b"xyz") + ONE + nested(99, b"") + b"\x28\x05",
    ),
    "64 fields": (pb.ForwardRequest, b"\x10\x01" * 63 + ONE),
    "65 fields": (pb.ForwardRequest, b"\x10\x01" * 64 + ONE),
    "outer length beyond the end": (
        pb.ForwardRequest,
        b"\x7a\x07\x08\x06\x7a\x02ab",
    ),
    "inner length beyond the outer one": (pb.ForwardRequest, b"\x7a\x04\x7a\x05ab" + TWO),
    "huge length": (pb.ForwardRequest, b"\x7a\xff\xff\xff\xff\x0f"),
    "length of six bytes": (pb.ForwardRequest, b"\x7a\x80\x80\x80\x80\x80\x00"),
    "number of eleven bytes": (pb.ForwardRequest, b"\x10" + b"\x80" * 10 + b"\x01"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_unusual_messages_parse_as_in_protobuf(case: str) -> None:
    assert_parsed_as_generated(*FIELDS[case])


def test_only_mergeable_or_malformed_messages_are_parsed_whole() -> None:
    """Neither the order of fields nor unknown fields cost a copy."""
    in_parts = {name for name, (type_, data) in FIELDS.items() if is_parsed_in_parts(type_, data)}
    assert in_parts == {
        "both fields of a oneof",
        "both fields of a oneof, reversed",
        "error after response",
        "response after error",
        "number in place of a tensor",
        "unknown fields",
        "64 fields",
    }


def is_parsed_in_parts(type_: Any, data: bytes) -> bool:
    try:
        return bool(parse(type_, data).payloads)
    except InvalidTensorError:
        return False


def test_small_messages_are_parsed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "WHOLE_BELOW_BYTES", len(ONE))
    assert not is_parsed_in_parts(pb.ForwardRequest, ONE[:-1])
    assert is_parsed_in_parts(pb.ForwardRequest, ONE)
    assert_parsed_as_generated(pb.ForwardRequest, ONE)
    monkeypatch.setattr(parsing, "WHOLE_BELOW_BYTES", len(ONE) + 1)
    assert not is_parsed_in_parts(pb.ForwardRequest, ONE)
    assert_parsed_as_generated(pb.ForwardRequest, ONE)
