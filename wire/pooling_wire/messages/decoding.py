"""The bytes of requests and replies to calls and results: what each says, in the engine's terms.

Requests and replies are bytes here: parsing belongs to the handler, which can say
INVALID_ARGUMENT, and not to the transport, which cannot.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pooling_engine import (
    ForwardResult,
    IndexFormat,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
)
from pooling_wire.enums import INDEX_FORMATS
from pooling_wire.messages.calls import Array, BackwardCall, ForwardCall
from pooling_wire.messages.specs import decode_spec
from pooling_wire.payloads.message_cache import MessageCache, Template
from pooling_wire.payloads.parsing import Buffer, Parsed, Payloads, parse
from pooling_wire.payloads.tensors import decode_shape, decode_shared_tensor, decode_tensor
from pooling_wire.shared_memory.places import (
    INDICES,
    NO_REGIONS,
    RESULTS,
    Places,
    Regions,
    decode_place,
)
from pooling_wire.v1 import pooling_pb2 as pb


def decode_forward_request(data: Buffer, regions: Regions = NO_REGIONS) -> ForwardCall:
    """What a ForwardRequest asks; its tensor is a read-only view.

    Args:
        regions: of memory shared with the caller, where its tensor may be.

    Raises:
        InvalidSpecError, InvalidTensorError, UnsupportedError: the request is wrong.
    """
    return FORWARD_CALLS.get_or_decode(
        data, lambda: forward_call(parse(pb.ForwardRequest, data)._replace(regions=regions))
    )


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


def decode_forward_response(data: Buffer, regions: Regions = NO_REGIONS) -> ForwardResult:
    """The result in a ForwardResponse, or in shared memory; its arrays are read-only views."""
    return FORWARD_RESULTS.get_or_decode(
        data, lambda: forward_result(parse(pb.ForwardResponse, data)._replace(regions=regions))
    )


def forward_result(parsed: Parsed[pb.ForwardResponse]) -> ForwardResult:
    """The result in a ForwardResponse, as `decode_forward_response` has it."""
    response = parsed.message
    indices = _tensor(*parsed, "indices") if response.HasField("indices") else None
    return ForwardResult(_tensor(*parsed, "output"), indices)


def decode_backward_request(data: Buffer, regions: Regions = NO_REGIONS) -> BackwardCall:
    """What a BackwardRequest asks; its tensors are read-only views.

    Args:
        regions: of memory shared with the caller, where its tensors may be.

    Raises:
        InvalidSpecError, InvalidTensorError, UnsupportedError: the request is wrong.
    """
    return BACKWARD_CALLS.get_or_decode(
        data, lambda: backward_call(parse(pb.BackwardRequest, data)._replace(regions=regions))
    )


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


def decode_backward_response(data: Buffer, regions: Regions = NO_REGIONS) -> Array:
    """The gradient in a BackwardResponse, or in shared memory, as a read-only view."""
    return GRADIENTS.get_or_decode(
        data, lambda: backward_result(parse(pb.BackwardResponse, data)._replace(regions=regions))
    )


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


def _template_of_forward_call(call: ForwardCall) -> Template[ForwardCall] | None:
    if call.places:
        return None
    make = partial(
        ForwardCall,
        spec=call.spec,
        return_indices=call.return_indices,
        index_format=call.index_format,
    )
    return Template(make, {"input": call.input})


def _template_of_backward_call(call: BackwardCall) -> Template[BackwardCall] | None:
    if call.places:
        return None
    make = partial(
        BackwardCall,
        spec=call.spec,
        input_shape=call.input_shape,
        index_format=call.index_format,
    )
    tensors = ("output_gradient", "indices", "input")
    return Template(make, {name: getattr(call, name) for name in tensors})


def _template_of_forward_result(result: ForwardResult) -> Template[ForwardResult]:
    make = ForwardResult if result.indices is not None else partial(ForwardResult, indices=None)
    return Template(make, result._asdict())


def _template_of_gradient(gradient: Array) -> Template[Array]:
    return Template(lambda input_gradient: input_gradient, {"input_gradient": gradient})


FORWARD_CALLS = MessageCache(pb.ForwardRequest, _template_of_forward_call)
BACKWARD_CALLS = MessageCache(pb.BackwardRequest, _template_of_backward_call)
FORWARD_RESULTS = MessageCache(pb.ForwardResponse, _template_of_forward_result)
GRADIENTS = MessageCache(pb.BackwardResponse, _template_of_gradient)
