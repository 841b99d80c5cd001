"""Arrays in memory that is shared with a server on the same host."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import select
import socket
import threading
import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pooling_client._copies import copy_into
from pooling_engine import InvalidTensorError
from pooling_wire import Place
from pooling_wire.shared_memory import leases

Array = NDArray[Any]
SHARED_BYTES = 256 << 10  # measured: calls with less are as fast when they are sent
GRAIN_BYTES = 64 << 10  # sizes of regions are multiples of it, so that they can be used again
_TIMEOUT_S = 10.0


class _Region(NamedTuple):
    """A region, ordered by where it is mapped."""

    address: int
    size_bytes: int
    handle: bytes
    memory: mmap.mmap


class SharedArrays:
    """Leases memory from a server, and makes arrays in it; safe to share between threads.

    Memory is used again once no array is in it: fresh pages cost more than the pooling.

    Args:
        path: the server's lease socket, `pooling_wire.shared_memory.leases.lease_socket`.

    Raises:
        OSError: nobody leases memory there, or not to this user.
    """

    def __init__(self, path: str) -> None:
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._server.settimeout(_TIMEOUT_S)
        try:
            self._server.connect(path)
        except OSError:
            self._server.close()
            raise
        self._events = select.poll()
        self._events.register(self._server, select.POLLIN)
        self._lock = threading.Lock()
        self._regions: list[_Region] = []
        self._free: deque[_Region] = deque()  # finalizers append to it, at any moment

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array | None:
        """An uninitialised array in shared memory; None if the server has none left."""
        dtype, sizes = np.dtype(dtype), tuple(np.atleast_1d(shape).tolist())
        size_bytes = math.prod(sizes) * dtype.itemsize
        if size_bytes == 0:
            return None
        with self._lock:
            region = self._take(-(-size_bytes // GRAIN_BYTES) * GRAIN_BYTES)
        if region is None:
            return None
        # Every view of the array holds this object, so the region is free with the last of them.
        owner = (ctypes.c_ubyte * size_bytes).from_buffer(region.memory)
        weakref.finalize(owner, self._free.append, region).atexit = False
        return np.frombuffer(owner, dtype).reshape(sizes)

    def place_of(self, array: Array) -> Place | None:
        """Where a C-contiguous array is, for the server; None if not in shared memory."""
        address = array.__array_interface__["data"][0]
        with self._lock:
            number = bisect_right(self._regions, address, key=lambda region: region.address) - 1
            region = self._regions[number] if number >= 0 else None
        if region is None or address + array.nbytes > region.address + region.size_bytes:
            return None
        return Place(region.handle, address - region.address)

    def find(self, handle: bytes) -> memoryview:
        """The region of a handle, as a reply names it.

        Raises:
            InvalidTensorError: there is none.
        """
        with self._lock:
            for region in self._regions:
                if region.handle == handle:
                    return memoryview(region.memory)
        raise InvalidTensorError("the server names memory that it has not leased")

    def is_alive(self) -> bool:
        """Whether the server still holds the lease."""
        with self._lock:  # so that nobody is being answered
            return not self._events.poll(0)

    def close(self) -> None:
        """Ends the lease; arrays stay what they are."""
        self._server.close()

    def _take(self, size_bytes: int) -> _Region | None:
        """A region of at least that size that nobody uses, and at most of twice that size."""
        free = list(self._free)  # at one moment
        fitting = [each for each in free if size_bytes <= each.size_bytes <= 2 * size_bytes]
        if fitting:
            region = min(fitting, key=lambda each: each.size_bytes)
            self._free.remove(region)
            return region
        try:
            leased = self._lease(size_bytes)
            if leased is None and self._give_back():
                leased = self._lease(size_bytes)
            return leased
        except OSError:  # the server is gone, or this process has no room
            return None

    def _lease(self, size_bytes: int) -> _Region | None:
        self._server.send(leases.encode_size(size_bytes))
        packet, descriptors, _, _ = socket.recv_fds(self._server, leases.LONGEST_PACKET, 1)
        if not descriptors:
            return None
        try:
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            memory = mmap.mmap(descriptors[0], size_bytes, flags)
        finally:
            os.close(descriptors[0])
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(memory))
        region = _Region(address, size_bytes, packet, memory)
        insort(self._regions, region, key=lambda each: each.address)
        return region

    def _give_back(self) -> bool:
        """Gives back all that nobody uses. Returns whether that was anything."""
        count = len(self._free)
        for _ in range(count):
            region = self._free.popleft()
            self._regions.remove(region)
            self._server.send(region.handle)
        return count > 0


class Sharing:
    """A client's shared arrays, from its first need on, as long as a server leases memory.

    Args:
        target: the server's address; only ``unix:/PATH`` shares memory.
    """

    def __init__(self, target: str) -> None:
        self._path = leases.lease_socket(target)
        self._arrays: SharedArrays | None = None
        self._lock = threading.Lock()

    def arrays(self) -> SharedArrays | None:
        """The arrays, of a lease that holds; None if nobody leases memory."""
        if self._path is None:
            return None
        with self._lock:
            if self._arrays is not None and not self._arrays.is_alive():
                self._arrays.close()
                self._arrays = None
            if self._arrays is None:
                with suppress(OSError):
                    self._arrays = SharedArrays(self._path)
            return self._arrays

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array:
        """An uninitialised array, in shared memory if that can be."""
        shared = self.arrays()
        array = None if shared is None else shared.empty(shape, dtype)
        return np.empty(shape, dtype) if array is None else array

    def close(self) -> None:
        """Ends the lease; arrays stay what they are."""
        with self._lock:
            if self._arrays is not None:
                self._arrays.close()
            self._arrays = self._path = None


class Placing:
    """The tensors of one call, brought into shared memory.

    Attributes:
        places: where they are, by name.
        is_whole: whether there was room for all.
    """

    def __init__(self, shared: SharedArrays) -> None:
        self._shared = shared
        self.places: dict[str, Place] = {}
        self.is_whole = True

    def given(self, name: str, tensor: Array) -> Array:
        """A tensor of the caller's: itself, or a copy in shared memory."""
        if self._note(name, tensor):
            return tensor
        copy = self.wanted(name, None, tensor.shape, tensor.dtype)
        if copy is None:
            return tensor
        copy_into(copy, tensor)
        return copy

    def wanted(
        self, name: str, out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array | None:
        """Where a result goes: the caller's `out` if that is shared, or a new array."""
        if out is not None and self._note(name, out):
            return out
        array = self._shared.empty(shape, dtype)
        if array is None or not self._note(name, array):
            self.is_whole = False
            return None
        return array

    def _note(self, name: str, array: Array) -> bool:
        place = self._shared.place_of(array)
        if place is not None:
            self.places[name] = place
        return place is not None
