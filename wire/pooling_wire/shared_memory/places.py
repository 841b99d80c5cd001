"""Places in shared memory: where a tensor's elements are, or are to be put, without being sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pooling_engine import InvalidTensorError, UnsupportedError
from pooling_wire.v1 import pooling_pb2 as pb

Array = NDArray[Any]
RESULTS = OUTPUT, INDICES, INPUT_GRADIENT = "output", "indices", "input_gradient"


class Place(NamedTuple):
    """A place in a leased region.

    Attributes:
        handle: that came with the region.
        offset: of the first element, in bytes.
    """

    handle: bytes
    offset: int

    def message(self) -> pb.SharedMemory:
        """The place as its message."""
        return pb.SharedMemory(handle=self.handle, offset=self.offset)


Places = Mapping[str, Place]  # by the name of the tensor's field


NO_PLACES: Places = MappingProxyType({})


class Regions(Protocol):
    """Who knows the regions of handles."""

    def find(self, handle: bytes) -> memoryview:
        """The region of a handle.

        Raises:
            InvalidTensorError: there is none.
            UnsupportedError: no memory is shared here.
        """


class _NoRegions:
    def find(self, handle: bytes) -> memoryview:
        raise UnsupportedError(
            "memory is shared only with callers over a Unix socket, and in unary calls"
        )


NO_REGIONS: Regions = _NoRegions()


def decode_place(message: pb.SharedMemory) -> Place:
    """The place of a message."""
    return Place(message.handle, message.offset)


def array_at(
    place: Place, shape: tuple[int, ...], dtype: np.dtype[Any], regions: Regions, field: str
) -> Array:
    """The elements at a place, as a writable view of its region.

    Args:
        field: the path of the place in the request.

    Raises:
        InvalidTensorError: they are not all in a region of that handle, or not aligned.
        UnsupportedError: no memory is shared here.
    """
    try:
        region = regions.find(place.handle)
    except (InvalidTensorError, UnsupportedError) as error:
        raise type(error)(f"{field}: {error}", field=field) from None
    size = math.prod(shape) * dtype.itemsize  # of Python's integers, which have no end
    if place.offset < 0 or place.offset + size > len(region):
        raise InvalidTensorError(
            f"{field}: {size} bytes from {place.offset} on are not all in the region, "
            f"which has {len(region)}",
            field=field,
        )
    if place.offset % dtype.itemsize:
        raise InvalidTensorError(
            f"{field}.offset is {place.offset}; it must be a multiple of {dtype.itemsize}, "
            f"the size of an element",
            field=f"{field}.offset",
        )
    return np.ndarray(shape, dtype, region, place.offset)
