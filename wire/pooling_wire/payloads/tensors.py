"""Tensors: arrays encoded to messages, and messages decoded to read-only views."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine import InvalidTensorError, TensorTooLargeError
from pooling_wire.enums import element_dtype, element_type_number
from pooling_wire.shared_memory.places import (
    NO_PLACES,
    Place,
    Places,
    Regions,
    array_at,
    decode_place,
)
from pooling_wire.v1 import pooling_pb2 as pb

MAX_AXES = 8
_MOST_ELEMENTS = (1 << 60) - 1  # of 8 bytes each, NumPy can address

Parts = list[bytes | memoryview]


def message_parts(
    type_: Any,
    head: bytes,
    tensors: Mapping[str, NDArray[Any] | None],
    places: Places = NO_PLACES,
) -> Parts:
    """Return a message with tensors, in parts to be joined.

    The joined bytes are those of the generated classes, but each payload is copied once. Protobuf
    copies it four times, which takes longer than pooling it.

    Args:
        type_: generated class of the message.
        head: the message without its tensors.
        tensors: the tensors by the name of their field; None for an absent one.
        places: locations of tensors in shared memory; of these, only the location is sent.

    Raises:
        InvalidTensorError: the contract has no such element type.
    """
    parts: Parts = [head]
    for name, number in _tensor_fields(type_):
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if name in places:
            shared = {name: _shared_tensor(tensor, places[name])}
            parts.append(type_(**shared).SerializeToString())
        else:
            parts += _tensor_field(number, tensor)
    return parts


@cache
def _tensor_fields(type_: Any) -> tuple[tuple[str, int], ...]:
    """Return name and number of the tensor fields of a message, in the order of numbers."""
    fields = type_.DESCRIPTOR.fields
    named = ((f.name, f.number) for f in fields if f.message_type is pb.Tensor.DESCRIPTOR)
    return tuple(sorted(named, key=lambda field: field[1]))


def _tensor_field(number: int, array: NDArray[Any]) -> Parts:
    """Return a tensor field, in parts to be joined."""
    start, dtype = _tensor_start(number, array.dtype, array.shape)
    return [start, np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data]


@lru_cache(maxsize=512)  # building it takes longer than pooling a small tensor
def _tensor_start(
    number: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> tuple[bytes, np.dtype[Any]]:
    """Return a tensor field up to its elements, and the element type on the wire."""
    header = pb.Tensor(element_type=element_type_number(dtype), shape=shape).SerializeToString()
    nbytes = math.prod(shape) * dtype.itemsize
    data_start = field_start(pb.Tensor.DATA_FIELD_NUMBER, nbytes) if nbytes else b""
    size = len(header) + len(data_start) + nbytes
    return field_start(number, size) + header + data_start, dtype.newbyteorder("<")


def _shared_tensor(array: NDArray[Any], place: Place) -> pb.Tensor:
    return pb.Tensor(
        element_type=element_type_number(array.dtype), shape=array.shape, shared=place.message()
    )


@lru_cache(maxsize=1024)
def field_start(number: int, length: int) -> bytes:
    """Return tag and length of a length-delimited field."""
    return varint(number << 3 | 2) + varint(length)


def varint(value: int) -> bytes:
    """Return an unsigned number as protobuf encodes it."""
    if value < 0x80:
        return bytes((value,))
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def decode_tensor(
    message: pb.Tensor, field: str, payload: memoryview | None = None
) -> NDArray[Any]:
    """Return a tensor as a read-only view of its elements, which may be unaligned.

    Args:
        message: the tensor.
        field: path of the tensor in the request.
        payload: the elements, if they are not in the message.

    Raises:
        InvalidTensorError: element type, shape or length are invalid.
        TensorTooLargeError: an empty tensor is too large along its other axes.
        UnsupportedError: the element type is not supported here.
    """
    dtype = element_dtype(message.element_type, f"{field}.element_type")
    shape = decode_shape(message.shape, f"{field}.shape")
    check_empty(shape, f"{field}.shape")
    data = message.data if payload is None else payload  # reading the field copies it
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidTensorError(
            f"{field}.data has {len(data)} bytes; shape {shape} of {dtype.name} takes {expected}",
            field=f"{field}.data",
        )
    return np.ndarray(shape, dtype, data)


def decode_shared_tensor(
    message: pb.Tensor, field: str, payload: memoryview | None, regions: Regions
) -> NDArray[Any]:
    """Return a tensor in shared memory as a read-only view.

    Args:
        message: the tensor.
        field: path of the tensor in the request.
        payload: elements that were sent, which is invalid.
        regions: the regions that the client may use.

    Raises:
        InvalidTensorError: element type, shape or location are invalid, or elements were sent too.
        TensorTooLargeError: an empty tensor is too large along its other axes.
        UnsupportedError: this connection has no shared memory.
    """
    if payload or message.data:
        raise InvalidTensorError(
            f"{field} has both data and a location in shared memory; it must have one of them",
            field=f"{field}.shared",
        )
    dtype = element_dtype(message.element_type, f"{field}.element_type")
    shape = decode_shape(message.shape, f"{field}.shape")
    check_empty(shape, f"{field}.shape")
    array = array_at(decode_place(message.shared), shape, dtype, regions, f"{field}.shared")
    array.flags.writeable = False
    return array


def decode_shape(sizes: Any, field: str) -> tuple[int, ...]:
    """Return a shape in a message as a tuple.

    Raises:
        InvalidTensorError: there are too many axes, or a size is negative.
    """
    if len(sizes) > MAX_AXES:
        raise InvalidTensorError(
            f"{field} has {len(sizes)} axes; at most {MAX_AXES} are legal", field=field
        )
    shape = tuple(sizes)
    if any(size < 0 for size in shape):
        raise InvalidTensorError(f"{field} is {shape}; no size may be negative", field=field)
    return shape


def check_empty(shape: tuple[int, ...], field: str) -> None:
    """Check the sizes of an empty tensor: no length of data limits them, but NumPy does.

    Raises:
        TensorTooLargeError: the product of its other sizes is too large.
    """
    if 0 in shape and math.prod(filter(None, shape)) > _MOST_ELEMENTS:
        raise TensorTooLargeError(
            f"{field} is {shape}; the product of the sizes above 0 may not exceed 2^60 - 1",
            field=field,
        )
