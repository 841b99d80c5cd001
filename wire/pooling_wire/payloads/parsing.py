"""Copy-free parsing: payloads become views, and the generated classes parse everything else.

A payload is the `data` of a tensor: its elements. The generated class receives the message without
its payloads, so that it alone decides the meaning of all other bytes. It receives the whole
message, and copies the payloads, if the message is small or unusual: a tensor or a payload occurs
twice (protobuf merges those), there is a group, a length is invalid, or there are more fields than
any of our messages has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import repeat
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import DecodeError, Message

from pooling_engine import InvalidTensorError
from pooling_wire.payloads.tensors import field_start
from pooling_wire.shared_memory.places import NO_REGIONS, Regions
from pooling_wire.v1 import pooling_pb2 as pb

M = TypeVar("M", bound=Message)
Buffer = bytes | memoryview
Payloads = Mapping[str, memoryview]

WHOLE_BELOW_BYTES = 1 << 17  # copying a smaller message is faster than scanning it here

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_BYTES = 2**31 - 1  # protobuf's limit of a message
# Fields of stream items.
_ID_TAG, _TIMEOUT_TAG, _NESTED_TAG = 1 << 3 | _VARINT, 2 << 3 | _VARINT, 15 << 3 | _LENGTH
_MAX_FIELDS = 64  # per message; the generated parser is faster for more


class _UnusualError(Exception):
    """The message must be parsed by the generated class alone."""


class Parsed(NamedTuple, Generic[M]):
    """A parsed message, and the payloads that were left out of it.

    Attributes:
        message: the message without those payloads.
        payloads: read-only views of the elements of tensors, by the name of the tensor's field. A
            tensor without an entry has its elements in the message.
        regions: regions of shared memory that tensors may be in.
    """

    message: M
    payloads: Payloads
    regions: Regions = NO_REGIONS


def parse(type_: type[M], data: Buffer) -> Parsed[M]:
    """Parse the bytes of a message.

    Raises:
        InvalidTensorError: the bytes are not such a message.
    """
    try:
        try:
            return _parse_in_parts(type_, data)
        except (_UnusualError, IndexError):
            return Parsed(type_.FromString(bytes(data)), {})
    except DecodeError:
        raise InvalidTensorError(
            f"the {len(data)} bytes of the message cannot be parsed as {type_.DESCRIPTOR.full_name}"
        ) from None


def payload_spans(
    type_: type[Message], data: Buffer, begin: int, end: int
) -> dict[str, tuple[int, int]] | None:
    """Find the payloads of the message at `data[begin:end]`.

    Returns:
        Begin and end of each payload in `data`, by the name of the tensor's field; None if the
        message is unusual.
    """
    spans: dict[str, tuple[int, int]] = {}
    try:
        _without_payloads(
            memoryview(data).toreadonly().cast("B"),
            begin,
            end,
            _carriers(type_.DESCRIPTOR),
            "",
            "",
            spans,
        )
    except (_UnusualError, IndexError):
        return None
    return spans


def nested_span(data: Buffer) -> tuple[int, int, int] | None:
    """Find the message in a stream item or a reply.

    Returns:
        The numbers in fields 1 and 2, and the begin of the message, which ends where `data` ends;
        None unless the item consists of these numbers (zeros may be absent) and then a message in
        field 15.
    """
    id_ = timeout_us = at = 0
    try:
        if data[0] == _ID_TAG:
            id_, at = _varint(data, 1, 9)
        if data[at] == _TIMEOUT_TAG:
            timeout_us, at = _varint(data, at + 1, 9)
        if data[at] != _NESTED_TAG:
            return None
        size, begin = _varint(data, at + 1, 5)
    except (_UnusualError, IndexError):
        return None
    return (id_, timeout_us, begin) if begin + size == len(data) else None


def split_fields(data: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """Separate the occurrences of a field of bytes from the rest of a message, for other protocols.

    Args:
        data: the message.
        number: number of the field, which is repeated and has bytes.

    Returns:
        The message without the field, and a read-only view of each occurrence.

    Raises:
        InvalidTensorError: the message is malformed, or has more than 64 fields.
    """
    view = memoryview(data)
    tag, kept = number << 3 | _LENGTH, 0
    rest: list[Buffer] = []
    found = []
    try:
        for each, begin, content, end in _fields(data, 0, len(data)):
            if each == tag:
                rest.append(view[kept:begin])
                found.append(view[content:end])
                kept = end
    except (_UnusualError, IndexError):
        raise InvalidTensorError(
            f"the {len(data)} bytes of the message cannot be parsed, or have over "
            f"{_MAX_FIELDS} fields"
        ) from None
    rest.append(view[kept:])
    return b"".join(rest), found


def parse_number(type_: type[M], field: str, data: Buffer) -> int:
    """Return an int64 field of a message that cannot be parsed; 0 if the field cannot be read."""
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
    rest = _without_payloads(view, 0, len(view), _carriers(type_.DESCRIPTOR), "", "", spans)
    payloads = {name: view[begin:end] for name, (begin, end) in spans.items()}
    return Parsed(type_.FromString(rest), payloads)


# By tag: the name of a field, the carriers in it (None for a payload), and if it is repeated.
_Carriers = Mapping[int, tuple[str, Any, bool]]


@cache
def _carriers(message: Descriptor) -> _Carriers:
    """Return the fields of a message that are payloads or contain payloads."""
    if message is pb.Tensor.DESCRIPTOR:
        return {pb.Tensor.DATA_FIELD_NUMBER << 3 | _LENGTH: ("", None, False)}
    proto = DescriptorProto()  # descriptors tell repeated fields apart in newer versions only
    message.CopyToProto(proto)
    label = FieldDescriptorProto.LABEL_REPEATED
    repeated = {field.name for field in proto.field if field.label == label}
    nested = ((field, field.message_type) for field in message.fields)
    return {
        field.number << 3 | _LENGTH: (
            field.name,
            _carriers(type_),
            field.name in repeated,
        )
        for field, type_ in nested
        if type_ is not None and _carriers(type_)
    }


def _without_payloads(
    data: memoryview,
    begin: int,
    end: int,
    carriers: _Carriers,
    name: str,
    prefix: str,
    spans: dict[str, tuple[int, int]],
) -> bytes:
    """Return a message without its payloads, and add their positions to `spans`.

    Args:
        data: the bytes.
        begin: begin of the message.
        end: end of the message.
        carriers: fields with payloads.
        name: name of the message, if it is a tensor.
        prefix: prefix of the names of tensors, such as "more[0].".
        spans: receives the positions.
    """
    parts: list[Buffer] = []
    seen: list[int] = []
    kept = begin
    for tag, start, content, stop in _fields(data, begin, end):
        if tag not in carriers:
            continue
        inner_name, inner_carriers, is_repeated = carriers[tag]
        count = seen.count(tag)
        if count and not is_repeated:
            raise _UnusualError
        seen.append(tag)
        parts.append(data[kept:start])
        kept = stop
        if inner_carriers is None:
            spans[name] = content, stop
        else:
            inner = _without_payloads(
                data,
                content,
                stop,
                inner_carriers,
                prefix + inner_name,
                f"{inner_name}[{count}]." if is_repeated else prefix,
                spans,
            )
            parts += (field_start(tag >> 3, len(inner)), inner)
    parts.append(data[kept:end])
    return b"".join(parts)


def _fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field: its tag, begin, begin of the content, and end."""
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
    """Return a varint of at most `most` bytes, and its end."""
    value = shift = 0
    for each in range(at, at + most):
        byte = data[each]
        if byte < 0x80:
            return value | byte << shift, each + 1
        value |= (byte & 0x7F) << shift
        shift += 7
    raise _UnusualError
