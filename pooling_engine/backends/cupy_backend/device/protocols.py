"""Protocols of a device and of a staging buffer, which tests implement without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from pooling_engine.backends.cupy_backend.planning.launches import Launch
from pooling_engine.backends.protocols import ArrayDevice, DeviceArray

HostArray = NDArray[Any]


class StagingBuffer(Protocol):
    """Pinned host memory, device memory of the same size, and a stream.

    All methods but `wait` only enqueue work on the stream. Host addresses must be in pinned memory.
    Until `wait` returns, do not write to memory that is uploaded, do not read memory that is
    downloaded, and do not free either.

    Attributes:
        host: host memory as an array of bytes.
        host_address: address of the host memory.
        device_address: address of the device memory.
    """

    host: HostArray
    host_address: int
    device_address: int

    def upload(self, source: int, target: int, nbytes: int) -> None:
        """Copy bytes from a host address to a device address."""
        ...

    def launch(self, launch: Launch, *addresses: int | None) -> None:
        """Launch a kernel on arrays at device addresses; None is a null pointer."""
        ...

    def download(self, source: int, target: int, nbytes: int) -> None:
        """Copy bytes from a device address to a host address."""
        ...

    def wait(self) -> None:
        """Return when the stream is idle."""
        ...


class Device(ArrayDevice, Protocol):
    """Operations of a device that the backend uses, in addition to its memory.

    Any method may raise `DeviceMemoryError` (out of memory) or `UnavailableError` (device lost).

    Attributes:
        free_unused: callback that frees unused memory; the device calls it when it is out of
            memory, and then tries again.
    """

    free_unused: Callable[[], None]

    def names(self) -> tuple[str, ...]:
        """Return the device in words."""
        ...

    def limit_memory(self, nbytes: int) -> None:
        """Limit the device memory of this process, including memory cached for reuse."""
        ...

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copy from the host, C-contiguous to C-contiguous.

        Pinned memory may be read until `wait` returns.
        """
        ...

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copy to the host after all earlier launches are done; return when it is complete."""
        ...

    def launch(self, launch: Launch, *arrays: DeviceArray | None) -> None:
        """Launch a kernel; None is a null pointer."""
        ...

    def wait(self) -> None:
        """Return when all work is done, except that of staging buffers."""
        ...

    def pin(self, memory: HostArray) -> Callable[[], None] | None:
        """Pin host memory; see `PinnedMemory.pin`."""
        ...

    def is_pinned(self, array: HostArray) -> bool:
        """Return whether all of a C-contiguous array is in memory pinned by `pin`."""
        ...

    def compile_in_background(self) -> None:
        """Raise `NotCompiledError` from now on where a launch would have to compile first."""
        ...

    def staging_buffer(self, nbytes: int) -> StagingBuffer:
        """Allocate a staging buffer with that much memory on either side."""
        ...
