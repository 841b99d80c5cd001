"""Locations in shared memory, where a tensor is read or written without being sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pooling_engine import InvalidTensorError, UnsupportedError
from pooling_wire.v1 import pooling_pb2 as pb

Array = NDArray[Any]
Call = TypeVar("Call")
RESULTS = OUTPUT, INDICES, INPUT_GRADIENT = "output", "indices", "input_gradient"


class Place(NamedTuple):
    """Location in a leased region of shared memory.

    Attributes:
        handle: handle of the region.
        offset: offset of the first element, in bytes.
    """

    handle: bytes
    offset: int

    def message(self) -> pb.SharedMemory:
        """Return the location as a message."""
        return pb.SharedMemory(handle=self.handle, offset=self.offset)


Places = Mapping[str, Place]  # by the name of the tensor's field

NO_PLACES: Places = MappingProxyType({})


class Placed(NamedTuple, Generic[Call]):
    """A call, and where the client wants its results in shared memory.

    Attributes:
        call: the call.
        places: locations of results, by the names in `call.result_specs`; results without one are
            sent in the reply.
    """

    call: Call
    places: Places


class Regions(Protocol):
    """Lookup of leased regions by handle."""

    def find(self, handle: bytes) -> memoryview:
        """Return the region of a handle.

        Raises:
            InvalidTensorError: the handle is unknown.
            UnsupportedError: this connection has no shared memory.
        """


class _NoRegions:
    def find(self, handle: bytes) -> memoryview:
        raise UnsupportedError("shared memory is available only over a Unix socket of the server")


NO_REGIONS: Regions = _NoRegions()


def decode_place(message: pb.SharedMemory) -> Place:
    """Return the location in a message."""
    return Place(message.handle, message.offset)


def region_at(place: Place, regions: Regions, field: str) -> memoryview:
    """Return the region of a location.

    Args:
        field: path of the location in the request.

    Raises:
        InvalidTensorError: the handle is unknown.
        UnsupportedError: this connection has no shared memory.
    """
    try:
        return regions.find(place.handle)
    except (InvalidTensorError, UnsupportedError) as error:
        raise type(error)(f"{field}: {error}", field=field) from None


def array_at(
    place: Place, shape: tuple[int, ...], dtype: np.dtype[Any], regions: Regions, field: str
) -> Array:
    """Return the array at a location, as a writable view of its region.

    Args:
        field: path of the location in the request.

    Raises:
        InvalidTensorError: the handle is unknown, or the array would be unaligned or extend beyond
            the region.
        UnsupportedError: this connection has no shared memory.
    """
    region = region_at(place, regions, field)
    size = math.prod(shape) * dtype.itemsize  # Python integers do not overflow
    if place.offset < 0 or place.offset + size > len(region):
        raise InvalidTensorError(
            f"{field}: {size} bytes at offset {place.offset} are not within the region of "
            f"{len(region)} bytes",
            field=field,
        )
    if place.offset % dtype.itemsize:
        raise InvalidTensorError(
            f"{field}.offset is {place.offset}; it must be a multiple of {dtype.itemsize}, "
            f"the element size",
            field=f"{field}.offset",
        )
    return np.ndarray(shape, dtype, region, place.offset)
