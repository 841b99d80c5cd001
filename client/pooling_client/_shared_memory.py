"""Arrays in memory that is shared with a server on the same host."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import select
import socket
import threading
import time
import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pooling_client._private_copies import make_private, release, use
from pooling_engine import InvalidTensorError
from pooling_wire.shared_memory import LONGEST_PACKET, Place, encode_size, lease_socket_path

Array = NDArray[Any]
SHARED_BYTES = 256 << 10  # measured: smaller calls are as fast when they are sent
GRAIN_BYTES = 64 << 10  # region sizes are multiples of it, so that regions fit later arrays
PAUSE_S = 5.0  # without a lease, after a server that did not answer
LEASE_TIMEOUT_S = 1.0  # a lease takes microseconds; a frozen server answers none
# Server and client must have these functions: Linux has them.
_IS_SUPPORTED = all(
    hasattr(module, name)
    for module, name in (
        (socket, "AF_UNIX"),
        (socket, "SOCK_SEQPACKET"),
        (socket, "recv_fds"),
        (select, "poll"),
        (mmap, "MAP_SHARED"),
    )
)
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


class _Region(NamedTuple):
    """A region, ordered by its address in this process."""

    address: int
    size_bytes: int
    handle: bytes
    memory: mmap.mmap


class SharedArrays:
    """Arrays in memory that a server leases over one connection. Safe to share between threads.

    A region is reused once no array refers to it: page-faulting fresh memory costs more than the
    pooling.

    Args:
        path: lease socket of the server: `pooling_wire.shared_memory.lease_socket_path`.

    Raises:
        OSError: no server leases memory there, or not to this user.
    """

    def __init__(self, path: str) -> None:
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.settimeout(LEASE_TIMEOUT_S)
        try:
            self._server.connect(path)
        except OSError:
            self._server.close()
            raise
        self._events = select.poll()
        self._events.register(self._server, select.POLLIN)
        self._lock = threading.Lock()
        self._regions: list[_Region] = []
        self._free: deque[_Region] = deque()  # finalizers append to it at any time
        self._detached: set[bytes] = set()  # handles of regions that are not reused
        self.is_silent = False  # True after a request without a reply

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array | None:
        """Return an uninitialised array in shared memory; None if the server has none left."""
        dtype, sizes = np.dtype(dtype), tuple(np.atleast_1d(shape).tolist())
        size_bytes = math.prod(sizes) * dtype.itemsize
        if size_bytes == 0:
            return None
        with self._lock:
            region = self._take(-(-size_bytes // GRAIN_BYTES) * GRAIN_BYTES)
        if region is None:
            return None
        # Every view of the array refers to this object: the region is free after the last view.
        owner = (ctypes.c_ubyte * size_bytes).from_buffer(region.memory)
        use(region.address, region.size_bytes)
        weakref.finalize(owner, _release, self._free, self._detached, region).atexit = False
        return np.frombuffer(owner, dtype).reshape(sizes)

    def place_of(self, array: Array) -> Place | None:
        """Return the location of a C-contiguous array; None if it is not in shared memory."""
        address = array.__array_interface__["data"][0]
        with self._lock:
            region = self._region_of(address, array.nbytes)
        return None if region is None else Place(region.handle, address - region.address)

    def find(self, handle: bytes) -> memoryview:
        """Return the region of a handle in a reply.

        Raises:
            InvalidTensorError: the server did not lease such a region.
        """
        with self._lock:
            for region in self._regions:
                if region.handle == handle:
                    return memoryview(region.memory)
        raise InvalidTensorError("the reply names a region of shared memory that is not leased")

    def detach(self, array: Array, *, copies: bool) -> None:
        """Separate an array from the server, which may still write to its region.

        The region is neither used for other arrays nor found by `place_of` any more.

        Args:
            array: a C-contiguous array in shared memory.
            copies: replace the memory of the array by a private copy, at the same address.
        """
        address = array.__array_interface__["data"][0]
        with self._lock:
            region = self._region_of(address, array.nbytes)
            if region is not None:
                self._detached.add(region.handle)
                self._regions.remove(region)
                with suppress(OSError):  # the lease has ended
                    self._server.send(region.handle)
        if copies:  # a part of the region may be detached already
            make_private(address, array.nbytes)

    def is_alive(self) -> bool:
        """Return whether the server still holds the lease."""
        if self.is_silent:
            return False
        with self._lock:  # no answer to a lease request is pending
            return not self._events.poll(0)

    def close(self) -> None:
        """End the lease. Arrays stay valid."""
        self._server.close()

    def _region_of(self, address: int, size_bytes: int) -> _Region | None:
        """Return the leased region that contains so many bytes from an address on."""
        number = bisect_right(self._regions, address, key=lambda region: region.address) - 1
        region = self._regions[number] if number >= 0 else None
        if region is None or address + size_bytes > region.address + region.size_bytes:
            return None
        return region

    def _take(self, size_bytes: int) -> _Region | None:
        """Return a free region of at least that size and at most twice that size."""
        free = list(self._free)  # a snapshot
        fitting = [each for each in free if size_bytes <= each.size_bytes <= 2 * size_bytes]
        if fitting:
            region = min(fitting, key=lambda each: each.size_bytes)
            self._free.remove(region)
            return region
        if self.is_silent:
            return None
        try:
            leased = self._lease(size_bytes)
            if leased is None and self._return_free():
                leased = self._lease(size_bytes)
            return leased
        except TimeoutError:  # a late reply would be taken for that of the next request
            self.is_silent = True
            return None
        except OSError:  # the connection is closed, or this process cannot map the memory
            return None

    def _lease(self, size_bytes: int) -> _Region | None:
        self._server.send(encode_size(size_bytes))
        packet, descriptors, _, _ = socket.recv_fds(self._server, LONGEST_PACKET, 1)
        if not descriptors:
            return None
        try:
            memory = mmap.mmap(descriptors[0], size_bytes, mmap.MAP_SHARED | _POPULATE)
        finally:
            os.close(descriptors[0])
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(memory))
        region = _Region(address, size_bytes, packet, memory)
        insort(self._regions, region, key=lambda each: each.address)
        return region

    def _return_free(self) -> bool:
        """Return the free regions to the server; return False if there are none."""
        count = len(self._free)
        for _ in range(count):
            region = self._free.popleft()
            self._regions.remove(region)
            self._server.send(region.handle)
        return count > 0


def _release(free: deque[_Region], detached: set[bytes], region: _Region) -> None:
    release(region.address)
    if region.handle in detached:
        detached.discard(region.handle)
    else:
        free.append(region)


class SharedMemory:
    """Shared arrays of a client, leased when first needed and leased again after a lost lease.

    Args:
        target: address of the server; only ``unix:/PATH`` shares memory.
    """

    def __init__(self, target: str) -> None:
        self._path = lease_socket_path(target) if _IS_SUPPORTED else None
        self._arrays: SharedArrays | None = None
        self._not_before = 0.0
        self._lock = threading.Lock()

    @property
    def is_possible(self) -> bool:
        """True if the target, the system and the state of the client permit shared memory."""
        return self._path is not None

    def arrays(self) -> SharedArrays | None:
        """Return the arrays of a valid lease; None if the server leases no memory."""
        if self._path is None:
            return None
        with self._lock:
            if self._arrays is not None and not self._arrays.is_alive():
                if self._arrays.is_silent:
                    self._not_before = time.monotonic() + PAUSE_S
                self._arrays.close()
                self._arrays = None
            if self._arrays is None and time.monotonic() >= self._not_before:
                begin = time.monotonic()
                with suppress(OSError):
                    self._arrays = SharedArrays(self._path)
                if time.monotonic() - begin >= LEASE_TIMEOUT_S:
                    self._not_before = time.monotonic() + PAUSE_S
            return self._arrays

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array:
        """Return an uninitialised array, in shared memory if possible."""
        shared = self.arrays()
        array = None if shared is None else shared.empty(shape, dtype)
        return np.empty(shape, dtype) if array is None else array

    def close(self) -> None:
        """End the lease. Arrays stay valid."""
        with self._lock:
            if self._arrays is not None:
                self._arrays.close()
            self._arrays = self._path = None

    def renew(self) -> None:
        """Use a new lease in a forked process, from the next array on."""
        self._lock = threading.Lock()
        self._arrays = None
