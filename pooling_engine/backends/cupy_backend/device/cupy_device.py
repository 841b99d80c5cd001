"""Device and staging buffers on CuPy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np

from pooling_engine.backends.cupy_backend.device.faults import TranslatedErrors
from pooling_engine.backends.cupy_backend.device.library import KernelLibrary
from pooling_engine.backends.cupy_backend.device.pinning import PinnedMemory
from pooling_engine.backends.cupy_backend.device.protocols import HostArray
from pooling_engine.backends.cupy_backend.planning.launches import BLOCK_THREADS, Launch
from pooling_engine.backends.protocols import DeviceArray
from pooling_engine.errors import DeviceMemoryError

Made = TypeVar("Made")


class CupyDevice:
    """CuPy's current device with its current stream. Implements `Device`.

    Raises:
        ModuleNotFoundError: CuPy is not installed.
        ImportError: there is no CUDA device, or CuPy cannot be imported.
    """

    def __init__(self) -> None:
        import cupy

        self.free_unused: Callable[[], None] = lambda: None
        self._cupy, self._translated = cupy, TranslatedErrors(cupy)
        self._library = KernelLibrary(cupy)
        pinned = PinnedMemory(cupy)
        self.pin, self.is_pinned = pinned.pin, pinned.contains
        if not cupy.cuda.runtime.getDeviceCount():
            raise ImportError("there is no CUDA device")
        device = cupy.cuda.Device()
        name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
        self._names = (f"{name} at {device.pci_bus_id}",)

    def names(self) -> tuple[str, ...]:
        """Return the model of the device and its PCI bus ID."""
        return self._names

    def limit_memory(self, nbytes: int) -> None:
        """Limit CuPy's memory pool, including memory cached for reuse."""
        self._cupy.get_default_memory_pool().set_limit(size=nbytes)

    def adopt(self, array: Any) -> tuple[DeviceArray, bool]:
        """Return a C-contiguous CuPy array, and whether it is a copy."""
        is_own = isinstance(array, self._cupy.ndarray)
        own = array if is_own else self._cupy.from_dlpack(array)
        here = self._cupy.cuda.Device().id
        if own.device.id != here:
            raise ValueError(f"it is on device {own.device.id}, but the current device is {here}")
        if own.flags.c_contiguous:
            return own, False
        words = own.view(f"u{own.dtype.itemsize}")  # CuPy may not support the dtype itself
        copied = self._allocate(partial(self._cupy.ascontiguousarray, words))
        return copied.view(own.dtype), True

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Return an uninitialised C-contiguous array."""
        return self._allocate(partial(self._cupy.empty, shape, dtype))

    def address(self, array: DeviceArray) -> int:
        """Return the address of the first element."""
        return int(array.data.ptr)

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copy from the host."""
        with self._translated:
            target.reshape(-1).view(np.uint8).set(source.reshape(-1).view(np.uint8))

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copy to the host."""
        with self._translated:
            source.reshape(-1).view(np.uint8).get(out=target.reshape(-1).view(np.uint8))

    def launch(self, launch: Launch, *arrays: DeviceArray | None) -> None:
        """Launch a kernel on the current stream; compile it first if necessary."""
        pointers = [0 if array is None else array for array in arrays]
        with self._translated:
            kernel = self._library.kernel(launch)
            kernel((launch.blocks,), (BLOCK_THREADS,), (*pointers, *launch.values))

    def wait(self) -> None:
        """Return when the current stream is idle."""
        with self._translated:
            self._cupy.cuda.get_current_stream().synchronize()

    def staging_buffer(self, nbytes: int) -> CupyStagingBuffer:
        """Allocate a staging buffer with a new stream."""
        return self._allocate(partial(CupyStagingBuffer, self._cupy, self, nbytes))

    def kernel(self, launch: Launch) -> Any:
        """Return the CuPy function of a launch."""
        return self._library.kernel(launch)

    def compile_in_background(self) -> None:
        """Raise `NotCompiledError` from now on where a launch would have to compile first."""
        self._library.compile_in_background()

    def _allocate(self, make: Callable[[], Made]) -> Made:
        """Return `make()`; if memory is short, free all unused memory and try once more."""
        with suppress(DeviceMemoryError), self._translated:
            return make()
        self.free_unused()
        self._cupy.get_default_memory_pool().free_all_blocks()
        with self._translated:
            return make()


class CupyStagingBuffer:
    """Pinned host memory, device memory and a non-blocking stream. Implements `StagingBuffer`.

    The device memory is allocated on the buffer's own stream: CuPy gives freed memory back to the
    same stream without waiting for work that still uses it.

    Args:
        cupy: the `cupy` module.
        device: device for launches.
        nbytes: size of the host memory, and of the device memory.
    """

    def __init__(self, cupy: Any, device: CupyDevice, nbytes: int) -> None:
        self._runtime, self._device = cupy.cuda.runtime, device
        self._translated = TranslatedErrors(cupy)
        self._cuda_device = cupy.cuda.Device()  # a caller's thread may have another current device
        self._stream = cupy.cuda.Stream(non_blocking=True)
        with self._stream:
            self._memory = cupy.empty(nbytes, np.uint8)
        self.host = np.frombuffer(cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)
        self.host_address = self.host.ctypes.data
        self.device_address = device.address(self._memory)

    def upload(self, source: int, target: int, nbytes: int) -> None:
        """Enqueue a copy from a host address to a device address."""
        self._copy(target, source, nbytes, self._runtime.memcpyHostToDevice)

    def launch(self, launch: Launch, *addresses: int | None) -> None:
        """Enqueue a kernel on arrays at device addresses; None is a null pointer."""
        with self._translated, self._cuda_device:
            kernel = self._device.kernel(launch)
            arguments = (*[address or 0 for address in addresses], *launch.values)
            kernel((launch.blocks,), (BLOCK_THREADS,), arguments, stream=self._stream)

    def download(self, source: int, target: int, nbytes: int) -> None:
        """Enqueue a copy from a device address to a host address."""
        self._copy(target, source, nbytes, self._runtime.memcpyDeviceToHost)

    def wait(self) -> None:
        """Return when the stream is idle."""
        with self._translated:
            self._stream.synchronize()

    def _copy(self, target: int, source: int, nbytes: int, kind: int) -> None:
        with self._translated:
            self._runtime.memcpyAsync(target, source, nbytes, kind, self._stream.ptr)
