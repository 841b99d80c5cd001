"""Operations on the arrays of a call: NumPy arrays on the host, or arrays on a GPU."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from pooling_engine.backends.protocols import Backend, DeviceBackend
from pooling_engine.calls.checks import as_tensor, check_out
from pooling_engine.errors import InvalidSpecError, InvalidTensorError
from pooling_engine.plans.indices import from_positions, to_positions
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat

Array = Any  # of NumPy, or of a device

_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack


class Arrays(Protocol):
    """Operations on the arrays of the host or of one device."""

    def as_tensor(self, array: Any, field: str) -> Array:
        """Return a C-contiguous array; the caller's own if it already is one.

        Raises:
            InvalidTensorError: it is not an array of numbers.
        """
        ...

    def allocate(
        self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
    ) -> Array:
        """Return `out` once checked, or an uninitialised array if it is None.

        Raises:
            InvalidTensorError: `out` is of another shape or type, or shares memory with an input.
        """
        ...

    def to_positions(
        self, plan: PoolPlan, windows: Array, index_format: IndexFormat, positions: Array
    ) -> None:
        """Write window indices as int64 positions into `positions`."""
        ...

    def from_positions(self, plan: PoolPlan, positions: Array, index_format: IndexFormat) -> Array:
        """Return window indices for int64 positions.

        Raises:
            InvalidTensorError: a position is not that of an element of its window.
        """
        ...

    def check_backend(self, backend: Backend) -> None:
        """Raise InvalidSpecError unless the backend computes on these arrays."""
        ...


class HostArrays:
    """NumPy arrays, and anything that `as_tensor` accepts."""

    as_tensor = staticmethod(as_tensor)
    to_positions = staticmethod(to_positions)
    from_positions = staticmethod(from_positions)

    def allocate(
        self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
    ) -> Array:
        """Return `out` once checked, or a new array; see `Arrays`."""
        checked = check_out(out, shape, dtype, *inputs)
        return np.empty(shape, dtype) if checked is None else checked

    def check_backend(self, backend: Backend) -> None:
        """Accept every backend: all of them compute on host arrays."""


class DeviceArrays:
    """Arrays on the device of a backend, exchanged with other libraries through DLPack."""

    def __init__(self, backend: DeviceBackend) -> None:
        self._backend = backend
        self._device = backend.device

    def as_tensor(self, array: Any, field: str) -> Array:
        """Return an array on the device; a host array is copied there; see `Arrays`."""
        if is_on_device(array):
            return self._adopt(array, field)[0]
        return self._backend.to_device(as_tensor(array, field))

    def allocate(
        self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
    ) -> Array:
        """Return `out` once checked, or a new array on the device; see `Arrays`."""
        if out is None:
            return self._device.empty(shape, dtype)
        if not is_on_device(out):
            raise InvalidTensorError(
                f"out must be on the same device as the tensors, not {type(out).__name__}",
                field="out",
            )
        adopted, is_copy = self._adopt(out, "out")
        if adopted.shape != shape or adopted.dtype != dtype or is_copy:
            raise InvalidTensorError(
                f"out must be a C-contiguous {np.dtype(dtype).name} array of shape {shape}, "
                f"not {adopted.dtype} of shape {adopted.shape}",
                field="out",
            )
        begin, end = self._span(adopted)
        for low, high in (self._span(array) for array in inputs if array is not None):
            if begin < high and low < end:
                raise InvalidTensorError("out shares memory with an input", field="out")
        return adopted

    def to_positions(
        self, plan: PoolPlan, windows: Array, index_format: IndexFormat, positions: Array
    ) -> None:
        """Write window indices as int64 positions; see `Arrays`."""
        self._backend.to_positions(plan, windows, index_format, positions)

    def from_positions(self, plan: PoolPlan, positions: Array, index_format: IndexFormat) -> Array:
        """Return window indices for int64 positions; see `Arrays`."""
        return self._backend.from_positions(plan, positions, index_format)

    def check_backend(self, backend: Backend) -> None:
        """Raise InvalidSpecError unless the backend is the one of these arrays."""
        if backend is not self._backend:
            raise _host_only(backend)

    def _adopt(self, array: Any, field: str) -> tuple[Array, bool]:
        try:
            return self._device.adopt(array)
        except (BufferError, TypeError, ValueError, NotImplementedError) as error:
            raise InvalidTensorError(f"{field} cannot be used: {error}", field=field) from None

    def _span(self, array: Array) -> tuple[int, int]:
        begin = self._device.address(array)
        return begin, begin + math.prod(array.shape) * array.dtype.itemsize


HOST = HostArrays()


def arrays_of(array: Any, backend: Backend) -> Arrays:
    """Return the operations on the arrays of the host or device that holds `array`.

    Raises:
        InvalidSpecError: it is on a GPU, and the backend computes on the host.
    """
    if type(array) is np.ndarray or not is_on_device(array):
        return HOST
    if not isinstance(backend, DeviceBackend):
        raise _host_only(backend)
    return DeviceArrays(backend)


def is_on_device(array: Any) -> bool:
    """Return whether an array says, through DLPack, that it is on an NVIDIA GPU."""
    if isinstance(array, np.ndarray):
        return False
    where = getattr(array, "__dlpack_device__", None)
    try:
        return where is not None and where()[0] in _CUDA
    except (BufferError, ValueError):  # on a device without a number in DLPack
        return False


def _host_only(backend: Backend) -> InvalidSpecError:
    return InvalidSpecError(
        f'the tensor is on a CUDA device, but backend "{backend.name}" computes on the CPU; '
        'backend "cupy" accepts it',
        field="backend",
    )
