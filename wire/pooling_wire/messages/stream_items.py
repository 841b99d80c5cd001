"""Items of streams: a call or a result, or what refused it, under the id that the caller chose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pooling_engine import ForwardResult, InvalidTensorError, PoolingError
from pooling_wire.errors import decode_stream_error, encode_stream_error
from pooling_wire.messages.calls import Array, BackwardCall, ForwardCall
from pooling_wire.messages.decoding import (
    BACKWARD_CALLS,
    FORWARD_CALLS,
    FORWARD_RESULTS,
    GRADIENTS,
    backward_call,
    backward_result,
    forward_call,
    forward_result,
)
from pooling_wire.messages.encoding import (
    backward_request_parts,
    backward_response_parts,
    forward_request_parts,
    forward_response_parts,
)
from pooling_wire.payloads.message_cache import MessageCache
from pooling_wire.payloads.parsing import Buffer, Parsed, nested_span, parse, parse_number
from pooling_wire.payloads.tensors import Parts, nested_parts
from pooling_wire.shared_memory.places import NO_PLACES, Places
from pooling_wire.v1 import pooling_pb2 as pb

T = TypeVar("T")


def encode_forward_item(id_: int, call: ForwardCall) -> bytes:
    """The bytes of a ForwardStreamRequest."""
    request = pb.ForwardStreamRequest(id=id_)
    return b"".join(nested_parts(request, "request", partial(forward_request_parts, call)))


def decode_forward_item(data: Buffer) -> tuple[int, ForwardCall | PoolingError]:
    """The id of a ForwardStreamRequest, and what it asks or why it is refused.

    An item never raises: what is wrong with it belongs into its reply. The id is 0 if the
    bytes are so broken that it cannot be read.
    """
    return _decode_item(pb.ForwardStreamRequest, data, forward_call, FORWARD_CALLS)


def encode_forward_item_reply(id_: int, result: ForwardResult | PoolingError) -> bytes:
    """The bytes of a ForwardStreamResponse: a result, or what refused the item."""
    return _encode_reply(pb.ForwardStreamResponse(id=id_), result, forward_response_parts)


def decode_forward_item_reply(data: Buffer) -> tuple[int, ForwardResult | PoolingError]:
    """The id of a ForwardStreamResponse, and the result or what refused the item.

    Raises:
        InvalidTensorError: the reply is malformed.
    """
    return _decode_reply(pb.ForwardStreamResponse, data, forward_result, FORWARD_RESULTS)


def encode_backward_item(id_: int, call: BackwardCall) -> bytes:
    """The bytes of a BackwardStreamRequest."""
    request = pb.BackwardStreamRequest(id=id_)
    return b"".join(nested_parts(request, "request", partial(backward_request_parts, call)))


def decode_backward_item(data: Buffer) -> tuple[int, BackwardCall | PoolingError]:
    """The id of a BackwardStreamRequest, and what it asks or why it is refused.

    As `decode_forward_item`, it never raises.
    """
    return _decode_item(pb.BackwardStreamRequest, data, backward_call, BACKWARD_CALLS)


def encode_backward_item_reply(id_: int, gradient: Array | PoolingError) -> bytes:
    """The bytes of a BackwardStreamResponse: a gradient, or what refused the item."""
    return _encode_reply(pb.BackwardStreamResponse(id=id_), gradient, backward_response_parts)


def decode_backward_item_reply(data: Buffer) -> tuple[int, Array | PoolingError]:
    """The id of a BackwardStreamResponse, and the gradient or what refused the item.

    Raises:
        InvalidTensorError: the reply is malformed.
    """
    return _decode_reply(pb.BackwardStreamResponse, data, backward_result, GRADIENTS)


def _decode_item(
    type_: Any, data: Buffer, decode: Callable[[Any], T], cache: MessageCache[T]
) -> tuple[int, T | PoolingError]:
    span = nested_span(data)
    if span and (known := cache.get(data, *span[1:])) is not None:
        return span[0], known
    try:
        item, payloads, _ = parse(type_, data)
    except PoolingError as error:
        return parse_number(type_, "id", data), error
    if not item.HasField("request"):
        return item.id, InvalidTensorError("request is missing", field="request")
    try:
        call = decode(Parsed(item.request, payloads))
    except PoolingError as error:
        return item.id, error
    if span:
        cache.put(data, *span[1:], call)
    return item.id, call


def _encode_reply(
    message: Any, result: T | PoolingError, encode: Callable[[T, Places, int], Parts]
) -> bytes:
    if isinstance(result, PoolingError):
        message.error.CopyFrom(encode_stream_error(result))
        parts: Parts = [message.SerializeToString()]
    else:
        parts = nested_parts(message, "response", partial(encode, result, NO_PLACES))
    return b"".join(parts)


def _decode_reply(
    type_: Any, data: Buffer, decode: Callable[[Any], T], cache: MessageCache[T]
) -> tuple[int, T | PoolingError]:
    span = nested_span(data)
    if span and (known := cache.get(data, *span[1:])) is not None:
        return span[0], known
    message, payloads, _ = parse(type_, data)
    kind = message.WhichOneof("result")
    if kind is None:
        raise InvalidTensorError("the reply has neither a response nor an error")
    if kind == "error":
        return message.id, decode_stream_error(message.error)
    result = decode(Parsed(message.response, payloads))
    if span:
        cache.put(data, *span[1:], result)
    return message.id, result
