"""Requests and replies of ModelInfer, over gRPC and as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_loadtest.oip import proto
from pooling_loadtest.oip.requests import InferRequest

Array = NDArray[Any]
_PARAMETERS = {bool: "bool", int: "int64", float: "double", str: "string"}
_NAMES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def encode_grpc(infer: InferRequest) -> bytes:
    """Return a ModelInferRequest with raw contents."""
    request = proto.ModelInferRequest(model_name=infer.model)
    for name, value in infer.parameters.items():
        entry = request.parameters.add(key=name)
        setattr(entry.value, f"{_PARAMETERS[type(value)]}_param", value)
    for name, array in infer.inputs.items():
        request.inputs.add(name=name, datatype=_NAMES[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    for name in infer.outputs:
        request.outputs.add(name=name)
    return bytes(request.SerializeToString())


def decode_grpc(reply: bytes) -> tuple[Array, ...]:
    """Return the outputs in a ModelInferResponse with raw contents."""
    response = proto.ModelInferResponse.FromString(reply)
    return tuple(
        np.frombuffer(raw, _DTYPES[output.datatype]).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    )


def encode_json(infer: InferRequest) -> bytes:
    """Return the body of an inference request over REST."""
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _NAMES[array.dtype.name],
            "data": array.ravel().tolist(),
        }
        for name, array in infer.inputs.items()
    ]
    body: dict[str, Any] = {"inputs": inputs}
    if infer.parameters:
        body["parameters"] = infer.parameters
    if infer.outputs:
        body["outputs"] = [{"name": name} for name in infer.outputs]
    return json.dumps(body).encode()


def decode_json(body: bytes) -> tuple[Array, ...]:
    """Return the outputs in the body of a reply over REST."""
    return tuple(
        np.array(output["data"], _DTYPES[output["datatype"]]).reshape(output["shape"])
        for output in json.loads(body)["outputs"]
    )
