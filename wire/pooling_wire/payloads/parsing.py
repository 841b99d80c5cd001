"""Parsing without copies: small fields by the generated classes, payloads as views of the bytes.

The generated class gets the message without its payloads, so it alone decides what every other
byte means. It gets the message whole, and copies, if the message is small or anything about it is
unusual: a tensor or a payload that occurs twice (protobuf merges those), a group, a length that
makes no sense, or more fields than an honest sender has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import repeat
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from pooling_engine import InvalidTensorError
from pooling_wire.payloads.tensors import ALIGNED_BYTES, field_start
from pooling_wire.shared_memory.places import NO_REGIONS, Regions
from pooling_wire.v1 import pooling_pb2 as pb

M = TypeVar("M", bound=Message)
Buffer = bytes | memoryview
Payloads = Mapping[str, memoryview]

WHOLE_BELOW_BYTES = ALIGNED_BYTES  # a smaller message is copied sooner than it is looked at here

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_BYTES = 2**31 - 1  # of a message, in protobuf
_ID_TAG, _NESTED_TAG = 1 << 3 | _VARINT, 15 << 3 | _LENGTH  # of the items of streams
_MAX_FIELDS = 64  # of a message; more are walked over sooner by the generated parser


class _UnusualError(Exception):
    """The message is for the generated class alone."""


class Parsed(NamedTuple, Generic[M]):
    """A message, and the payloads that are not in it.

    Attributes:
        message: what the generated class parsed.
        payloads: read-only views of tensors' elements, by the name of the tensor's field. The
            elements of a tensor that has none here are in the message.
        regions: of shared memory, where other tensors may be.
    """

    message: M
    payloads: Payloads
    regions: Regions = NO_REGIONS


def parse(type_: type[M], data: Buffer) -> Parsed[M]:
    """The message that the bytes are.

    Raises:
        InvalidTensorError: they do not parse.
    """
    try:
        try:
            return _parse_in_parts(type_, data)
        except (_UnusualError, IndexError):
            return Parsed(type_.FromString(bytes(data)), {})
    except DecodeError:
        raise InvalidTensorError(
            f"the message is no {type_.DESCRIPTOR.full_name}: {len(data)} bytes that do not parse"
        ) from None


def payload_spans(
    type_: type[Message], data: Buffer, begin: int, end: int
) -> dict[str, tuple[int, int]] | None:
    """Where the elements of each tensor are in the message from `begin` to `end`.

    Returns:
        Their begin and end in `data`, by the name of the tensor's field; None if that is not
        plain to see.
    """
    spans: dict[str, tuple[int, int]] = {}
    try:
        _without_payloads(
            memoryview(data).toreadonly().cast("B"),
            begin,
            end,
            _carriers(type_.DESCRIPTOR),
            "",
            spans,
        )
    except (_UnusualError, IndexError):
        return None
    return spans


def nested_span(data: Buffer) -> tuple[int, int, int] | None:
    """The number of an item of a stream, and where the message in it begins and ends.

    Returns:
        None if the item is anything but a number, in field 1, and then a message, in field 15.
    """
    try:
        id_, at = (0, 0) if data[0] != _ID_TAG else _varint(data, 1, 9)
        if data[at] != _NESTED_TAG:
            return None
        size, begin = _varint(data, at + 1, 5)
    except (_UnusualError, IndexError):
        return None
    return (id_, begin, len(data)) if begin + size == len(data) else None


def parse_number(type_: type[M], field: str, data: Buffer) -> int:
    """An int64 field of a message that does not parse, as far as it can be read; else 0."""
    number = type_.DESCRIPTOR.fields_by_name[field].number
    occurrences = []
    with suppress(_UnusualError, IndexError):
        for tag, begin, _, end in _fields(data, 0, len(data)):
            if tag == number << 3 | _VARINT:
                occurrences.append(data[begin:end])
    value: int = getattr(type_.FromString(b"".join(occurrences)), field)
    return value


def _parse_in_parts(type_: type[M], data: Buffer) -> Parsed[M]:
    view = memoryview(data).toreadonly().cast("B")
    if not WHOLE_BELOW_BYTES <= len(view) <= _MAX_BYTES:
        raise _UnusualError
    spans: dict[str, tuple[int, int]] = {}
    rest = _without_payloads(view, 0, len(view), _carriers(type_.DESCRIPTOR), "", spans)
    payloads = {name: view[begin:end] for name, (begin, end) in spans.items()}
    return Parsed(type_.FromString(rest), payloads)


# By tag: the name of a message field, and its own carriers; of a payload, none.
_Carriers = Mapping[int, tuple[str, Any]]


@cache
def _carriers(message: Descriptor) -> _Carriers:
    """The fields of a message that are payloads, or have payloads further in."""
    if message is pb.Tensor.DESCRIPTOR:
        return {pb.Tensor.DATA_FIELD_NUMBER << 3 | _LENGTH: ("", None)}
    nested = ((field, field.message_type) for field in message.fields)
    return {
        field.number << 3 | _LENGTH: (field.name, _carriers(type_))
        for field, type_ in nested
        if type_ is not None and _carriers(type_)
    }


def _without_payloads(
    data: memoryview,
    begin: int,
    end: int,
    carriers: _Carriers,
    name: str,
    spans: dict[str, tuple[int, int]],
) -> bytes:
    """The bytes of the message `name` less its payloads, whose places are added to `spans`."""
    parts: list[Buffer] = []
    seen = []
    kept = begin
    for tag, start, content, stop in _fields(data, begin, end):
        if tag not in carriers:
            continue
        if tag in seen:
            raise _UnusualError
        seen.append(tag)
        parts.append(data[kept:start])
        kept = stop
        inner_name, inner_carriers = carriers[tag]
        if inner_carriers is None:
            spans[name] = content, stop
        else:
            inner = _without_payloads(data, content, stop, inner_carriers, inner_name, spans)
            parts += (field_start(tag >> 3, len(inner)), inner)
    parts.append(data[kept:end])
    return b"".join(parts)


def _fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The tag of each field, where it begins, where its content begins, and where that ends."""
    for _ in repeat(None, _MAX_FIELDS):
        if at >= end:
            break
        begin, tag = at, data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, begin, 5)
        kind, content = tag & 7, at
        if kind == _LENGTH:
            size = data[at]
            content += 1
            if size > 0x7F:
                size, content = _varint(data, at, 5)
            at = content + size
        elif kind == _VARINT:
            at += 1
            if data[content] > 0x7F:
                _, at = _varint(data, content, 10)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        else:
            raise _UnusualError
        yield tag, begin, content, at
    if at != end:
        raise _UnusualError


def _varint(data: Buffer, at: int, most: int) -> tuple[int, int]:
    """A number of at most so many bytes, and where it ends."""
    value = 0
    for place in range(most):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise _UnusualError
