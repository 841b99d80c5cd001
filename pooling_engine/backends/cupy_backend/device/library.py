"""Loaded kernels of a process, compiled while the caller waits or in the background."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from pooling_engine.backends.cupy_backend.device.compiling import load_cached, load_or_compile
from pooling_engine.backends.cupy_backend.planning.kernels import OWN_BITS
from pooling_engine.backends.cupy_backend.planning.launches import Launch

_log = logging.getLogger("pooling_engine")
Key = tuple[int, str]  # device number, kernel name


class NotCompiledError(Exception):
    """The kernel is still being compiled in the background, or cannot be compiled."""


class KernelLibrary:
    """Loads kernels from the disk cache, or compiles them.

    Args:
        cupy: the `cupy` module.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._ready: dict[Key, Any] = {}
        self._requested: set[Key] = set()
        self._queue: queue.SimpleQueue[tuple[Launch, Any]] | None = None
        self._lock = threading.Lock()

    def compile_in_background(self) -> None:
        """Compile missing kernels in a thread from now on, instead of while the caller waits.

        Kernels of `OWN_BITS` are still compiled while the caller waits: NumPy computes what has no
        kernel yet, and the bits of a result must not depend on the time of the call.
        """
        with self._lock:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._compile_all, name="kernels", daemon=True).start()

    def kernel(self, launch: Launch) -> Any:
        """Return the CuPy function of a launch for the current device.

        Raises:
            NotCompiledError: the kernel is compiled in the background.
            RuntimeError: the kernel does not compile.
        """
        device = self._cupy.cuda.Device()
        key = device.id, launch.name
        if key in self._ready:
            return self._ready[key]
        architecture = f"sm_{device.compute_capability}"
        if self._queue is None or launch.file in OWN_BITS:
            return self._add(key, load_or_compile(launch.file, launch.name, architecture))
        with self._lock:
            is_new = key not in self._requested
            self._requested.add(key)
        if is_new:
            if (cached := load_cached(launch.file, launch.name, architecture)) is not None:
                return self._add(key, cached)
            self._queue.put((launch, device))
        raise NotCompiledError(launch.name)

    def _compile_all(self) -> None:
        while self._queue is not None:
            launch, device = self._queue.get()
            try:
                with device:
                    architecture = f"sm_{device.compute_capability}"
                    code = load_or_compile(launch.file, launch.name, architecture)
                    self._add((device.id, launch.name), code)
            except Exception:
                _log.exception("cannot compile %s; NumPy is used instead", launch.name)

    def _add(self, key: Key, kernel: Any) -> Any:
        module = self._cupy.cuda.function.Module()
        module.load(kernel.code)
        self._ready[key] = module.get_function(kernel.symbol)
        return self._ready[key]
