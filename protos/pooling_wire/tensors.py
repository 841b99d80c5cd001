"""Tensors: arrays to messages and messages to read-only views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine import InvalidTensorError
from pooling_wire.enums import element_dtype, element_type_number
from pooling_wire.v1 import pooling_pb2 as pb

MAX_AXES = 8


def encode_tensor(array: NDArray[Any]) -> pb.Tensor:
    """The message of an array: little-endian, row-major, whatever the array's own order."""
    number = element_type_number(array.dtype)
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return pb.Tensor(element_type=number, shape=array.shape, data=data)


def decode_tensor(message: pb.Tensor, field: str) -> NDArray[Any]:
    """A read-only view of a message's bytes; `field` is the message's path in the request.

    Raises:
        InvalidTensorError: type, shape or length are wrong.
        UnsupportedError: the element type is legal, but not built yet.
    """
    dtype = element_dtype(message.element_type, f"{field}.element_type")
    shape = decode_shape(message.shape, f"{field}.shape")
    data = message.data  # every read of the field makes a copy: one only
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidTensorError(
            f"{field}.data has {len(data)} bytes; shape {shape} of {dtype.name} takes {expected}",
            field=f"{field}.data",
        )
    return np.frombuffer(data, dtype).reshape(shape)


def decode_shape(sizes: Any, field: str) -> tuple[int, ...]:
    """The sizes of a message as a tuple.

    Raises:
        InvalidTensorError: there are too many, or one is negative.
    """
    shape = tuple(sizes)
    if len(shape) > MAX_AXES:
        raise InvalidTensorError(
            f"{field} has {len(shape)} axes; at most {MAX_AXES} are legal", field=field
        )
    if any(size < 0 for size in shape):
        raise InvalidTensorError(f"{field} is {shape}; no size may be negative", field=field)
    return shape
