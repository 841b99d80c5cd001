"""Pool of reusable result buffers: fresh pages from the system cost more than pooling into them."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
SMALL_BYTES = 64 << 10  # below this size, malloc is as fast


class Arena:
    """Thread-safe pool of buffers that are lent as arrays and reused.

    Args:
        max_bytes: maximum bytes of idle buffers; the least recently used buffer is freed first.
            Borrowed buffers do not count, and no request is rejected because of its size.

    Raises:
        ValueError: `max_bytes` is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes is {max_bytes}; it must be at least 0")
        self._max_bytes = max_bytes
        self._idle: dict[int, deque[_Buffer]] = {}  # by size; most recently used last
        self._idle_bytes = 0
        self._returns = 0
        self._lock = threading.Lock()

    @property
    def idle_bytes(self) -> int:
        """Bytes of the buffers that are available for reuse."""
        return self._idle_bytes

    @contextmanager
    def borrow(self, shape: Sequence[int], dtype: DTypeLike) -> Iterator[Array]:
        """Lend one array for the duration of a block, as `Loan.array` does."""
        with self.loan() as loan:
            yield loan.array(shape, dtype)

    def loan(self) -> Loan:
        """Return a context manager that lends any number of arrays."""
        return Loan(self)

    def _take(self, size: int) -> _Buffer:
        with self._lock:
            queue = self._idle.get(size, ())
            buffer = next((buffer for buffer in reversed(queue) if buffer.is_reusable()), None)
            if buffer is not None:
                self._idle[size].remove(buffer)
                self._idle_bytes -= size
        return _Buffer(size) if buffer is None else buffer

    def _give_back(self, buffer: _Buffer) -> None:
        if buffer.size > self._max_bytes:
            return
        dropped = []  # freed after the lock is released, because freeing memory is slow
        with self._lock:
            self._returns += 1
            buffer.returned = self._returns
            self._idle.setdefault(buffer.size, deque()).append(buffer)
            self._idle_bytes += buffer.size
            while self._idle_bytes > self._max_bytes:
                oldest = min(filter(None, self._idle.values()), key=lambda queue: queue[0].returned)
                dropped.append(oldest.popleft())
                self._idle_bytes -= dropped[-1].size


class Loan:
    """Context manager whose arrays are valid until its block ends; for use by one thread."""

    __slots__ = ("_arena", "_buffers")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._buffers: list[_Buffer] = []

    def array(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Return an uninitialised, C-contiguous array.

        The array contains data of earlier borrowers: write every element before reading any. The
        next borrower receives the memory when the block ends: keep neither the array nor a view.
        Arrays of at least 64 KiB are aligned to 64 bytes.

        Raises:
            MemoryError: the system is out of memory.
            ValueError: a dimension is negative.
        """
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < SMALL_BYTES:
            return np.empty(shape, dtype)
        buffer = self._arena._take(size_class(nbytes))
        self._buffers.append(buffer)
        return np.ndarray(shape, dtype, buffer.memory, buffer.offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for buffer in self._buffers:
            buffer.may_be_in_use = buffer.may_be_in_use or kind is not None
            self._arena._give_back(buffer)
        self._buffers.clear()


class _Buffer:
    """Memory that is lent or idle.

    Attributes:
        size: usable bytes, which start at `offset`.
        returned: sequence number of the last return.
        may_be_in_use: true if the last block ended with an error. A thread of the failed
            computation may then still write to the memory.
    """

    __slots__ = ("may_be_in_use", "memory", "offset", "returned", "size")

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + ALIGNMENT, np.uint8)
        self.offset = -self.memory.ctypes.data % ALIGNMENT
        self.size = size
        self.returned = 0
        self.may_be_in_use = False

    def is_reusable(self) -> bool:
        """Return True if the buffer can be lent.

        After an error, it can be lent only once no view of it remains.
        """
        if self.may_be_in_use:
            self.may_be_in_use = sys.getrefcount(self.memory) > 2  # ours, and the argument
        return not self.may_be_in_use


def size_class(nbytes: int) -> int:
    """Return the buffer size for a request of `nbytes`, at most a quarter larger.

    There are four sizes per power of two, so that one buffer fits requests of similar size.
    """
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step
