"""Columns of calls in memory that a generator process shares with its parent.

So the parent can read what a process has recorded even if the process was killed.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from multiprocessing import connection, reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_loadtest.calls import COLUMNS, NEVER, Calls

_ROW = sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())
_ALIGNED = 8  # rows; so that each column begins at a multiple of 8 bytes


class SharedColumns:
    """The columns of one process, as the parent reads them."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):  # never written to a disk, which would disturb the test
            self._descriptor = os.memfd_create("calls")
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())

    def send(self, pipe: connection.Connection, process: int) -> None:
        """Give a process the memory; it calls `receive`."""
        reduction.send_handle(pipe, self._descriptor, process)

    def read(self, name: str, rows: int) -> NDArray[Any]:
        """Return a copy of the first rows of a column."""
        for each, dtype, offset in _layout(self._capacity()):
            if each == name:
                size = rows * np.dtype(dtype).itemsize
                return np.frombuffer(_read(self._descriptor, size, offset), dtype)
        raise KeyError(name)

    def begun(self, ended_ns: int) -> int:
        """Return the number of rows of calls that began before a process was killed.

        Args:
            ended_ns: time at which it was killed, from the common start.
        """
        if not self._capacity():
            return 0
        scheduled = self.read("scheduled_ns", self._capacity())
        used = np.flatnonzero((scheduled != 0) & (scheduled != NEVER) & (scheduled <= ended_ns))
        return int(used[-1]) + 1 if used.size else 0

    def close(self) -> None:
        """Free the memory, once the process has ended too."""
        os.close(self._descriptor)

    def _capacity(self) -> int:
        return int(os.fstat(self._descriptor).st_size // _ROW)


def receive(pipe: connection.Connection) -> int:
    """Return the descriptor of the memory that the parent gives."""
    return int(reduction.recv_handle(pipe))


def mapped(descriptor: int, rows: int) -> Calls:
    """Return columns of zeros in shared memory, and close its descriptor.

    Rows must be cleared before use; they take no memory until then.
    """
    capacity = max(1, -(-rows // _ALIGNED)) * _ALIGNED
    os.ftruncate(descriptor, capacity * _ROW)
    memory = mmap.mmap(descriptor, capacity * _ROW)
    os.close(descriptor)
    return Calls(
        {
            name: np.frombuffer(memory, dtype, rows, offset)
            for name, dtype, offset in _layout(capacity)
        }
    )


def _layout(capacity: int) -> Iterator[tuple[str, Any, int]]:
    """Yield name, type and offset of each column."""
    offset = 0
    for name, dtype in COLUMNS.items():
        yield name, dtype, offset
        offset += capacity * np.dtype(dtype).itemsize


def _read(descriptor: int, size: int, offset: int) -> bytearray:
    """Return bytes of a file; one read of Linux returns at most 2 GiB."""
    found = bytearray(size)
    view, done = memoryview(found), 0
    while done < size:
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if not count:
            raise EOFError("the shared columns are shorter than their rows")
        done += count
    return found
