"""Codecs of ForwardRequest and ForwardResponse."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, TypeAlias

from numpy.typing import NDArray

from pooling_engine import (
    ForwardAllCall,
    ForwardCall,
    ForwardResult,
    IndexFormat,
    InvalidSpecError,
    PoolSpec,
    UnsupportedError,
)
from pooling_engine.calls import check_layer_count, checked_layer, result_prefix
from pooling_wire.enums import INDEX_FORMATS
from pooling_wire.errors import field_path
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
from pooling_wire.payloads.tensors import Parts, field_start, message_parts
from pooling_wire.shared_memory.places import INDICES, NO_PLACES, Placed, Places
from pooling_wire.v1 import pooling_pb2 as pb

AnyCall: TypeAlias = ForwardCall | ForwardAllCall
AnyResult: TypeAlias = ForwardResult | tuple[ForwardResult, ...]
_MORE = pb.ForwardResponse.MORE_FIELD_NUMBER


def _request_parts(call: AnyCall, places: Places) -> Parts:
    axes = call.input.ndim - 2
    layers = call.calls if isinstance(call, ForwardAllCall) else (call,)
    first, *more = layers
    head = _request_head(first.spec, axes, first.return_indices, first.index_format, False)
    for each in more:
        head += _request_head(each.spec, axes, each.return_indices, each.index_format, True)
    head += encode_places(pb.ForwardRequest, places)
    return message_parts(pb.ForwardRequest, head, {"input": call.input}, places)


@lru_cache(maxsize=512)
def _request_head(
    spec: PoolSpec,
    spatial_axes: int,
    return_indices: bool,
    index_format: IndexFormat,
    is_further: bool,
) -> bytes:
    request = pb.ForwardRequest()
    layer = request.more.add() if is_further else request
    layer.spec.CopyFrom(encode_spec(spec, spatial_axes))
    layer.return_indices = return_indices
    if return_indices:
        layer.index_format = INDEX_FORMATS.number(index_format)
    return request.SerializeToString()


def _request(parsed: Parsed[pb.ForwardRequest]) -> Placed[AnyCall]:
    request = parsed.message
    call = _layer(required_tensor(parsed, "input"), request)
    places = decode_places(request)
    if request.more:
        if places:
            name = next(iter(places))
            raise UnsupportedError(
                f"{name}_place is set, but `more` is not empty; results of several layers have no "
                "locations in shared memory",
                field=f"{name}_place",
            )
        return Placed(_all_layers(call, request.more), places)
    is_window = call.return_indices and call.index_format is IndexFormat.WINDOW
    if INDICES in places and not is_window:
        raise InvalidSpecError(
            "indices_place applies only with return_indices, in the window format",
            field="indices_place",
        )
    return Placed(call, places)


def _layer(input: NDArray[Any], layer: Any) -> ForwardCall:  # noqa: A002  the contract's name
    """Return the call of a layer, which is a ForwardRequest or a ForwardLayer."""
    if layer.index_format and not layer.return_indices:
        raise InvalidSpecError(
            "index_format applies only with return_indices", field="index_format"
        )
    return ForwardCall(
        input,
        required_spec(layer),
        layer.return_indices,
        INDEX_FORMATS.name(layer.index_format, "index_format", default=IndexFormat.WINDOW),
    )


def _all_layers(first: ForwardCall, more: Any) -> ForwardAllCall:
    check_layer_count(len(more) + 1, "more")
    further = (
        checked_layer(f"more[{number}]", partial(_layer, first.input, layer), field_path)
        for number, layer in enumerate(more)
    )
    return ForwardAllCall((first, *further))


def _request_template(placed: Placed[AnyCall]) -> Template[Placed[AnyCall]] | None:
    call, places = placed
    if places:
        return None
    if isinstance(call, ForwardAllCall):
        return _template_of_all(call)
    spec, return_indices, index_format = call.spec, call.return_indices, call.index_format

    def make(input: NDArray[Any]) -> Placed[AnyCall]:  # noqa: A002  the contract's name
        return Placed(ForwardCall(input, spec, return_indices, index_format), NO_PLACES)

    return Template(make, {"input": call.input})


def _template_of_all(call: ForwardAllCall) -> Template[Placed[AnyCall]]:
    layers = [(each.spec, each.return_indices, each.index_format) for each in call.calls]

    def make(input: NDArray[Any]) -> Placed[AnyCall]:  # noqa: A002  the contract's name
        calls = tuple(ForwardCall(input, *layer) for layer in layers)
        return Placed(ForwardAllCall(calls), NO_PLACES)

    return Template(make, {"input": call.input})


def _response_parts(result: AnyResult, places: Places) -> Parts:
    if isinstance(result, ForwardResult):
        tensors = {"output": result.output, "indices": result.indices}
        return message_parts(pb.ForwardResponse, b"", tensors, places)
    first, *more = result
    parts: Parts = []
    for each in more:
        nested = message_parts(pb.ForwardLayerResult, b"", each._asdict())
        parts += [field_start(_MORE, sum(map(len, nested))), *nested]
    return parts + message_parts(pb.ForwardResponse, b"", first._asdict(), places)


def _response(parsed: Parsed[pb.ForwardResponse]) -> AnyResult:
    first = _layer_result(parsed)
    if not parsed.message.more:
        return first
    results = [first]
    for number, message in enumerate(parsed.message.more):
        prefix = result_prefix(number + 1)
        payloads = {
            name.removeprefix(prefix): payload
            for name, payload in parsed.payloads.items()
            if name.startswith(prefix)
        }
        results.append(_layer_result(Parsed(message, payloads, parsed.regions)))
    return tuple(results)


def _layer_result(parsed: Parsed[Any]) -> ForwardResult:
    indices = tensor(parsed, "indices") if parsed.message.HasField("indices") else None
    return ForwardResult(tensor(parsed, "output"), indices)


def _response_template(result: AnyResult) -> Template[AnyResult]:
    if not isinstance(result, ForwardResult):
        return _template_of_results(result)
    make = ForwardResult if result.indices is not None else partial(ForwardResult, indices=None)
    return Template(make, result._asdict())


def _template_of_results(results: tuple[ForwardResult, ...]) -> Template[AnyResult]:
    names = [
        {name: result_prefix(number) + name for name in ("output", "indices")}
        for number in range(len(results))
    ]

    def make(**arrays: Any) -> AnyResult:
        return tuple(ForwardResult(arrays[n["output"]], arrays.get(n["indices"])) for n in names)

    tensors = {
        named[name]: array
        for named, result in zip(names, results, strict=True)
        for name, array in result._asdict().items()
    }
    return Template(make, tensors)


FORWARD_REQUEST: MessageCodec[AnyCall, Placed[AnyCall]] = MessageCodec(
    pb.ForwardRequest, _request_parts, _request, _request_template
)
FORWARD_RESPONSE: MessageCodec[AnyResult, AnyResult] = MessageCodec(
    pb.ForwardResponse, _response_parts, _response, _response_template
)
