"""Tensors: arrays to messages and messages to read-only views."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from numpy.typing import NDArray

from pooling_engine import InvalidTensorError
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
ALIGNED_BYTES = 1 << 17  # of a payload; a message with a smaller one is copied by its reader
ALIGNMENT = 16  # bytes: what `malloc`, which makes a message, keeps to; a vector of the kernels


Parts = list[bytes | memoryview]


def message_parts(
    type_: type[Message],
    head: bytes,
    tensors: Mapping[str, NDArray[Any] | None],
    places: Places = NO_PLACES,
    start: int = 0,
) -> Parts:
    """The bytes of a message and the tensors in it, by the name of their field; to be joined.

    Of a tensor that has a place in shared memory, only that is written.
    Joined, they are the same bytes as the generated classes give where nothing has a place, but
    each payload is copied once: protobuf copies it four times on its way, and that costs more than
    the pooling. A large payload is aligned.

    Args:
        head: the message without its tensors.
        start: how many bytes are sent before the message.

    Raises:
        InvalidTensorError: an element type that cannot travel.
    """
    parts: Parts = [head]
    for name, number in _tensor_fields(type_.DESCRIPTOR):
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if name in places:
            shared = {name: _shared_tensor(tensor, places[name])}
            parts.append(type_(**shared).SerializeToString())
        else:
            parts += _tensor_field(number, tensor, start + _size(parts))
    return parts


@cache
def _tensor_fields(message: Descriptor) -> tuple[tuple[str, int], ...]:
    """The fields of a message that are tensors, as they are written: by their numbers."""
    fields = message.fields
    named = ((f.name, f.number) for f in fields if f.message_type is pb.Tensor.DESCRIPTOR)
    return tuple(sorted(named, key=lambda field: field[1]))


def nested_parts(message: Message, field: str, parts_at: Callable[[int], Parts]) -> Parts:
    """The bytes of a message whose last field is another; to be joined.

    Args:
        parts_at: the parts of that, given how many bytes are sent before it.
    """
    number = message.DESCRIPTOR.fields_by_name[field].number
    head, parts = message.SerializeToString(), parts_at(0)
    size = _size(parts)
    start = field_start(number, size)
    if size >= ALIGNED_BYTES:
        parts = parts_at(len(head) + len(start))
        start = field_start(number, _size(parts))
    return [head, start, *parts]


def _size(parts: Parts) -> int:
    return sum(map(len, parts))


def _tensor_field(number: int, array: NDArray[Any], at: int) -> Parts:
    """The field of a tensor, before which `at` bytes are sent."""
    place = at % ALIGNMENT if array.nbytes >= ALIGNED_BYTES else None
    start, dtype = _tensor_start(number, array.dtype, array.shape, place)
    return [start, np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data]


@lru_cache(maxsize=512)  # to build it costs more than to pool a small tensor
def _tensor_start(
    number: int, dtype: np.dtype[Any], shape: tuple[int, ...], place: int | None
) -> tuple[bytes, np.dtype[Any]]:
    """A field that is a tensor, up to its elements, and their type on the wire.

    Args:
        place: where it begins, modulo `ALIGNMENT`; None: its elements are not aligned.
    """
    header = pb.Tensor(element_type=element_type_number(dtype), shape=shape).SerializeToString()
    nbytes = math.prod(shape) * dtype.itemsize
    data_start = field_start(pb.Tensor.DATA_FIELD_NUMBER, nbytes) if nbytes else b""
    size = len(header) + len(data_start) + nbytes
    if place is not None:
        filler = _filler(place + len(field_start(number, size)) + size - nbytes)
        header, size = header + filler, size + len(filler)
    return field_start(number, size) + header + data_start, dtype.newbyteorder("<")


def _filler(at: int) -> bytes:
    """The field that moves what would begin after `at` bytes to a multiple of `ALIGNMENT`.

    It may make the length of a field around it a byte longer, once in millions of sizes. Then the
    payload is not aligned, which a reader must expect in any case.
    """
    gap = -at % ALIGNMENT
    if gap == 0:
        return b""
    size = gap - 2 if gap > 1 else gap + ALIGNMENT - 2  # a tag and a length come before
    return field_start(pb.Tensor.FILLER_FIELD_NUMBER, size) + bytes(size)


def _shared_tensor(array: NDArray[Any], place: Place) -> pb.Tensor:
    return pb.Tensor(
        element_type=element_type_number(array.dtype), shape=array.shape, shared=place.message()
    )


def field_start(number: int, length: int) -> bytes:
    """The tag and the length of a length-delimited field."""
    tag = number << 3 | 2
    if tag < 0x80 and length < 0x80:
        return bytes((tag, length))
    return _varint(tag) + _varint(length)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def decode_tensor(
    message: pb.Tensor, field: str, payload: memoryview | None = None
) -> NDArray[Any]:
    """A read-only view of a tensor's elements, which may be unaligned.

    Args:
        message: the tensor.
        field: its path in the request.
        payload: its elements, if they are not in the message.

    Raises:
        InvalidTensorError: type, shape or length are wrong.
        UnsupportedError: the element type is legal, but not built yet.
    """
    dtype = element_dtype(message.element_type, f"{field}.element_type")
    shape = decode_shape(message.shape, f"{field}.shape")
    data = message.data if payload is None else payload  # every read of the field makes a copy
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
    """A read-only view of a tensor's elements in shared memory; arguments as in `decode_tensor`.

    Raises:
        InvalidTensorError: type, shape or place are wrong, or elements were sent as well.
        UnsupportedError: no memory is shared here.
    """
    if payload or message.data:
        raise InvalidTensorError(
            f"{field} has data, and a place in shared memory; it must have one of them",
            field=f"{field}.shared",
        )
    dtype = element_dtype(message.element_type, f"{field}.element_type")
    shape = decode_shape(message.shape, f"{field}.shape")
    array = array_at(decode_place(message.shared), shape, dtype, regions, f"{field}.shared")
    array.flags.writeable = False
    return array


def decode_shape(sizes: Any, field: str) -> tuple[int, ...]:
    """The sizes of a message as a tuple.

    Raises:
        InvalidTensorError: there are too many, or one is negative.
    """
    if len(sizes) > MAX_AXES:
        raise InvalidTensorError(
            f"{field} has {len(sizes)} axes; at most {MAX_AXES} are legal", field=field
        )
    shape = tuple(sizes)
    if any(size < 0 for size in shape):
        raise InvalidTensorError(f"{field} is {shape}; no size may be negative", field=field)
    return shape
