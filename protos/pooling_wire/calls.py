"""Calls and results: what each request and reply says, in the engine's terms.

Requests and replies are bytes here: parsing belongs to the handler, which can say
INVALID_ARGUMENT, and not to the transport, which cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from numpy.typing import NDArray

from pooling_engine import (
    ForwardResult,
    IndexFormat,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
)
from pooling_wire.enums import INDEX_FORMATS
from pooling_wire.forms import Forms, Likeness
from pooling_wire.parsing import Buffer, Parsed, Payloads, parse
from pooling_wire.places import (
    INDICES,
    NO_PLACES,
    NO_REGIONS,
    RESULTS,
    Places,
    Regions,
    decode_place,
)
from pooling_wire.specs import decode_spec, encode_spec
from pooling_wire.tensors import (
    Parts,
    decode_shape,
    decode_shared_tensor,
    decode_tensor,
    message_parts,
)
from pooling_wire.v1 import pooling_pb2 as pb

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, slots=True)
class ForwardCall:
    """What a ForwardRequest asks: the arguments of `pooling_engine.forward`.

    Attributes:
        places: in shared memory: of results, where to put them; in a request to be encoded, also
            of tensors, which then are not sent.
    """

    input: Array
    spec: PoolSpec
    return_indices: bool = False
    index_format: IndexFormat = IndexFormat.WINDOW
    places: Places = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class BackwardCall:
    """What a BackwardRequest asks: the arguments of `pooling_engine.backward`.

    Attributes:
        places: as in `ForwardCall`.
    """

    output_gradient: Array
    spec: PoolSpec
    input_shape: tuple[int, ...] | None = None
    indices: Array | None = None
    input: Array | None = None
    index_format: IndexFormat | None = None
    places: Places = field(default_factory=dict)


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


def decode_forward_request(data: Buffer, regions: Regions = NO_REGIONS) -> ForwardCall:
    """What a ForwardRequest asks; its tensor is a read-only view.

    Args:
        regions: of memory shared with the caller, where its tensor may be.

    Raises:
        InvalidSpecError, InvalidTensorError, UnsupportedError: the request is wrong.
    """
    call = FORWARD_CALLS.find(data, 0, len(data))
    if call is None:
        call = forward_call(parse(pb.ForwardRequest, data)._replace(regions=regions))
        FORWARD_CALLS.keep(data, 0, len(data), call)
    return call


def forward_call(parsed: Parsed[pb.ForwardRequest]) -> ForwardCall:
    """What a ForwardRequest asks, as `decode_forward_request` has it."""
    request = parsed.message
    if request.index_format and not request.return_indices:
        raise InvalidSpecError(
            "index_format applies only with return_indices", field="index_format"
        )
    return ForwardCall(
        input=_required_tensor(*parsed, "input"),
        spec=required_spec(request),
        return_indices=request.return_indices,
        index_format=INDEX_FORMATS.name(
            request.index_format, "index_format", default=IndexFormat.WINDOW
        ),
        places=_places(request),
    )


def encode_forward_response(result: ForwardResult, places: Places = NO_PLACES) -> bytes:
    """The bytes of a ForwardResponse; what has a place is there already, and is not sent."""
    return b"".join(forward_response_parts(result, places))


def forward_response_parts(
    result: ForwardResult, places: Places = NO_PLACES, start: int = 0
) -> Parts:
    """The bytes of a ForwardResponse, to be joined; `start` as in `message_parts`."""
    tensors = {"indices": result.indices, "output": result.output}
    return message_parts(pb.ForwardResponse, b"", tensors, places, start)


def decode_forward_response(data: Buffer, regions: Regions = NO_REGIONS) -> ForwardResult:
    """The result in a ForwardResponse, or in shared memory; its arrays are read-only views."""
    result = FORWARD_RESULTS.find(data, 0, len(data))
    if result is None:
        result = forward_result(parse(pb.ForwardResponse, data)._replace(regions=regions))
        FORWARD_RESULTS.keep(data, 0, len(data), result)
    return result


def forward_result(parsed: Parsed[pb.ForwardResponse]) -> ForwardResult:
    """The result in a ForwardResponse, as `decode_forward_response` has it."""
    response = parsed.message
    indices = _tensor(*parsed, "indices") if response.HasField("indices") else None
    return ForwardResult(_tensor(*parsed, "output"), indices)


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


def decode_backward_request(data: Buffer, regions: Regions = NO_REGIONS) -> BackwardCall:
    """What a BackwardRequest asks; its tensors are read-only views.

    Args:
        regions: of memory shared with the caller, where its tensors may be.

    Raises:
        InvalidSpecError, InvalidTensorError, UnsupportedError: the request is wrong.
    """
    call = BACKWARD_CALLS.find(data, 0, len(data))
    if call is None:
        call = backward_call(parse(pb.BackwardRequest, data)._replace(regions=regions))
        BACKWARD_CALLS.keep(data, 0, len(data), call)
    return call


def backward_call(parsed: Parsed[pb.BackwardRequest]) -> BackwardCall:
    """What a BackwardRequest asks, as `decode_backward_request` has it."""
    request = parsed.message
    residual = request.WhichOneof("residual")
    number = request.index_format
    return BackwardCall(
        output_gradient=_required_tensor(*parsed, "output_gradient"),
        spec=required_spec(request),
        input_shape=decode_shape(request.input_shape, "input_shape") or None,
        indices=_tensor(*parsed, "indices") if residual == "indices" else None,
        input=_tensor(*parsed, "input") if residual == "input" else None,
        index_format=INDEX_FORMATS.name(number, "index_format") if number else None,
        places=_places(request),
    )


def encode_backward_response(gradient: Array, places: Places = NO_PLACES) -> bytes:
    """The bytes of a BackwardResponse; a gradient that has a place is not sent."""
    return b"".join(backward_response_parts(gradient, places))


def backward_response_parts(gradient: Array, places: Places = NO_PLACES, start: int = 0) -> Parts:
    """The bytes of a BackwardResponse, to be joined; `start` as in `message_parts`."""
    return message_parts(pb.BackwardResponse, b"", {"input_gradient": gradient}, places, start)


def decode_backward_response(data: Buffer, regions: Regions = NO_REGIONS) -> Array:
    """The gradient in a BackwardResponse, or in shared memory, as a read-only view."""
    gradient = GRADIENTS.find(data, 0, len(data))
    if gradient is None:
        gradient = backward_result(parse(pb.BackwardResponse, data)._replace(regions=regions))
        GRADIENTS.keep(data, 0, len(data), gradient)
    return gradient


def backward_result(parsed: Parsed[pb.BackwardResponse]) -> Array:
    """The gradient in a BackwardResponse, as `decode_backward_response` has it."""
    return _tensor(*parsed, "input_gradient")


def _required_tensor(message: Any, payloads: Payloads, regions: Regions, field: str) -> Array:
    if not message.HasField(field):
        raise InvalidTensorError(f"{field} is missing", field=field)
    return _tensor(message, payloads, regions, field)


def _tensor(message: Any, payloads: Payloads, regions: Regions, field: str) -> Array:
    tensor = getattr(message, field)
    if not tensor.HasField("shared"):
        return decode_tensor(tensor, field, payloads.get(field))
    array = decode_shared_tensor(tensor, field, payloads.get(field), regions)
    # Indices are checked before they are used, and the caller could change them in between.
    return array.copy() if field == INDICES else array


def _encode_places(type_: Any, places: Places) -> bytes:
    """The part of a request that says where to put results."""
    fields = type_.DESCRIPTOR.fields_by_name
    named = {f"{name}_place": places[name].message() for name in RESULTS if name in places}
    here = {name: place for name, place in named.items() if name in fields}
    return type_(**here).SerializeToString() if here else b""


def _places(request: Any) -> Places:
    return {
        name: decode_place(getattr(request, f"{name}_place"))
        for name in RESULTS
        if f"{name}_place" in request.DESCRIPTOR.fields_by_name
        and request.HasField(f"{name}_place")
    }


def required_spec(request: Any) -> PoolSpec:
    """The spec of a request.

    Raises:
        InvalidSpecError: it is missing, or wrong.
    """
    if not request.HasField("spec"):
        raise InvalidSpecError("spec is missing", field="spec")
    return decode_spec(request.spec)


def _like_forward_call(call: ForwardCall) -> Likeness[ForwardCall] | None:
    if call.places:
        return None
    make = partial(
        ForwardCall,
        spec=call.spec,
        return_indices=call.return_indices,
        index_format=call.index_format,
    )
    return make, {"input": call.input}


def _like_backward_call(call: BackwardCall) -> Likeness[BackwardCall] | None:
    if call.places:
        return None
    make = partial(
        BackwardCall,
        spec=call.spec,
        input_shape=call.input_shape,
        index_format=call.index_format,
    )
    tensors = ("output_gradient", "indices", "input")
    return make, {name: getattr(call, name) for name in tensors}


def _like_forward_result(result: ForwardResult) -> Likeness[ForwardResult]:
    make = ForwardResult if result.indices is not None else partial(ForwardResult, indices=None)
    return make, result._asdict()


def _like_gradient(gradient: Array) -> Likeness[Array]:
    return lambda input_gradient: input_gradient, {"input_gradient": gradient}


FORWARD_CALLS = Forms(pb.ForwardRequest, _like_forward_call)
BACKWARD_CALLS = Forms(pb.BackwardRequest, _like_backward_call)
FORWARD_RESULTS = Forms(pb.ForwardResponse, _like_forward_result)
GRADIENTS = Forms(pb.BackwardResponse, _like_gradient)
