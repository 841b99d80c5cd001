"""Requests of the Open Inference Protocol over gRPC, made by hand."""

from __future__ import annotations

from typing import Any

import grpc

from pooling_server.oip.messages import message_class
from tests.oip.translation import Request
from tests.server.support import details_of

SERVICE = "/inference.GRPCInferenceService"
LIMIT_S = 30


def message_of(request: Request, id_: str = "") -> Any:
    """Return a ModelInferRequest with raw contents."""
    message = message_class("ModelInferRequest")(model_name=request.model, id=id_)
    for name, value in request.parameters.items():
        kind = {bool: "bool", int: "int64", str: "string", float: "double"}[type(value)]
        setattr(message.parameters[name], f"{kind}_param", value)
    for name, (datatype, shape, data) in request.inputs.items():
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_input_contents.append(data)
    for name in request.outputs:
        message.outputs.add(name=name)
    return message


def call(channel: grpc.Channel, name: str, message: Any = None, **options: Any) -> Any:
    """Call a unary method; without a message, send an empty one."""
    data = b"" if message is None else message
    data = data if isinstance(data, bytes) else data.SerializeToString()
    reply = channel.unary_unary(f"{SERVICE}/{name}")(data, timeout=LIMIT_S, **options)
    return message_class(f"{name}Response").FromString(reply)


def infer(channel: grpc.Channel, message: Any, **options: Any) -> Any:
    """Call ModelInfer."""
    return call(channel, "ModelInfer", message, **options)


def outputs_of(reply: Any) -> dict[str, tuple[str, list[int], bytes]]:
    """Return the outputs of a reply by name, in the form of the inputs of a request."""
    assert len(reply.outputs) == len(reply.raw_output_contents)
    return {
        output.name: (output.datatype, list(output.shape), data)
        for output, data in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def record_of(error: grpc.RpcError) -> dict[str, str]:
    """Return the code, the reason and the field of a status."""
    info = details_of(error)["ErrorInfo"]
    field = info.metadata.get("field", "")
    return {"code": error.code().name, "reason": info.reason, "field": field}
