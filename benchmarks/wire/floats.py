"""Tensor message of the naive gRPC service: a shape and `repeated float`, defined in code."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def message_class() -> Any:
    """Return the class of ``message Floats { repeated int64 shape = 1; repeated float values = 2; }``."""  # noqa: E501
    file = descriptor_pb2.FileDescriptorProto(name="floats.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="Floats")
    for number, (name, kind) in enumerate(
        {"shape": _FIELD.TYPE_INT64, "values": _FIELD.TYPE_FLOAT}.items(), start=1
    ):
        message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Floats"))


Floats = message_class()


def encode(array: np.ndarray) -> Any:
    """Return the message of a tensor, converted number by number."""
    return Floats(shape=array.shape, values=array.ravel().tolist())


def decode(message: Any) -> np.ndarray:
    """Return the tensor of a message."""
    return np.array(message.values, np.float32).reshape(tuple(message.shape))
