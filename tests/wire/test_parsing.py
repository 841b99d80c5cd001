"""Parsing without copies means what the generated classes mean, whatever the bytes are."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pooling_wire
from pooling_engine import InvalidTensorError, PoolSpec
from pooling_wire.payloads import parsing
from pooling_wire.payloads.parsing import parse
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support import cases
from tests.wire.messages import TYPES, assert_parsed_as_generated, damaged, fields_of, varint
from tests.wire.test_items import ITEMS
from tests.wire.test_wire import CALLS


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "WHOLE_BELOW_BYTES", 0)
        yield


every_type = pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.DESCRIPTOR.name)


@every_type
@given(st.data())
@cases.many_examples
def test_any_fields_in_any_order(type_: Any, data: Any) -> None:
    drawn = data.draw(damaged(fields_of(type_.DESCRIPTOR)))
    assert_parsed_as_generated(type_, drawn)


REAL = {
    **{f"{name} item": encode(-7, CALLS[what][0]) for name, (what, encode, *_) in ITEMS.items()},
    **{name: encode(value) for name, (value, encode, _) in CALLS.items() if name != "info"},
}


@pytest.mark.parametrize("name", REAL)
def test_real_messages_cut_anywhere_and_changed_anywhere(name: str) -> None:
    data = REAL[name]
    for type_ in TYPES:
        for end in range(len(data) + 1):
            assert_parsed_as_generated(type_, data[:end])
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            for type_ in TYPES[:6]:
                assert_parsed_as_generated(type_, bytes(changed))


@pytest.mark.parametrize("name", REAL)
def test_real_messages_are_not_copied(name: str) -> None:
    """The elements are where the bytes are: nothing falls back to the generated class."""
    data = REAL[name]
    where = np.frombuffer(data, np.uint8)
    decode = {
        **{k: v[2] for k, v in CALLS.items()},
        **{f"{k} item": v[2] for k, v in ITEMS.items()},
    }
    arrays = list(arrays_in(decode[name](data)))
    assert arrays
    for array in arrays:
        assert np.shares_memory(array, where)
        assert not array.flags.writeable


def arrays_in(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from arrays_in(item)
    elif hasattr(value, "__slots__"):
        for name in value.__slots__:
            yield from arrays_in(getattr(value, name))


@pytest.mark.parametrize("as_buffer", [bytes, memoryview, lambda data: memoryview(bytearray(data))])
def test_views_keep_the_bytes_and_are_read_only(as_buffer: Any) -> None:
    x = np.arange(4096, dtype=np.float32).reshape(1, 1, 64, 64)
    call = pooling_wire.ForwardCall(x, PoolSpec("max", 2))
    view = pooling_wire.decode_forward_request(
        as_buffer(pooling_wire.encode_forward_request(call))
    ).input
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
NUMBER = b"\x28\x05"
FIELDS = {
    "a tensor twice": (pb.ForwardRequest, ONE + OTHER),
    "an element string twice": (pb.ForwardRequest, nested(15, nested(15, b"a") + nested(15, b"b"))),
    "a request in two parts": (pb.ForwardStreamRequest, nested(15, ONE) + nested(15, OTHER)),
    "both of a oneof": (pb.BackwardRequest, INDICES + INPUT),
    "both, the other way": (pb.BackwardRequest, INPUT + INDICES),
    "three of a oneof": (pb.BackwardRequest, INDICES + INPUT + INDICES),
    "error after response": (pb.ForwardStreamResponse, nested(15, ONE) + nested(14, b"\x08\x03")),
    "response after error": (pb.ForwardStreamResponse, nested(14, b"\x08\x03") + nested(15, ONE)),
    "a tensor that is a number": (pb.ForwardRequest, b"\x78\x05" + ONE),
    "elements that are a number": (pb.ForwardRequest, nested(15, b"\x78\x05")),
    "a group": (pb.ForwardRequest, b"\x7b\x7c" + ONE),
    "a tensor in a group": (pb.ForwardRequest, b"\x0b" + TWO + ONE + b"\x0c" + TWO),
    "a group that does not end": (pb.ForwardRequest, ONE + b"\x7b"),
    "no field": (pb.ForwardRequest, b"\x02\x00" + ONE),
    "unknown fields": (
        pb.ForwardRequest,
        nested(2000, b"xyz") + ONE + nested(99, b"") + b"\x28\x05",
    ),
    "64 fields": (pb.ForwardRequest, b"\x10\x01" * 63 + ONE),
    "65 fields": (pb.ForwardRequest, b"\x10\x01" * 64 + ONE),
    "an outer length beyond the end": (
        pb.ForwardRequest,
        b"\x7a\x07\x08\x06\x7a\x02ab",
    ),
    "an inner length beyond the outer": (pb.ForwardRequest, b"\x7a\x04\x7a\x05ab" + TWO),
    "a huge length": (pb.ForwardRequest, b"\x7a\xff\xff\xff\xff\x0f"),
    "a length of six bytes": (pb.ForwardRequest, b"\x7a\x80\x80\x80\x80\x80\x00"),
    "a number of eleven bytes": (pb.ForwardRequest, b"\x10" + b"\x80" * 10 + b"\x01"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_what_is_unusual_means_what_protobuf_means(case: str) -> None:
    assert_parsed_as_generated(*FIELDS[case])


def test_which_messages_are_parsed_whole() -> None:
    """Order and unknown fields cost no copies; what protobuf would merge does."""
    in_parts = {name for name, (type_, data) in FIELDS.items() if is_parsed_in_parts(type_, data)}
    assert in_parts == {
        "both of a oneof",
        "both, the other way",
        "error after response",
        "response after error",
        "a tensor that is a number",
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
