"""A card as the backend sees it: memory, copies, launches, and lanes for arrays of the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.cupy_backend.planning.launches import Launch

HostArray = NDArray[Any]
DeviceArray = Any  # of the device's own kind; it has a shape and a dtype


class Lane(Protocol):
    """Some host memory, as much of the card's, and a stream between them.

    Every method but `wait` only puts work on the stream; addresses are those of either memory, and
    on the host of what the card reaches by itself: until `wait` returns, do not write what is
    uploaded, nor read what is downloaded, nor let go of either.

    Attributes:
        host: the bytes.
        host_address: where they begin.
        card_address: where as many begin on the card.
    """

    host: HostArray
    host_address: int
    card_address: int

    def upload(self, source: int, target: int, nbytes: int) -> None:
        """Copies so many bytes from an address of the host to one of the card."""
        ...

    def launch(self, launch: Launch, *addresses: int | None) -> None:
        """Launches a kernel on arrays that begin there, on the card; None is a null pointer."""
        ...

    def download(self, source: int, target: int, nbytes: int) -> None:
        """Copies so many bytes from an address of the card to one of the host."""
        ...

    def wait(self) -> None:
        """Returns once everything has been done."""
        ...


class Device(Protocol):
    """What a backend asks of a device.

    Any method may raise `DeviceMemoryError`, there is no room; or `UnavailableError`, it is lost.

    Attributes:
        spare: called where there is no room, before another try: frees what is not in use.
    """

    spare: Callable[[], None]

    def names(self) -> tuple[str, ...]:
        """What it computes on, in words."""
        ...

    def limit_memory(self, nbytes: int) -> None:
        """Bounds the memory that is taken of it, what is kept for later included."""
        ...

    def adopt(self, array: Any) -> tuple[DeviceArray, bool]:
        """A C-contiguous array of the device's own kind, and whether it is a copy.

        Args:
            array: of any library that hands out the device's memory by DLPack.

        Raises:
            BufferError, TypeError, ValueError, NotImplementedError: it is on another device, of an
                element type that the device has not, or not handed out.
        """
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """A C-contiguous array of any content."""
        ...

    def address(self, array: DeviceArray) -> int:
        """Where its first element is."""
        ...

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copies from the host; both are C-contiguous. What is pinned is read until `wait`."""
        ...

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copies to the host, once everything launched before is done."""
        ...

    def launch(self, launch: Launch, *arrays: DeviceArray | None) -> None:
        """Launches a kernel; None is a null pointer."""
        ...

    def wait(self) -> None:
        """Returns once everything has been done, but for lanes."""
        ...

    def pin(self, memory: HostArray) -> Callable[[], None] | None:
        """Lets the card reach memory of the host by itself, as `Backend` says."""
        ...

    def is_pinned(self, array: HostArray) -> bool:
        """Whether all of a C-contiguous array is in memory that `pin` was given."""
        ...

    def compile_in_background(self) -> None:
        """Lets launches raise `NotCompiledError` from now on, where else they would compile."""
        ...

    def lane(self, nbytes: int) -> Lane:
        """A new lane with so much memory on either side."""
        ...
