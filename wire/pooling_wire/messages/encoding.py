"""Calls and results to the bytes of requests and replies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pooling_engine import ForwardResult, IndexFormat, PoolSpec
from pooling_wire.enums import INDEX_FORMATS
from pooling_wire.messages.calls import Array, BackwardCall, ForwardCall
from pooling_wire.messages.specs import encode_spec
from pooling_wire.payloads.tensors import Parts, message_parts
from pooling_wire.shared_memory.places import NO_PLACES, RESULTS, Places
from pooling_wire.v1 import pooling_pb2 as pb


def encode_forward_request(call: ForwardCall) -> bytes:
    """The bytes of a ForwardRequest."""
    return b"".join(forward_request_parts(call))


def forward_request_parts(call: ForwardCall, start: int = 0) -> Parts:
    """The bytes of a ForwardRequest, to be joined; `start` as in `message_parts`."""
    head = _forward_head(
        call.spec, call.input.ndim - 2, call.return_indices, call.index_format
    ) + _encode_places(pb.ForwardRequest, call.places)
    return message_parts(pb.ForwardRequest, head, {"input": call.input}, call.places, start)


@lru_cache(maxsize=512)
def _forward_head(
    spec: PoolSpec, spatial_axes: int, return_indices: bool, index_format: IndexFormat
) -> bytes:
    request = pb.ForwardRequest(spec=encode_spec(spec, spatial_axes), return_indices=return_indices)
    if return_indices:
        request.index_format = INDEX_FORMATS.number(index_format)
    return request.SerializeToString()


def encode_forward_response(result: ForwardResult, places: Places = NO_PLACES) -> bytes:
    """The bytes of a ForwardResponse; what has a place is there already, and is not sent."""
    return b"".join(forward_response_parts(result, places))


def forward_response_parts(
    result: ForwardResult, places: Places = NO_PLACES, start: int = 0
) -> Parts:
    """The bytes of a ForwardResponse, to be joined; `start` as in `message_parts`."""
    tensors = {"indices": result.indices, "output": result.output}
    return message_parts(pb.ForwardResponse, b"", tensors, places, start)


def encode_backward_request(call: BackwardCall) -> bytes:
    """The bytes of a BackwardRequest."""
    return b"".join(backward_request_parts(call))


def backward_request_parts(call: BackwardCall, start: int = 0) -> Parts:
    """The bytes of a BackwardRequest, to be joined; `start` as in `message_parts`."""
    head = _backward_head(
        call.spec, call.output_gradient.ndim - 2, call.input_shape, call.index_format
    ) + _encode_places(pb.BackwardRequest, call.places)
    tensors = {
        "indices": call.indices,
        "input": call.input,
        "output_gradient": call.output_gradient,
    }
    return message_parts(pb.BackwardRequest, head, tensors, call.places, start)


@lru_cache(maxsize=512)
def _backward_head(
    spec: PoolSpec,
    spatial_axes: int,
    input_shape: tuple[int, ...] | None,
    index_format: IndexFormat | None,
) -> bytes:
    request = pb.BackwardRequest(spec=encode_spec(spec, spatial_axes), input_shape=input_shape)
    if index_format is not None:
        request.index_format = INDEX_FORMATS.number(index_format)
    return request.SerializeToString()


def encode_backward_response(gradient: Array, places: Places = NO_PLACES) -> bytes:
    """The bytes of a BackwardResponse; a gradient that has a place is not sent."""
    return b"".join(backward_response_parts(gradient, places))


def backward_response_parts(gradient: Array, places: Places = NO_PLACES, start: int = 0) -> Parts:
    """The bytes of a BackwardResponse, to be joined; `start` as in `message_parts`."""
    return message_parts(pb.BackwardResponse, b"", {"input_gradient": gradient}, places, start)


def _encode_places(type_: Any, places: Places) -> bytes:
    """The part of a request that says where to put results."""
    fields = type_.DESCRIPTOR.fields_by_name
    named = {f"{name}_place": places[name].message() for name in RESULTS if name in places}
    here = {name: place for name, place in named.items() if name in fields}
    return type_(**here).SerializeToString() if here else b""
