"""Stream items and their replies: a request, a response or an error, with the client's id."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from pooling_engine import InvalidTensorError, PoolingError
from pooling_wire.errors import decode_stream_error, encode_stream_error
from pooling_wire.messages.codec import MessageCodec
from pooling_wire.payloads.parsing import Buffer, Parsed, nested_span, parse, parse_number
from pooling_wire.payloads.tensors import Parts, field_start, varint
from pooling_wire.shared_memory.places import (
    NO_PLACES,
    NO_REGIONS,
    Placed,
    Places,
    Regions,
    region_at,
)

Call = TypeVar("Call")
Result = TypeVar("Result")
_ID_TAG, _TIMEOUT_TAG = b"\x08", b"\x10"  # numbers in fields 1 and 2


class StreamItem(NamedTuple, Generic[Call]):
    """A decoded stream item.

    Attributes:
        id: number that the client chose.
        call: the call, or why it is invalid.
        timeout_us: microseconds that the client waits for the reply; 0 for no limit.
        places: locations of results in shared memory, as in `Placed`.
    """

    id: int
    call: Call | PoolingError
    timeout_us: int
    places: Places = NO_PLACES


def encode_item(
    codec: MessageCodec[Call, Placed[Call]],
    id_: int,
    call: Call,
    timeout_us: int,
) -> bytes:
    """Return the bytes of a stream item."""
    return item_of(id_, codec.parts(call, NO_PLACES), timeout_us)


def item_of(id_: int, request: Parts, timeout_us: int) -> bytes:
    """Return the bytes of a stream item that contains an encoded request."""
    timeout = _TIMEOUT_TAG + varint(timeout_us) if timeout_us else b""
    return _nested(_id(id_) + timeout, request)


def decode_item(
    type_: Any,
    codec: MessageCodec[Call, Placed[Call]],
    data: Buffer,
    regions: Regions = NO_REGIONS,
) -> StreamItem[Call]:
    """Return a stream item.

    It raises no `PoolingError`, because the reply to the item carries the error. The id is 0 if it
    cannot be read.
    """
    span = nested_span(data)
    if span:
        id_, timeout_us, begin = span
        if (known := codec.cache.get(data, begin, len(data))) is not None:
            return StreamItem(id_, known.call, timeout_us)
    try:
        item, payloads, _ = parse(type_, data)
    except PoolingError as error:
        return StreamItem(parse_number(type_, "id", data), error, 0)
    if not item.HasField("request"):
        missing = InvalidTensorError("request is missing", field="request")
        return StreamItem(item.id, missing, item.timeout_us)
    try:
        placed = codec.from_parsed(Parsed(item.request, payloads, regions))
        for name, place in placed.places.items():
            region_at(place, regions, f"{name}_place")
    except PoolingError as error:
        return StreamItem(item.id, error, item.timeout_us)
    if span:
        codec.cache.put(data, begin, len(data), placed)
    return StreamItem(item.id, placed.call, item.timeout_us, placed.places)


def encode_reply(
    type_: type[Message],
    codec: MessageCodec[Result, Result],
    id_: int,
    result: Result | PoolingError,
    places: Places = NO_PLACES,
) -> bytes:
    """Return the bytes of the reply to a stream item."""
    if isinstance(result, PoolingError):
        return type_(id=id_, error=encode_stream_error(result)).SerializeToString()
    return _nested(_id(id_), codec.parts(result, places))


def decode_reply(
    type_: Any,
    codec: MessageCodec[Result, Result],
    data: Buffer,
    regions: Regions = NO_REGIONS,
) -> tuple[int, Result | PoolingError]:
    """Return the id of the reply to a stream item, and the result or the error of the item.

    Raises:
        InvalidTensorError: the reply is malformed.
    """
    span = nested_span(data)
    if span:
        id_, _, begin = span
        if (known := codec.cache.get(data, begin, len(data))) is not None:
            return id_, known
    reply, payloads, _ = parse(type_, data)
    kind = reply.WhichOneof("result")
    if kind is None:
        raise InvalidTensorError("the reply has neither a response nor an error")
    if kind == "error":
        return reply.id, decode_stream_error(reply.error)
    result = codec.from_parsed(Parsed(reply.response, payloads, regions))
    if span:
        codec.cache.put(data, begin, len(data), result)
    return reply.id, result


def _id(id_: int) -> bytes:
    """Return the field of an id, as the generated classes encode it."""
    return _ID_TAG + varint(id_ % 2**64) if id_ else b""


def _nested(numbers: bytes, parts: Parts) -> bytes:
    """Return an item or a reply: its number fields, then a message in field 15."""
    return b"".join((numbers, field_start(15, sum(map(len, parts))), *parts))
