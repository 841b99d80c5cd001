"""Compiled kernels of a backend: compiled on demand, or in the background."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from pooling_engine.backends.numba_backend.dispatch import Key, Launch

_log = logging.getLogger("pooling_engine")
Compiled = Callable[..., bool]


class Library:
    """Machine code of kernels: a kernel is compiled once for each combination of element types.

    Until `compile_in_background` is called, callers wait while their kernel is compiled.
    """

    def __init__(self) -> None:
        self._compiled: dict[Key, Compiled] = {}
        self._requested: set[Key] = set()
        self._queue: queue.SimpleQueue[Launch] | None = None
        self._lock = threading.Lock()

    def compile_in_background(self) -> None:
        """Compile further kernels one after the other in a thread, so that no caller waits."""
        with self._lock:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._compile_all, name="kernels", daemon=True).start()

    def find(self, launch: Launch) -> Compiled | None:
        """Return the machine code of a launch's kernel, or None if it is yet to be compiled."""
        compiled = self._compiled.get(launch.key)
        if compiled is not None:
            return compiled
        if self._queue is None:
            return self._compile(launch)
        with self._lock:
            if launch.key not in self._requested:
                self._requested.add(launch.key)
                self._queue.put(launch)
        return None

    def _compile_all(self) -> None:
        while self._queue is not None:
            launch = self._queue.get()
            try:
                self._compile(launch)
            except Exception:
                kernel = launch.key[0]
                _log.exception("cannot compile %s; the NumPy backend computes instead", kernel)

    def _compile(self, launch: Launch) -> Compiled:
        # The entry point is faster to call than the kernel, which looks up the types of all
        # arguments in every call.
        kernel, types = launch.key[0], _types_of(launch)
        try:
            compiled: Compiled = kernel.compile(types)
        except OSError as error:  # compiled, but not saved: the disk of the cache is full
            _log.warning("a compiled kernel cannot be cached: %s", error)
            compiled = kernel.compile(types)
        self._compiled[launch.key] = compiled
        return compiled


def _types_of(launch: Launch) -> tuple[Any, ...]:
    """Return the types of all arguments; tensors have one type, aligned or not."""
    rows = [
        numba.types.Array(
            numba.from_dtype(np.dtype(name)), 1, "C", readonly=place < launch.inputs, aligned=False
        )
        for place, name in enumerate(launch.key[1])
    ]
    return (*rows, *map(numba.typeof, launch.records), numba.int64, numba.int64)
