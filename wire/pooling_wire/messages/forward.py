"""Codecs of ForwardRequest and ForwardResponse."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from numpy.typing import NDArray

from pooling_engine import ForwardCall, ForwardResult, IndexFormat, InvalidSpecError, PoolSpec
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
from pooling_wire.payloads.tensors import Parts, message_parts
from pooling_wire.shared_memory.places import INDICES, NO_PLACES, Placed, Places
from pooling_wire.v1 import pooling_pb2 as pb


def _request_parts(call: ForwardCall, places: Places) -> Parts:
    axes = call.input.ndim - 2
    head = _request_head(call.spec, axes, call.return_indices, call.index_format)
    head += encode_places(pb.ForwardRequest, places)
    return message_parts(pb.ForwardRequest, head, {"input": call.input}, places)


@lru_cache(maxsize=512)
def _request_head(
    spec: PoolSpec, spatial_axes: int, return_indices: bool, index_format: IndexFormat
) -> bytes:
    request = pb.ForwardRequest(spec=encode_spec(spec, spatial_axes), return_indices=return_indices)
    if return_indices:
        request.index_format = INDEX_FORMATS.number(index_format)
    return request.SerializeToString()


def _request(parsed: Parsed[pb.ForwardRequest]) -> Placed[ForwardCall]:
    request = parsed.message
    if request.index_format and not request.return_indices:
        raise InvalidSpecError(
            "index_format applies only with return_indices", field="index_format"
        )
    call = ForwardCall(
        required_tensor(parsed, "input"),
        required_spec(request),
        request.return_indices,
        INDEX_FORMATS.name(request.index_format, "index_format", default=IndexFormat.WINDOW),
    )
    places = decode_places(request)
    is_window = call.return_indices and call.index_format is IndexFormat.WINDOW
    if INDICES in places and not is_window:
        raise InvalidSpecError(
            "indices_place applies only with return_indices, in the window format",
            field="indices_place",
        )
    return Placed(call, places)


def _request_template(placed: Placed[ForwardCall]) -> Template[Placed[ForwardCall]] | None:
    call, places = placed
    if places:
        return None
    spec, return_indices, index_format = call.spec, call.return_indices, call.index_format

    def make(input: NDArray[Any]) -> Placed[ForwardCall]:  # noqa: A002  the contract's name
        return Placed(ForwardCall(input, spec, return_indices, index_format), NO_PLACES)

    return Template(make, {"input": call.input})


def _response_parts(result: ForwardResult, places: Places) -> Parts:
    tensors = {"indices": result.indices, "output": result.output}
    return message_parts(pb.ForwardResponse, b"", tensors, places)


def _response(parsed: Parsed[pb.ForwardResponse]) -> ForwardResult:
    indices = tensor(parsed, "indices") if parsed.message.HasField("indices") else None
    return ForwardResult(tensor(parsed, "output"), indices)


def _response_template(result: ForwardResult) -> Template[ForwardResult]:
    make = ForwardResult if result.indices is not None else partial(ForwardResult, indices=None)
    return Template(make, result._asdict())


FORWARD_REQUEST: MessageCodec[ForwardCall, Placed[ForwardCall]] = MessageCodec(
    pb.ForwardRequest, _request_parts, _request, _request_template
)
FORWARD_RESPONSE: MessageCodec[ForwardResult, ForwardResult] = MessageCodec(
    pb.ForwardResponse, _response_parts, _response, _response_template
)
