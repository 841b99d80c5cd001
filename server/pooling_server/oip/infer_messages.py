"""Codec of ModelInfer over gRPC: request bytes to a call, and its results to reply bytes.

The elements in `raw_input_contents` are views of the message, and results are copied once into the
reply.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine import (
    BackwardCall,
    ForwardCall,
    InvalidSpecError,
    InvalidTensorError,
    PoolingError,
)
from pooling_server.oip.datatypes import (
    DATATYPES,
    DTYPES,
    RAW_ONLY,
    checked_shape,
    dtype_of,
    raw_array,
)
from pooling_server.oip.inference import (
    Inference,
    Parameter,
    call_of,
    check_input_names,
    check_tensor_parameters,
    named_results,
)
from pooling_server.oip.messages import message_class, parse
from pooling_server.oip.models import VERSION
from pooling_server.oip.statistics import RequestTimer, Statistics
from pooling_wire import field_start, split_fields
from pooling_wire.shared_memory import NO_PLACES, Placed, Places, Regions

Array = NDArray[Any]

_RAW_INPUTS, _RAW_OUTPUTS, _INFER_RESPONSE = 7, 6, 2
_CACHED_BYTES = 1024
# The field of InferTensorContents for each datatype.
_CONTENTS = {
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


class _Input(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]
    array: Array | None  # None if its elements are in `raw_input_contents`


class _Head(NamedTuple):
    """A request without `raw_input_contents`."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Parameter]
    inputs: tuple[_Input, ...]
    outputs: tuple[str, ...]


class InferExchange:
    """One request and its reply, with the methods of `pooling_wire.Method` that a call needs.

    Args:
        statistics: counts the requests of each model.

    Attributes:
        size_field: the input that determines the sizes of the call.
    """

    def __init__(self, statistics: Statistics) -> None:
        self.size_field = "input"
        self._timer = RequestTimer(statistics)
        self._request = Inference("", "", "", {}, {}, ())

    def decode_request(self, data: bytes, regions: Regions) -> Placed[Any]:
        """Return the call in a ModelInferRequest; its tensors are read-only views if possible.

        Raises:
            PoolingError: the request is invalid.
        """
        self._request = _decode(data)
        try:
            return Placed(self._call(), NO_PLACES)
        except PoolingError:
            self._timer.end(is_success=False)
            raise

    def decode_item(self, data: bytes, regions: Regions) -> tuple[int, Any, int, Places]:
        """Return the call in an item of a stream, or why it is invalid, beside zeros."""
        try:
            self._request = _decode(data)
            return 0, self._call(), 0, NO_PLACES
        except PoolingError as error:
            if not self._request.model_name:
                self._request = _named(data)
            return 0, error, 0, NO_PLACES

    def encode_response(self, result: Any, places: Places = NO_PLACES) -> bytes:
        """Return the bytes of a ModelInferResponse."""
        return b"".join(self._parts(result))

    def encode_reply(self, id_: int, result: Any, places: Places = NO_PLACES) -> bytes:
        """Return the bytes of a ModelStreamInferResponse: a result or an error."""
        if isinstance(result, PoolingError):
            self._timer.end(is_success=False)
            reply = message_class("ModelStreamInferResponse")(error_message=str(result))
            reply.infer_response.id = self._request.id
            reply.infer_response.model_name = self._request.model_name
            data: bytes = reply.SerializeToString()
            return data
        parts = self._parts(result)
        return b"".join([field_start(_INFER_RESPONSE, sum(map(len, parts))), *parts])

    def _call(self) -> ForwardCall | BackwardCall:
        self._timer.name = self._request.model_name
        call = call_of(self._request)
        if isinstance(call, BackwardCall):
            self.size_field = "input_shape"
        return call

    def _parts(self, result: Any) -> list[bytes | memoryview]:
        self._timer.end(is_success=True)
        arrays = named_results(self._request, result)
        tensors = tuple((name, array.dtype, array.shape) for name, array in arrays.items())
        parts: list[bytes | memoryview] = [
            _response_head(self._request.model_name, self._request.id, tensors)
        ]
        for array in arrays.values():
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            parts += (field_start(_RAW_OUTPUTS, len(data)), data)
        return parts


@lru_cache(maxsize=512)
def _response_head(
    model_name: str, id_: str, tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]
) -> bytes:
    reply = message_class("ModelInferResponse")(
        model_name=model_name, model_version=VERSION, id=id_
    )
    for name, dtype, shape in tensors:
        reply.outputs.add(name=name, datatype=DATATYPES[dtype], shape=shape)
    data: bytes = reply.SerializeToString()
    return data


def _decode(data: bytes) -> Inference:
    rest, raw = split_fields(data, _RAW_INPUTS)
    head = _cached_head(rest) if len(rest) <= _CACHED_BYTES else _head(rest)
    waiting = [each for each in head.inputs if each.array is None]
    if raw and len(waiting) != len(head.inputs):
        typed = next(n for n, each in enumerate(head.inputs) if each.array is not None)
        raise InvalidTensorError(
            f"inputs[{typed}].contents and raw_input_contents are both given; "
            "a request must have one of them",
            field=f"inputs[{typed}].contents",
        )
    if raw and len(raw) != len(waiting):
        raise InvalidTensorError(
            f"raw_input_contents has {len(raw)} entries for {len(waiting)} inputs",
            field="raw_input_contents",
        )
    arrays = {}
    for number, each in enumerate(head.inputs):
        if each.array is not None:
            arrays[each.name] = each.array
            continue
        data_ = raw[number] if raw else b""
        source = f"raw_input_contents[{number}]" if raw else f"inputs[{number}].contents"
        arrays[each.name] = raw_array(data_, each.datatype, each.shape, f"inputs[{number}]", source)
    return Inference(
        head.model_name, head.model_version, head.id, head.parameters, arrays, head.outputs
    )


def _named(data: bytes) -> Inference:
    """Return the model and the id of an invalid request, for its reply."""
    try:
        message = parse("ModelInferRequest", data)
    except InvalidTensorError:
        return Inference("", "", "", {}, {}, ())
    return Inference(message.model_name, "", message.id, {}, {}, ())


def _head(data: bytes) -> _Head:
    message = parse("ModelInferRequest", data)
    inputs = tuple(_input(each, number) for number, each in enumerate(message.inputs))
    check_input_names([each.name for each in inputs])
    for number, output in enumerate(message.outputs):
        check_tensor_parameters(output.parameters, f"outputs[{number}]")
    return _Head(
        message.model_name,
        message.model_version,
        message.id,
        {name: _parameter(name, value) for name, value in message.parameters.items()},
        inputs,
        tuple(dict.fromkeys(output.name for output in message.outputs)),
    )


_cached_head = lru_cache(maxsize=512)(_head)  # most requests differ in their raw contents only


def _parameter(name: str, value: Any) -> Parameter:
    kind = value.WhichOneof("parameter_choice")
    if kind is None:
        raise InvalidSpecError(
            f"parameter {name!r} has no value; it must be a bool, an integer, a float or text",
            field=f"parameters.{name}",
        )
    parameter: Parameter = getattr(value, kind)
    return parameter


def _input(tensor: Any, number: int) -> _Input:
    field = f"inputs[{number}]"
    check_tensor_parameters(tensor.parameters, field)
    dtype_of(tensor.datatype, field)
    shape = checked_shape(tensor.shape, field)
    array = None
    if tensor.HasField("contents"):
        array = _typed_array(tensor.contents, tensor.datatype, shape, field)
    return _Input(tensor.name, tensor.datatype, shape, array)


def _typed_array(contents: Any, datatype: str, shape: tuple[int, ...], field: str) -> Array:
    if datatype in RAW_ONLY:
        raise InvalidTensorError(
            f"{field}.contents cannot hold {datatype}; send it in raw_input_contents",
            field=f"{field}.contents",
        )
    name = _CONTENTS[datatype]
    for other, _ in contents.ListFields():
        if other.name != name:
            raise InvalidTensorError(
                f"{field}.contents has {other.name}; {datatype} has {name}",
                field=f"{field}.contents.{other.name}",
            )
    source = f"{field}.contents.{name}"
    values = np.array(getattr(contents, name))
    dtype, expected = DTYPES[datatype], int(np.prod(shape, dtype=object))
    if values.size != expected:
        raise InvalidTensorError(
            f"{source} has {values.size} elements; shape {list(shape)} takes {expected}",
            field=source,
        )
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise InvalidTensorError(
                f"{source} has elements outside the range of {datatype}", field=source
            )
    return values.astype(dtype).reshape(shape)
