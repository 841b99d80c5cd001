"""The card, as the backend sees it: memory, copies, launches. All of CuPy is here.

No test without a card reaches `CupyDevice`; `tests/gpu/` has a device of host memory beside it,
which takes the same launches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.cupy_kernels.compiling import compiled
from pooling_engine.backends.cupy_kernels.launches import THREADS, Launch
from pooling_engine.errors import DeviceMemoryError

HostArray = NDArray[Any]
DeviceArray = Any  # of the device's own kind; it has a shape and a dtype


class Device(Protocol):
    """What a backend asks of a device."""

    def names(self) -> tuple[str, ...]:
        """The devices, in words."""
        ...

    def adopt(self, array: Any) -> tuple[DeviceArray, bool]:
        """A C-contiguous array of the device's own kind, and whether it is a copy.

        Args:
            array: of any library that hands out the device's memory by DLPack.
        """
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """A C-contiguous array of any content.

        Raises:
            DeviceMemoryError: there is no room.
        """
        ...

    def address(self, array: DeviceArray) -> int:
        """Where its first element is."""
        ...

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copies from the host; both are C-contiguous."""
        ...

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copies to the host, once everything launched before is done."""
        ...

    def launch(self, launch: Launch, *arrays: DeviceArray | None) -> None:
        """Launches a kernel; None is a null pointer."""
        ...


class CupyDevice:
    """The current device of CuPy, and its current stream.

    Raises:
        ModuleNotFoundError: CuPy is not installed.
        ImportError: there is no device, or CuPy does not work.
    """

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._kernels: dict[tuple[int, str], Any] = {}
        self._count = cupy.cuda.runtime.getDeviceCount()
        if not self._count:
            raise ImportError("there is no CUDA device")

    def names(self) -> tuple[str, ...]:
        """The devices, in words."""
        properties = self._cupy.cuda.runtime.getDeviceProperties
        return tuple(
            f"{properties(device)['name'].decode()} ({device})" for device in range(self._count)
        )

    def adopt(self, array: Any) -> tuple[DeviceArray, bool]:
        """A C-contiguous CuPy array, and whether it is a copy."""
        is_own = isinstance(array, self._cupy.ndarray)
        own = array if is_own else self._cupy.from_dlpack(array)
        with self._refusing():
            return self._cupy.ascontiguousarray(own), not own.flags.c_contiguous

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """A C-contiguous array of any content."""
        with self._refusing():
            return self._cupy.empty(shape, dtype)

    def address(self, array: DeviceArray) -> int:
        """Where its first element is."""
        return int(array.data.ptr)

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copies from the host."""
        target.reshape(-1).view(np.uint8).set(source.reshape(-1).view(np.uint8))

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copies to the host."""
        source.reshape(-1).view(np.uint8).get(out=target.reshape(-1).view(np.uint8))

    def launch(self, launch: Launch, *arrays: DeviceArray | None) -> None:
        """Launches a kernel on the current stream; compiles it if none is on disk."""
        pointers = (np.uint64(0) if array is None else array for array in arrays)
        with self._refusing():
            kernel = self._kernel(launch)
            kernel((launch.blocks,), (THREADS,), (*pointers, *launch.values))

    def _kernel(self, launch: Launch) -> Any:
        device = self._cupy.cuda.Device()
        key = device.id, launch.name
        if key not in self._kernels:
            kernel = compiled(launch.file, launch.name, f"sm_{device.compute_capability}")
            module = self._cupy.cuda.function.Module()
            module.load(kernel.code)
            self._kernels[key] = module.get_function(kernel.symbol)
        return self._kernels[key]

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """CuPy's error as ours."""
        try:
            yield
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise DeviceMemoryError(f"the device has no room: {error}") from error
