"""Codecs of BackwardRequest and BackwardResponse."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from pooling_engine import BackwardCall, IndexFormat, PoolSpec
from pooling_wire.enums import INDEX_FORMATS
from pooling_wire.messages.codec import MessageCodec
from pooling_wire.messages.fields import (
    decode_places,
    encode_places,
    required_spec,
    required_tensor,
    tensor,
)
from pooling_wire.messages.specs import encode_spec
from pooling_wire.payloads.message_cache import Template
from pooling_wire.payloads.parsing import Parsed
from pooling_wire.payloads.tensors import Parts, decode_shape, message_parts
from pooling_wire.shared_memory.places import NO_PLACES, Placed, Places
from pooling_wire.v1 import pooling_pb2 as pb

Array = NDArray[Any]


def _request_parts(call: BackwardCall, places: Places) -> Parts:
    axes = call.output_gradient.ndim - 2
    shape = call.input_shape if call.input is None else None  # the input has its own shape
    head = _request_head(call.spec, axes, shape, call.index_format)
    head += encode_places(pb.BackwardRequest, places)
    tensors = {
        "indices": call.indices,
        "input": call.input,
        "output_gradient": call.output_gradient,
    }
    return message_parts(pb.BackwardRequest, head, tensors, places)


@lru_cache(maxsize=512)
def _request_head(
    spec: PoolSpec,
    spatial_axes: int,
    input_shape: tuple[int, ...] | None,
    index_format: IndexFormat | None,
) -> bytes:
    request = pb.BackwardRequest(spec=encode_spec(spec, spatial_axes), input_shape=input_shape)
    if index_format is not None:
        request.index_format = INDEX_FORMATS.number(index_format)
    return request.SerializeToString()


def _request(parsed: Parsed[pb.BackwardRequest]) -> Placed[BackwardCall]:
    request = parsed.message
    residual = request.WhichOneof("residual")
    number = request.index_format
    call = BackwardCall(
        required_tensor(parsed, "output_gradient"),
        required_spec(request),
        decode_shape(request.input_shape, "input_shape") or None,
        tensor(parsed, "indices") if residual == "indices" else None,
        tensor(parsed, "input") if residual == "input" else None,
        INDEX_FORMATS.name(number, "index_format") if number else None,
    )
    return Placed(call, decode_places(request))


def _request_template(placed: Placed[BackwardCall]) -> Template[Placed[BackwardCall]] | None:
    call, places = placed
    if places:
        return None
    spec, shape, index_format = call.spec, call.input_shape, call.index_format

    def make(
        output_gradient: Array,
        indices: Array | None = None,
        input: Array | None = None,  # noqa: A002  the contract's name
    ) -> Placed[BackwardCall]:
        call = BackwardCall(output_gradient, spec, shape, indices, input, index_format)
        return Placed(call, NO_PLACES)

    tensors = ("output_gradient", "indices", "input")
    return Template(make, {name: getattr(call, name) for name in tensors})


def _response_parts(gradient: Array, places: Places) -> Parts:
    return message_parts(pb.BackwardResponse, b"", {"input_gradient": gradient}, places)


def _response(parsed: Parsed[pb.BackwardResponse]) -> Array:
    return tensor(parsed, "input_gradient")


def _response_template(gradient: Array) -> Template[Array]:
    return Template(lambda input_gradient: input_gradient, {"input_gradient": gradient})


BACKWARD_REQUEST: MessageCodec[BackwardCall, Placed[BackwardCall]] = MessageCodec(
    pb.BackwardRequest, _request_parts, _request, _request_template
)
BACKWARD_RESPONSE: MessageCodec[Array, Array] = MessageCodec(
    pb.BackwardResponse, _response_parts, _response, _response_template
)
