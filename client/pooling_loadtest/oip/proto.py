"""Messages of the Open Inference Protocol over gRPC that a load test needs.

They lie in a private descriptor pool: in the default pool, a second copy of package `inference`
would break every process that also imports a client of Triton or KServe.

Field numbers: open_inference_grpc.proto of github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_DOUBLE, _INT64, _BOOL, _STRING, _MESSAGE, _BYTES = (
    1,
    3,
    8,
    9,
    11,
    12,
)  # of FieldDescriptorProto.Type
_ONE, _MANY = 1, 3  # of FieldDescriptorProto.Label

_MESSAGES: dict[str, list[tuple[str, int, Any, int]]] = {
    "Tensor": [
        ("name", 1, _STRING, _ONE),
        ("datatype", 2, _STRING, _ONE),
        ("shape", 3, _INT64, _MANY),
    ],
    "Value": [
        ("bool_param", 1, _BOOL, _ONE),
        ("int64_param", 2, _INT64, _ONE),
        ("string_param", 3, _STRING, _ONE),
        ("double_param", 4, _DOUBLE, _ONE),
    ],
    "Parameter": [("key", 1, _STRING, _ONE), ("value", 2, "Value", _ONE)],  # entry of a map
    "RequestedOutput": [("name", 1, _STRING, _ONE)],
    "ModelInferRequest": [
        ("model_name", 1, _STRING, _ONE),
        ("parameters", 4, "Parameter", _MANY),
        ("inputs", 5, "Tensor", _MANY),
        ("outputs", 6, "RequestedOutput", _MANY),
        ("raw_input_contents", 7, _BYTES, _MANY),
    ],
    "ModelInferResponse": [
        ("model_name", 1, _STRING, _ONE),
        ("outputs", 5, "Tensor", _MANY),
        ("raw_output_contents", 6, _BYTES, _MANY),
    ],
    "ModelMetadataRequest": [("name", 1, _STRING, _ONE)],
    "ModelMetadataResponse": [
        ("name", 1, _STRING, _ONE),
        ("inputs", 4, "Tensor", _MANY),
        ("outputs", 5, "Tensor", _MANY),
    ],
}


def _classes() -> dict[str, Any]:
    # Syntax "proto2" sends parameters that are zero; on the wire the messages are those of proto3.
    file = descriptor_pb2.FileDescriptorProto(
        name="pooling_loadtest/oip.proto", package="inference", syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type = cast(Any, _MESSAGE)
                added.type_name = f".inference.{kind}"
            else:
                added.type = cast(Any, kind)
                if kind == _INT64 and label == _MANY:
                    added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
        for name in _MESSAGES
    }


_found = _classes()
Tensor = _found["Tensor"]
ModelInferRequest = _found["ModelInferRequest"]
ModelInferResponse = _found["ModelInferResponse"]
ModelMetadataRequest = _found["ModelMetadataRequest"]
ModelMetadataResponse = _found["ModelMetadataResponse"]
SERVICE = "/inference.GRPCInferenceService/"
