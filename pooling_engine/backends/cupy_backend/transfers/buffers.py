"""Pool of staging buffers: their number, their loans, and their state after an error."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType

from pooling_engine.backends.cupy_backend.device.protocols import Device, StagingBuffer
from pooling_engine.errors import DeviceMemoryError

BUFFERS_PER_CALL = 3  # one uploads, one computes, one downloads
SPARE_BUFFERS = 2  # available only as the first buffer of a call, so that others need not wait


class BufferPool:
    """Pool of staging buffers. Safe to use from many threads.

    Args:
        device: device of the buffers.
        nbytes: size of a buffer in host memory, and in device memory.
        max_count: maximum number of buffers, which limits the pinned memory.

    Attributes:
        max_count: maximum number of buffers.
    """

    def __init__(self, device: Device, nbytes: int, max_count: int) -> None:
        self._device = device
        self._nbytes, self.max_count = nbytes, max_count
        self._idle: list[StagingBuffer] = []
        self._count = 0  # including those in use
        self._changed = threading.Condition()

    @property
    def count(self) -> int:
        """Number of buffers, including those in use."""
        return self._count

    @property
    def idle_count(self) -> int:
        """Number of buffers that no call uses."""
        return len(self._idle)

    def free_idle(self) -> None:
        """Free the buffers that no call uses."""
        with self._changed:
            freed, self._idle = self._idle, []
            self._count -= len(freed)
            self._changed.notify_all()

    def borrow(self, wanted: int) -> BorrowedBuffers:
        """Return a context manager that lends one buffer, and up to `wanted` if they are free.

        Waits until there is one. If `wanted` is 0, it lends none.

        Raises:
            DeviceMemoryError: the device has no memory for a buffer.
        """
        return BorrowedBuffers(self, self._take(wanted) if wanted else [])

    def _take(self, wanted: int) -> list[StagingBuffer]:
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._count < self.max_count)
            free = len(self._idle) + self.max_count - self._count
            wanted = min(wanted, max(1, free - SPARE_BUFFERS))
            buffers = [self._idle.pop() for _ in range(min(wanted, len(self._idle)))]
            missing = wanted - len(buffers)
            self._count += missing
        try:
            while missing:
                buffers.append(self._device.staging_buffer(self._nbytes))
                missing -= 1
        except DeviceMemoryError:
            self.give_back([], missing)
            return buffers or self._wait_for_one()
        except BaseException:
            self.give_back(buffers, missing)
            raise
        return buffers

    def _wait_for_one(self) -> list[StagingBuffer]:
        """Return the next buffer that is given back, because there is no memory for another."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self._count)
            if self._idle:
                return [self._idle.pop()]
            self._count += 1
        try:
            return [self._device.staging_buffer(self._nbytes)]
        except BaseException:
            self.give_back([], 1)
            raise

    def give_back(self, buffers: list[StagingBuffer], lost: int) -> None:
        """End a loan.

        Args:
            buffers: buffers that can be used again.
            lost: number of the lent buffers that cannot.
        """
        with self._changed:
            self._idle += buffers
            self._count -= lost
            self._changed.notify_all()


class BorrowedBuffers:
    """Loan of buffers for a block. After an error, it waits until the buffers are idle."""

    __slots__ = ("_buffers", "_pool")

    def __init__(self, pool: BufferPool, buffers: list[StagingBuffer]) -> None:
        self._pool, self._buffers = pool, buffers

    def __enter__(self) -> list[StagingBuffer]:
        return self._buffers

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        usable = self._buffers if error is None else [b for b in self._buffers if _becomes_idle(b)]
        self._pool.give_back(usable, len(self._buffers) - len(usable))


def _becomes_idle(buffer: StagingBuffer) -> bool:
    """Wait for a buffer; return False if that fails, as on a lost device."""
    with suppress(Exception):
        buffer.wait()
        return True
    return False
