"""Which kernels are compiled, and who waits for one that is not."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

import numba

_log = logging.getLogger("pooling_engine")
Key = tuple[Any, ...]
Types = tuple[Any, ...]


class Library:
    """Compiles kernels when they are asked for: while the caller waits, or in the background.

    A kernel is compiled once for each combination of element types.
    """

    def __init__(self) -> None:
        self._ready: set[Key] = set()
        self._asked: set[Key] = set()
        self._queue: queue.SimpleQueue[tuple[Key, Any, Types]] | None = None
        self._lock = threading.Lock()

    def compile_in_background(self) -> None:
        """From now on nobody waits: kernels are compiled one after the other by a thread."""
        with self._lock:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._compile_all, name="kernels", daemon=True).start()

    def has(self, kernel: Any, arguments: tuple[Any, ...]) -> bool:
        """Whether a kernel can be called now with arguments of these types.

        Args:
            kernel: one that takes `arguments` and then the range of its work.
            arguments: the first three are arrays whose types decide about all others.
        """
        key = (kernel, arguments[0].dtype, arguments[1].dtype, arguments[2].dtype)
        if key in self._ready:
            return True
        if self._queue is None:
            self._compile(key, kernel, tuple(map(numba.typeof, arguments)))
            return True
        with self._lock:
            if key not in self._asked:
                self._asked.add(key)
                self._queue.put((key, kernel, tuple(map(numba.typeof, arguments))))
        return False

    def _compile_all(self) -> None:
        while self._queue is not None:
            key, kernel, types = self._queue.get()
            try:
                self._compile(key, kernel, types)
            except Exception:
                _log.exception("%s cannot be compiled; NumPy computes in its place", kernel)

    def _compile(self, key: Key, kernel: Any, types: Types) -> None:
        kernel.compile((*types, numba.int64, numba.int64))
        self._ready.add(key)
