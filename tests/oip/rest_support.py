"""Requests of the Open Inference Protocol over REST, made by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.http.support import Reply, send
from tests.oip.translation import Request

DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "INT32": "<i4", "INT16": "<i2"}
DTYPES |= {"INT8": "i1", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4"}
JSON_SIZE = "inference-header-content-length"

Tensors = dict[str, tuple[str, list[int], bytes]]


class RestError(Exception):
    """Status and text of an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


def post(address: str, model: str, body: bytes | dict[str, Any], **headers: str) -> Reply:
    """Send the body of a request to a model."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return send(address, f"/v2/models/{model}/infer", data, sent)


def binary(address: str, request: Request) -> Tensors:
    """Return the outputs of a request whose tensors are binary in both directions."""
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(data)},
        }
        for name, (datatype, shape, data) in request.inputs.items()
    ]
    record = _record(request, inputs, {"binary_data_output": True})
    head = json.dumps(record).encode()
    body = b"".join([head, *(data for _, _, data in request.inputs.values())])
    headers = {JSON_SIZE: str(len(head))}
    return outputs_of(post(address, request.model, body, **headers))


def with_json(address: str, request: Request, *, is_nested: bool) -> Tensors:
    """Return the outputs of a request whose tensors are JSON in both directions."""
    inputs = []
    for name, (datatype, shape, data) in request.inputs.items():
        array = np.frombuffer(data, DTYPES[datatype])
        elements = (array.reshape(shape) if is_nested else array).tolist()
        inputs.append({"name": name, "datatype": datatype, "shape": shape, "data": elements})
    return outputs_of(post(address, request.model, _record(request, inputs, {})))


def _record(request: Request, inputs: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    record = {"parameters": request.parameters | parameters, "inputs": inputs}
    return record | ({"outputs": [{"name": n} for n in request.outputs]} if request.outputs else {})


def outputs_of(reply: Reply) -> Tensors:
    """Return the outputs of a reply.

    Raises:
        RestError: the reply is an error.
    """
    if reply.status != 200:
        record = json.loads(reply.body)
        assert record.keys() == {"error"}
        raise RestError(reply.status, record["error"])
    size = int(reply.headers.get(JSON_SIZE, len(reply.body)))
    record, rest = json.loads(reply.body[:size]), reply.body[size:]
    tensors: Tensors = {}
    for output in record["outputs"]:
        if "data" in output:
            data = np.array(output["data"], DTYPES[output["datatype"]]).tobytes()
        else:
            count = output["parameters"]["binary_data_size"]
            data, rest = rest[:count], rest[count:]
        tensors[output["name"]] = output["datatype"], output["shape"], data
    assert not rest
    return tensors
