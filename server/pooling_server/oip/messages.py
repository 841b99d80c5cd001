"""Message classes of the Open Inference Protocol.

They are in a descriptor pool of their own: the generated code of other packages, such as
tritonclient, registers the same names in protobuf's default pool, and both would fail there.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from pooling_engine import InvalidTensorError

SERVICE_NAME = "inference.GRPCInferenceService"

_POOL = descriptor_pool.DescriptorPool()
_FILES = resources.files("pooling_server.oip").joinpath("open_inference.binpb").read_bytes()
for _file in descriptor_pb2.FileDescriptorSet.FromString(_FILES).file:
    _POOL.Add(_file)


@cache
def message_class(name: str) -> Any:
    """Return the class of a message, such as "ModelInferRequest"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


def parse(name: str, data: bytes) -> Any:
    """Return the message in bytes.

    Raises:
        InvalidTensorError: the bytes are not such a message.
    """
    try:
        return message_class(name).FromString(data)
    except DecodeError:
        raise InvalidTensorError(
            f"the {len(data)} bytes of the message cannot be parsed as inference.{name}"
        ) from None
