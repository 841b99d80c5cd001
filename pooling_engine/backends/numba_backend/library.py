"""Compiled kernels of a backend: compiled on demand, or in the background."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import numba

from pooling_engine.backends.numba_backend.dispatch import KernelCall

_log = logging.getLogger("pooling_engine")
Compiled = Callable[..., bool]
Key = tuple[Any, ...]
Types = tuple[Any, ...]


class Library:
    """Machine code of kernels: a kernel is compiled once for each combination of element types.

    Until `compile_in_background` is called, callers wait while their kernel is compiled.
    """

    def __init__(self) -> None:
        self._compiled: dict[Key, Compiled] = {}
        self._requested: set[Key] = set()
        self._queue: queue.SimpleQueue[tuple[Key, Any, Types]] | None = None
        self._lock = threading.Lock()

    def compile_in_background(self) -> None:
        """Compile further kernels one after the other in a thread, so that no caller waits."""
        with self._lock:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._compile_all, name="kernels", daemon=True).start()

    def find(self, call: KernelCall) -> Compiled | None:
        """Return the machine code of a call's kernel, or None if it is yet to be compiled."""
        key = (call.kernel, call.types)
        compiled = self._compiled.get(key)
        if compiled is not None:
            return compiled
        if self._queue is None:
            return self._compile(key, call.kernel, _types_of(call))
        with self._lock:
            if key not in self._requested:
                self._requested.add(key)
                self._queue.put((key, call.kernel, _types_of(call)))
        return None

    def _compile_all(self) -> None:
        while self._queue is not None:
            key, kernel, types = self._queue.get()
            try:
                self._compile(key, kernel, types)
            except Exception:
                _log.exception("cannot compile %s; the NumPy backend computes instead", kernel)

    def _compile(self, key: Key, kernel: Any, types: Types) -> Compiled:
        # The entry point is faster to call than the kernel, which looks up the types of all
        # arguments in every call.
        try:
            compiled: Compiled = kernel.compile(types)
        except OSError as error:  # compiled, but not saved: the disk of the cache is full
            _log.warning("a compiled kernel cannot be cached: %s", error)
            compiled = kernel.compile(types)
        self._compiled[key] = compiled
        return compiled


def _types_of(call: KernelCall) -> Types:
    """Return the types of all arguments; tensors have one type, aligned or not."""
    rows = [_unaligned(numba.typeof(row)) for row in call.arguments[: len(call.types)]]
    records = map(numba.typeof, call.arguments[len(call.types) :])
    return (*rows, *records, numba.int64, numba.int64)


def _unaligned(row: Any) -> numba.types.Array:
    is_readonly = not row.mutable
    return numba.types.Array(row.dtype, row.ndim, row.layout, readonly=is_readonly, aligned=False)
