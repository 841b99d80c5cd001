"""Codec of inference requests over REST: JSON, followed by the bytes of binary tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine import (
    BackwardCall,
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
from pooling_server.oip.json_fields import (
    flag_of,
    list_of,
    object_of,
    parameters_of,
    parsed,
    text_of,
)
from pooling_server.oip.models import VERSION, find_model
from pooling_server.oip.statistics import RequestTimer, Statistics
from pooling_wire.shared_memory import NO_PLACES, Placed, Places, Regions

Array = NDArray[Any]
_BINARY_OUTPUT = "binary_data_output"
_REQUEST = ("id", "parameters", "inputs", "outputs")
_INPUT = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT = ("name", "parameters")


class RestExchange:
    """One request over REST and its reply, with the methods that a call needs.

    Args:
        model_name: name of the model, from the path.
        model_version: its version, from the path.
        json_size: bytes of JSON before binary tensors; None if the whole body is JSON.
        statistics: counts the requests of each model.

    Attributes:
        size_field: the input that determines the sizes of the call.
        reply_json_size: bytes of JSON in the reply before binary tensors; None if all is JSON.
    """

    def __init__(
        self, model_name: str, model_version: str, json_size: int | None, statistics: Statistics
    ) -> None:
        self.size_field = "input"
        self.reply_json_size: int | None = None
        self._json_size = json_size
        self._timer = RequestTimer(statistics, model_name)
        self._request = Inference(model_name, model_version, "", {}, {}, ())
        self._binary: dict[str, bool] = {}
        self._is_binary = False

    def decode_request(self, data: bytes, regions: Regions) -> Placed[Any]:
        """Return the call in a body; its binary tensors are read-only views.

        Raises:
            PoolingError: the body is invalid.
        """
        try:
            find_model(self._request.model_name, self._request.model_version)
            self._decode(data)
            call = call_of(self._request)
        except PoolingError:
            self._timer.end(is_success=False)
            raise
        if isinstance(call, BackwardCall):
            self.size_field = "input_shape"
        return Placed(call, NO_PLACES)

    def encode_response(self, result: Any, places: Places = NO_PLACES) -> bytes:
        """Return the body of the reply.

        Raises:
            InvalidTensorError: JSON cannot express a result.
        """
        outputs, parts = [], []
        for name, array in named_results(self._request, result).items():
            output: dict[str, Any] = {
                "name": name,
                "datatype": DATATYPES[array.dtype],
                "shape": list(array.shape),
            }
            if self._binary.get(name, self._is_binary):
                parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
                output["parameters"] = {"binary_data_size": array.nbytes}
            else:
                output["data"] = _numbers(name, array)
            outputs.append(output)
        reply = {"model_name": self._request.model_name, "model_version": VERSION}
        if self._request.id:
            reply["id"] = self._request.id
        head = json.dumps({**reply, "outputs": outputs}, allow_nan=False).encode()
        if parts:
            self.reply_json_size = len(head)
        self._timer.end(is_success=True)
        return b"".join([head, *parts])

    def decode_item(self, data: bytes, regions: Regions) -> tuple[int, Any, int, Places]:
        """Not supported: REST has no streams."""
        raise NotImplementedError

    def encode_reply(self, id_: int, result: Any, places: Places = NO_PLACES) -> bytes:
        """Not supported: REST has no streams."""
        raise NotImplementedError

    def _decode(self, data: bytes) -> None:
        size = len(data) if self._json_size is None else self._json_size
        if size > len(data):
            raise InvalidTensorError(
                f"Inference-Header-Content-Length is {size}, but the body has {len(data)} bytes",
                field="Inference-Header-Content-Length",
            )
        request = object_of(parsed(data[:size]), "the request", _REQUEST, "")
        parameters = parameters_of(request, "parameters")
        self._is_binary = flag_of(parameters.pop(_BINARY_OUTPUT, False), _BINARY_OUTPUT)
        id_ = request.get("id", "")
        if not isinstance(id_, str):
            raise InvalidSpecError(f"id is {id_!r}; it must be text", field="id")
        inputs = self._inputs(request, memoryview(data)[size:])
        self._request = self._request._replace(
            id=id_, parameters=parameters, inputs=inputs, outputs=self._outputs(request)
        )

    def _inputs(self, request: Mapping[str, Any], rest: memoryview) -> dict[str, Array]:
        tensors = []
        for number, record in enumerate(list_of(request.get("inputs"), "inputs")):
            tensors.append(object_of(record, f"inputs[{number}]", _INPUT, f"inputs[{number}]"))
        names = [text_of(tensor, "name", f"inputs[{n}]") for n, tensor in enumerate(tensors)]
        check_input_names(names)
        arrays: dict[str, Array] = {}
        for number, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
            arrays[name], rest = _tensor(tensor, f"inputs[{number}]", rest)
        if len(rest):
            raise InvalidTensorError(
                f"the body has {len(rest)} bytes after the tensors that it describes",
                field="inputs",
            )
        return arrays

    def _outputs(self, request: Mapping[str, Any]) -> tuple[str, ...]:
        names = []
        for number, record in enumerate(list_of(request.get("outputs", []), "outputs")):
            field = f"outputs[{number}]"
            output = object_of(record, field, _OUTPUT, field)
            name = text_of(output, "name", field)
            parameters = _tensor_parameters(output, field)
            if "binary_data" in parameters:
                place = f"{field}.parameters.binary_data"
                self._binary[name] = flag_of(parameters["binary_data"], place)
            names.append(name)
        return tuple(dict.fromkeys(names))


def _tensor_parameters(record: Mapping[str, Any], field: str) -> dict[str, Parameter]:
    parameters = parameters_of(record, f"{field}.parameters")
    check_tensor_parameters(parameters, field)
    return parameters


def _tensor(tensor: Mapping[str, Any], field: str, rest: memoryview) -> tuple[Array, memoryview]:
    """Return the elements of an input, and the bytes after its own."""
    datatype = text_of(tensor, "datatype", field)
    dtype_of(datatype, field)
    shape = checked_shape(list_of(tensor.get("shape"), f"{field}.shape"), field)
    size = _tensor_parameters(tensor, field).get("binary_data_size")
    if size is None:
        return _json_array(tensor, datatype, shape, field), rest
    source = f"{field}.parameters.binary_data_size"
    if "data" in tensor:
        raise InvalidTensorError(
            f"{field}.data and {source} are both given; an input must have one of them",
            field=f"{field}.data",
        )
    if type(size) is not int or size < 0:
        raise InvalidTensorError(
            f"{source} is {size!r:.60}; it must be a number of bytes", field=source
        )
    if size > len(rest):
        raise InvalidTensorError(
            f"{source} is {size!r:.60}, but the body has {len(rest)} bytes left", field=source
        )
    return raw_array(rest[:size], datatype, shape, field, source), rest[size:]


def _json_array(
    tensor: Mapping[str, Any], datatype: str, shape: tuple[int, ...], field: str
) -> Array:
    """Return elements in JSON: nested as the shape, or flat."""
    source = f"{field}.data"
    data = list_of(tensor.get("data"), source)
    if datatype in RAW_ONLY:
        raise InvalidTensorError(
            f"JSON cannot hold {datatype}; send it as binary data", field=source
        )
    dtype, count = DTYPES[datatype], math.prod(shape)
    try:
        values = np.array(data) if count else np.zeros(np.shape(data), dtype)
    except ValueError:
        raise InvalidTensorError(f"{source} has lists of different lengths", field=source) from None
    if values.shape not in (shape, (count,)):
        raise InvalidTensorError(
            f"{source} has shape {list(values.shape)}; it must be {list(shape)}, or flat with "
            f"{count} elements",
            field=source,
        )
    if not _fits(values, dtype):
        raise InvalidTensorError(f"{source} has elements that {datatype} cannot hold", field=source)
    return values.astype(dtype).reshape(shape)


def _fits(values: Array, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return values.dtype.kind in "iuf" and bool(np.all(np.abs(values) <= largest))
    if values.dtype.kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    return not values.size or (values.min() >= limits.min and values.max() <= limits.max)


def _numbers(name: str, array: Array) -> list[Any]:
    """Return elements as flat numbers of JSON."""
    if DATATYPES[array.dtype] in RAW_ONLY:
        reason = f"is {DATATYPES[array.dtype]}"
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        reason = "has NaN or infinite elements"
    else:
        numbers: list[Any] = array.reshape(-1).tolist()
        return numbers
    raise InvalidTensorError(
        f"{name} {reason}, which JSON cannot hold; request it with the parameter binary_data",
        field=f"outputs.{name}",
    )
