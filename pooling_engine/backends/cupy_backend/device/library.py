"""Which kernels are compiled, and who waits for one that is not."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from pooling_engine.backends.cupy_backend.device.compiling import compiled, on_disk
from pooling_engine.backends.cupy_backend.planning.launches import Launch
from pooling_engine.backends.cupy_backend.planning.names import OWN_BITS

_log = logging.getLogger("pooling_engine")
Key = tuple[int, str]  # a device and a kernel


class NotCompiledError(Exception):
    """Nobody waits for kernels, and this one is being compiled, or cannot be."""


class Library:
    """Finds kernels on disk, or compiles them: while the caller waits, or in the background.

    Args:
        cupy: the module.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._ready: dict[Key, Any] = {}
        self._asked: set[Key] = set()
        self._queue: queue.SimpleQueue[tuple[Launch, Any]] | None = None
        self._lock = threading.Lock()

    def compile_in_background(self) -> None:
        """From now on nobody waits: kernels are compiled one after the other by a thread.

        But for those whose bits are not NumPy's: what they compute must not depend on when.
        """
        with self._lock:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._compile_all, name="kernels", daemon=True).start()

    def kernel(self, launch: Launch) -> Any:
        """What a launch calls on the current device: a function of CuPy.

        Raises:
            NotCompiledError: it is compiled in the background.
            RuntimeError: it cannot be compiled.
        """
        device = self._cupy.cuda.Device()
        key = device.id, launch.name
        if key in self._ready:
            return self._ready[key]
        architecture = f"sm_{device.compute_capability}"
        if self._queue is None or launch.file in OWN_BITS:
            return self._add(key, compiled(launch.file, launch.name, architecture))
        with self._lock:
            is_new = key not in self._asked
            self._asked.add(key)
        if is_new:
            if (found := on_disk(launch.file, launch.name, architecture)) is not None:
                return self._add(key, found)
            self._queue.put((launch, device))
        raise NotCompiledError(launch.name)

    def _compile_all(self) -> None:
        while self._queue is not None:
            launch, device = self._queue.get()
            try:
                with device:
                    architecture = f"sm_{device.compute_capability}"
                    code = compiled(launch.file, launch.name, architecture)
                    self._add((device.id, launch.name), code)
            except Exception:
                _log.exception("%s cannot be compiled; NumPy computes in its place", launch.name)

    def _add(self, key: Key, kernel: Any) -> Any:
        module = self._cupy.cuda.function.Module()
        module.load(kernel.code)
        self._ready[key] = module.get_function(kernel.symbol)
        return self._ready[key]
