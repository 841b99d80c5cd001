"""Buffers that are used again: fresh pages from the system cost more than pooling into them."""

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
SMALL_BYTES = 64 << 10  # below, the allocator of the process is as fast


class Arena:
    """Lends arrays in buffers that are kept and lent again. For use by many threads at once.

    Args:
        max_bytes: how much is kept while nobody uses it, in bytes; what was used longest ago goes
            first. What is lent does not count: no request is refused, however large.

    Raises:
        ValueError: `max_bytes` is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes is {max_bytes}; it must be at least 0")
        self._max_bytes = max_bytes
        self._idle: dict[int, deque[_Buffer]] = {}  # by size; each queue, the latest used last
        self._idle_bytes = 0
        self._returns = 0
        self._lock = threading.Lock()

    @property
    def idle_bytes(self) -> int:
        """How much is kept at the moment for requests to come."""
        return self._idle_bytes

    @contextmanager
    def borrow(self, shape: Sequence[int], dtype: DTypeLike) -> Iterator[Array]:
        """An array for a block: what `Loan.array` gives, of a loan of its own."""
        with self.loan() as loan:
            yield loan.array(shape, dtype)

    def loan(self) -> Loan:
        """Arrays for a block, any number of them."""
        return Loan(self)

    def _take(self, size: int) -> _Buffer:
        with self._lock:
            queue = self._idle.get(size, ())
            buffer = next((buffer for buffer in reversed(queue) if buffer.is_free()), None)
            if buffer is not None:
                self._idle[size].remove(buffer)
                self._idle_bytes -= size
        return _Buffer(size) if buffer is None else buffer

    def _give_back(self, buffer: _Buffer) -> None:
        if buffer.size > self._max_bytes:
            return
        dropped = []  # the system takes its time over memory: not under the lock
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
    """A context manager: the arrays that it gives belong to its block, for one thread."""

    __slots__ = ("_arena", "_buffers")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._buffers: list[_Buffer] = []

    def array(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """A C-contiguous array of any content.

        It holds what an earlier borrower left in it: write every element before reading any. When
        the block ends, the next borrower gets the memory: keep neither the array nor a view of it.
        Arrays of at least 64 KiB begin at a multiple of 64 bytes.

        Raises:
            MemoryError: the system has no such memory.
            ValueError: a size is negative.
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
            buffer.is_doubtful = buffer.is_doubtful or kind is not None
            self._arena._give_back(buffer)
        self._buffers.clear()


class _Buffer:
    """Memory that is lent, or waits for that.

    Attributes:
        size: how many bytes of it are of use, those from `offset` on.
        returned: when it was last given back, counted in returns.
        is_doubtful: whether the last block ended with an error. A thread that had a part in it may
            then write for some time yet.
    """

    __slots__ = ("is_doubtful", "memory", "offset", "returned", "size")

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + ALIGNMENT, np.uint8)
        self.offset = -self.memory.ctypes.data % ALIGNMENT
        self.size = size
        self.returned = 0
        self.is_doubtful = False

    def is_free(self) -> bool:
        """Whether it may be lent: after an error, not while any view of it is left."""
        if self.is_doubtful:
            self.is_doubtful = sys.getrefcount(self.memory) > 2  # ours, and the argument
        return not self.is_doubtful


def size_class(nbytes: int) -> int:
    """The size of the buffer for a request of `nbytes`, at most a quarter more.

    Four sizes between a power of two and the next, so that buffers fit requests of about a size.
    """
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step
