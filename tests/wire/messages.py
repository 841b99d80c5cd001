"""Strategies for messages, valid and damaged, and the comparison with the generated classes."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import strategies as st

from pooling_engine import InvalidTensorError
from pooling_wire.payloads.parsing import parse
from pooling_wire.v1 import pooling_pb2 as pb

TYPES = (
    pb.ForwardRequest,
    pb.ForwardResponse,
    pb.BackwardRequest,
    pb.BackwardResponse,
    pb.ForwardStreamRequest,
    pb.ForwardStreamResponse,
    pb.BackwardStreamRequest,
    pb.BackwardStreamResponse,
    pb.GetPlanRequest,
)


def assert_parsed_as_generated(type_: Any, data: bytes) -> None:
    """Assert that our parser and the generated class give the same message or both reject it."""
    try:
        expected = type_.FromString(data)
    except DecodeError:
        expected = None
    try:
        message, payloads, _ = parse(type_, data)
    except InvalidTensorError:
        assert expected is None, "rejected, but protobuf parses it"
        return
    assert expected is not None, "parsed, but protobuf rejects it"
    inner = inner_of(message)
    for name, payload in payloads.items():
        assert payload.readonly
        *layer, name = name.split(".")
        owner = inner
        if layer:
            number = int(layer[0].removeprefix("more[").removesuffix("]"))
            owner = inner.more[number] if number < len(getattr(inner, "more", ())) else inner
        if name in owner.DESCRIPTOR.fields_by_name and owner.HasField(name):
            tensor = getattr(owner, name)
            assert not tensor.data, "elements in two places"
            tensor.data = bytes(payload)
    assert message == expected
    assert message.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


def inner_of(message: Any) -> Any:
    """Return the message that has the tensors: the request or response of an item, or itself."""
    for field in ("request", "response"):
        if field in message.DESCRIPTOR.fields_by_name:
            return getattr(message, field) if message.HasField(field) else pb.GlobalWindow()
    return message


def varint(value: int, pad: int = 0) -> bytes:
    """Return a varint that is `pad` bytes longer than necessary."""
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    groups += [0] * pad
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


@st.composite
def varints(draw: Any, values: Any) -> bytes:
    return varint(draw(values), draw(st.sampled_from((0, 0, 0, 0, 1, 3, 9))))


def length_field(number: int, contents: Any) -> Any:
    tag = varints(st.just(number << 3 | 2))
    return st.tuples(tag, contents, st.sampled_from((0, 0, 0, 0, 1, 4, 5))).map(
        lambda field: field[0] + varint(len(field[1]), field[2]) + field[1]
    )


NUMBERS = st.one_of(st.integers(0, 17), st.sampled_from((31, 2047, 2**29 - 1, 2**29)))
LONG = st.integers(0, 2**64 - 1)


@st.composite
def unknown_fields(draw: Any) -> bytes:
    """Return a field of any number and wire type, including groups and invalid types."""
    kind = draw(st.sampled_from((0, 0, 1, 2, 2, 5, 3, 4, 6, 7)))
    tag = draw(varints(NUMBERS.map(lambda number: number << 3 | kind)))
    if kind == 3:
        closing = draw(st.sampled_from((tag, tag, b"")))
        return (
            tag
            + draw(fields_of(None, 1))
            + bytes([closing[0] + 1, *closing[1:]] if closing else ())
        )
    content = {
        0: varints(LONG),
        1: st.binary(min_size=8, max_size=8),
        2: st.binary(max_size=9).map(lambda data: varint(len(data)) + data),
        5: st.binary(min_size=4, max_size=4),
    }.get(kind, st.just(b""))
    return tag + draw(content)


@cache
def fields_of(descriptor: Any, most: int = 6) -> Any:
    """Return a strategy for messages: fields in any order and number, and unknown fields."""
    known = [known_field(field) for field in descriptor.fields] if descriptor else []
    some = st.one_of(*known, unknown_fields()) if known else unknown_fields()
    return st.lists(some, max_size=most).map(b"".join)


@cache
def known_field(field: Any) -> Any:
    if field.message_type is not None:
        return length_field(field.number, st.deferred(lambda: fields_of(field.message_type)))
    if field.type == field.TYPE_BYTES:
        payload = st.one_of(st.binary(max_size=9), st.binary(min_size=127, max_size=130))
        return length_field(field.number, payload)
    if field.type == field.TYPE_STRING:
        return length_field(field.number, st.sampled_from((b"", b"text", b"\xff")))
    if field.type == field.TYPE_DOUBLE:
        return st.binary(min_size=8, max_size=8).map(varint(field.number << 3 | 1).__add__)
    one = st.tuples(varints(st.just(field.number << 3)), varints(LONG)).map(b"".join)
    packed = length_field(field.number, st.lists(varints(LONG), max_size=4).map(b"".join))
    return st.one_of(one, packed)


@st.composite
def damaged(draw: Any, whole: Any) -> bytes:
    """Return the bytes unchanged, or with some of them cut, changed, dropped or inserted."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("cut", "flip", "drop", "insert"))):
            case "cut":
                del data[at:]
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "drop":
                del data[at : at + draw(st.integers(1, 3))]
            case _:
                data[at:at] = draw(st.binary(max_size=3))
    return bytes(data)
