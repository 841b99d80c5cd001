"""Protocols of backends: `Backend`, and `DeviceBackend` for those that use a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat, Mode

Array = NDArray[Any]
DeviceArray = Any  # of the device's own library; it has a shape and a dtype


class Backend(Protocol):
    """Computation of plans on arrays. A backend reads plans and validates nothing.

    Attributes:
        name: name by which users select the backend.
        modes: modes that it computes.
        dtypes: element types that it accepts, forward and backward.
        index_formats: formats of indices that it returns and accepts.
    """

    name: str
    modes: tuple[Mode, ...]
    dtypes: tuple[np.dtype[Any], ...]
    index_formats: tuple[IndexFormat, ...]

    def warm_up(self, *, background: bool) -> None:
        """Prepare the most common calls.

        Args:
            background: if true, later calls never wait for a kernel to be compiled.
        """
        ...

    def devices(self) -> tuple[str, ...]:
        """Return the names of the devices that it computes on."""
        ...

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pool `x` into `output`; write the selected window indices into `indices`, if given."""
        ...

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Compute the gradient of the input into `dx`.

        MAX and MIN receive `indices`, or `x` if tied elements share the gradient; LP receives `x`.

        Raises:
            InvalidTensorError: an index names no element of its window; the content of `dx` is
                then undefined.
        """
        ...


class ArrayDevice(Protocol):
    """Memory of a device."""

    def adopt(self, array: Any) -> tuple[DeviceArray, bool]:
        """Return a C-contiguous array of the device's own library, and whether it is a copy.

        Args:
            array: of any library that exports device memory through DLPack.

        Raises:
            BufferError, TypeError, ValueError, NotImplementedError: the array is on another
                device, has an element type that the device does not support, or is not exported.
        """
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Return an uninitialised C-contiguous array."""
        ...

    def address(self, array: DeviceArray) -> int:
        """Return the address of the first element."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """Backend on a GPU: it also accepts arrays on its device."""

    @property
    def device(self) -> ArrayDevice:
        """Memory of the device."""
        ...

    def limit_memory(self, nbytes: int) -> None:
        """Limit the device memory that the backend uses, in bytes."""
        ...

    def probe(self) -> None:
        """Run a tiny computation with a known result to check the device.

        Raises:
            DeviceMemoryError: the device has no memory left for the computation.
            Exception: for any other error, this process cannot use the device any more.
        """
        ...

    def pin(self, memory: Array) -> Callable[[], None] | None:
        """Register host memory with the device, so that it is accessed without staging copies.

        Args:
            memory: the whole region, as an array that keeps it alive.

        Returns:
            A function that undoes it, to be called once, when no call uses the memory any more.
            It keeps `memory` alive until then. None if the memory could not be registered; the
            log says why, and arrays in it are copied like any other.
        """
        ...

    def to_device(self, array: Array) -> DeviceArray:
        """Return a device copy of a host array."""
        ...

    def to_positions(
        self, plan: PoolPlan, indices: DeviceArray, index_format: IndexFormat, target: DeviceArray
    ) -> None:
        """Write window indices on the device as int64 positions into `target`, also there."""
        ...

    def from_positions(
        self, plan: PoolPlan, given: DeviceArray, index_format: IndexFormat
    ) -> DeviceArray:
        """Convert int64 positions on the device into window indices.

        Raises:
            InvalidTensorError: a position is not that of an element of its window.
        """
        ...
