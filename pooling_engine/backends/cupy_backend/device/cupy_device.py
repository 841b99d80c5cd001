"""A card by CuPy; what is said of CuPy in one place.

Without a card, tests run this on a stand-in for CuPy that computes on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np

from pooling_engine.backends.cupy_backend.device.faults import AsOurs
from pooling_engine.backends.cupy_backend.device.library import Library
from pooling_engine.backends.cupy_backend.device.pinning import Pinned
from pooling_engine.backends.cupy_backend.device.protocols import DeviceArray, HostArray
from pooling_engine.backends.cupy_backend.planning.launches import THREADS, Launch
from pooling_engine.errors import DeviceMemoryError

Made = TypeVar("Made")


class CupyDevice:
    """The current device of CuPy, and its current stream.

    Raises:
        ModuleNotFoundError: CuPy is not installed.
        ImportError: there is no device, or CuPy does not work.

    Attributes:
        spare: as `Device` says.
    """

    def __init__(self) -> None:
        import cupy

        self.spare: Callable[[], None] = lambda: None
        self._cupy, self._as_ours = cupy, AsOurs(cupy)
        self._library = Library(cupy)
        pinned = Pinned(cupy)
        self.pin, self.is_pinned = pinned.pin, pinned.has
        if not cupy.cuda.runtime.getDeviceCount():
            raise ImportError("there is no CUDA device")
        device = cupy.cuda.Device()
        name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
        self._names = (f"{name} at {device.pci_bus_id}",)

    def names(self) -> tuple[str, ...]:
        """The device: what it is, and where."""
        return self._names

    def limit_memory(self, nbytes: int) -> None:
        """Bounds what CuPy allocates on the device, what it keeps for later included."""
        self._cupy.get_default_memory_pool().set_limit(size=nbytes)

    def adopt(self, array: Any) -> tuple[DeviceArray, bool]:
        """A C-contiguous CuPy array, and whether it is a copy."""
        is_own = isinstance(array, self._cupy.ndarray)
        own = array if is_own else self._cupy.from_dlpack(array)
        here = self._cupy.cuda.Device().id
        if own.device.id != here:
            raise ValueError(f"it is on device {own.device.id}, and the current one is {here}")
        if own.flags.c_contiguous:
            return own, False
        words = own.view(f"u{own.dtype.itemsize}")  # the copy needs to know no element type
        copied = self._with_room(partial(self._cupy.ascontiguousarray, words))
        return copied.view(own.dtype), True

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """A C-contiguous array of any content."""
        return self._with_room(partial(self._cupy.empty, shape, dtype))

    def address(self, array: DeviceArray) -> int:
        """Where its first element is."""
        return int(array.data.ptr)

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copies from the host."""
        with self._as_ours:
            target.reshape(-1).view(np.uint8).set(source.reshape(-1).view(np.uint8))

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copies to the host."""
        with self._as_ours:
            source.reshape(-1).view(np.uint8).get(out=target.reshape(-1).view(np.uint8))

    def launch(self, launch: Launch, *arrays: DeviceArray | None) -> None:
        """Launches a kernel on the current stream; compiles it if none is on disk."""
        pointers = [0 if array is None else array for array in arrays]
        with self._as_ours:
            kernel = self._library.kernel(launch)
            kernel((launch.blocks,), (THREADS,), (*pointers, *launch.values))

    def wait(self) -> None:
        """Returns once the current stream has nothing more to do."""
        with self._as_ours:
            self._cupy.cuda.get_current_stream().synchronize()

    def lane(self, nbytes: int) -> CupyLane:
        """A lane with a stream of its own."""
        return self._with_room(partial(CupyLane, self._cupy, self, nbytes))

    def kernel(self, launch: Launch) -> Any:
        """What a launch calls: a function of CuPy."""
        return self._library.kernel(launch)

    def compile_in_background(self) -> None:
        """As `Device` says."""
        self._library.compile_in_background()

    def _with_room(self, make: Callable[[], Made]) -> Made:
        """What `make` makes; where there is no room for it, once more with all that is spare."""
        with suppress(DeviceMemoryError), self._as_ours:
            return make()
        self.spare()
        self._cupy.get_default_memory_pool().free_all_blocks()
        with self._as_ours:
            return make()


class CupyLane:
    """A `Lane`: page-locked memory, an array of bytes, and a stream that waits for no other.

    Its array is allocated on its stream: CuPy hands memory that was freed to the same stream
    without waiting for what may still use it.

    Args:
        cupy: the module.
        device: what it launches on.
        nbytes: of either memory.
    """

    def __init__(self, cupy: Any, device: CupyDevice, nbytes: int) -> None:
        self._runtime, self._device, self._as_ours = cupy.cuda.runtime, device, AsOurs(cupy)
        self._place = cupy.cuda.Device()  # where its memory is, whatever is current in a call
        self._stream = cupy.cuda.Stream(non_blocking=True)
        with self._stream:
            self._card = cupy.empty(nbytes, np.uint8)
        self.host = np.frombuffer(cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)
        self.host_address, self.card_address = self.host.ctypes.data, device.address(self._card)

    def upload(self, source: int, target: int, nbytes: int) -> None:
        """As `Lane` says."""
        self._copy(target, source, nbytes, self._runtime.memcpyHostToDevice)

    def launch(self, launch: Launch, *addresses: int | None) -> None:
        """As `Lane` says."""
        with self._as_ours, self._place:
            kernel = self._device.kernel(launch)
            arguments = (*[address or 0 for address in addresses], *launch.values)
            kernel((launch.blocks,), (THREADS,), arguments, stream=self._stream)

    def download(self, source: int, target: int, nbytes: int) -> None:
        """As `Lane` says."""
        self._copy(target, source, nbytes, self._runtime.memcpyDeviceToHost)

    def wait(self) -> None:
        """As `Lane` says."""
        with self._as_ours:
            self._stream.synchronize()

    def _copy(self, target: int, source: int, nbytes: int, kind: int) -> None:
        with self._as_ours:
            self._runtime.memcpyAsync(target, source, nbytes, kind, self._stream.ptr)
