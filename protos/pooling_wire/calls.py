"""Calls and results: what each request and reply says, in the engine's terms.

Requests and replies are bytes here: parsing belongs to the handler, which can say
INVALID_ARGUMENT, and not to the transport, which cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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


def forward_request_parts(call: ForwardCall) -> Parts:
    """The bytes of a ForwardRequest, to be joined."""
    request = pb.ForwardRequest(
        spec=encode_spec(call.spec, call.input.ndim - 2), return_indices=call.return_indices
    )
    if call.return_indices:
        request.index_format = INDEX_FORMATS.number(call.index_format)
    _add_places(request, call.places)
    return message_parts(request, {"input": call.input}, call.places)


def decode_forward_request(data: Buffer, regions: Regions = NO_REGIONS) -> ForwardCall:
    """What a ForwardRequest asks; its tensor is a read-only view.

    Args:
        regions: of memory shared with the caller, where its tensor may be.

    Raises:
        InvalidSpecError, InvalidTensorError, UnsupportedError: the request is wrong.
    """
    return forward_call(parse(pb.ForwardRequest, data)._replace(regions=regions))


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


def forward_response_parts(result: ForwardResult, places: Places = NO_PLACES) -> Parts:
    """The bytes of a ForwardResponse, to be joined."""
    tensors = {"indices": result.indices, "output": result.output}
    return message_parts(pb.ForwardResponse(), tensors, places)


def decode_forward_response(data: Buffer, regions: Regions = NO_REGIONS) -> ForwardResult:
    """The result in a ForwardResponse, or in shared memory; its arrays are read-only views."""
    return forward_result(parse(pb.ForwardResponse, data)._replace(regions=regions))


def forward_result(parsed: Parsed[pb.ForwardResponse]) -> ForwardResult:
    """The result in a ForwardResponse, as `decode_forward_response` has it."""
    response = parsed.message
    indices = _tensor(*parsed, "indices") if response.HasField("indices") else None
    return ForwardResult(_tensor(*parsed, "output"), indices)


def encode_backward_request(call: BackwardCall) -> bytes:
    """The bytes of a BackwardRequest."""
    return b"".join(backward_request_parts(call))


def backward_request_parts(call: BackwardCall) -> Parts:
    """The bytes of a BackwardRequest, to be joined."""
    request = pb.BackwardRequest(
        spec=encode_spec(call.spec, call.output_gradient.ndim - 2), input_shape=call.input_shape
    )
    if call.index_format is not None:
        request.index_format = INDEX_FORMATS.number(call.index_format)
    tensors = {
        "indices": call.indices,
        "input": call.input,
        "output_gradient": call.output_gradient,
    }
    _add_places(request, call.places)
    return message_parts(request, tensors, call.places)


def decode_backward_request(data: Buffer, regions: Regions = NO_REGIONS) -> BackwardCall:
    """What a BackwardRequest asks; its tensors are read-only views.

    Args:
        regions: of memory shared with the caller, where its tensors may be.

    Raises:
        InvalidSpecError, InvalidTensorError, UnsupportedError: the request is wrong.
    """
    return backward_call(parse(pb.BackwardRequest, data)._replace(regions=regions))


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


def backward_response_parts(gradient: Array, places: Places = NO_PLACES) -> Parts:
    """The bytes of a BackwardResponse, to be joined."""
    return message_parts(pb.BackwardResponse(), {"input_gradient": gradient}, places)


def decode_backward_response(data: Buffer, regions: Regions = NO_REGIONS) -> Array:
    """The gradient in a BackwardResponse, or in shared memory, as a read-only view."""
    return backward_result(parse(pb.BackwardResponse, data)._replace(regions=regions))


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


def _add_places(request: Any, places: Places) -> None:
    for name in RESULTS:
        if name in places and f"{name}_place" in request.DESCRIPTOR.fields_by_name:
            getattr(request, f"{name}_place").CopyFrom(places[name].message())


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
