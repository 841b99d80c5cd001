"""Where the tensors of a call are: on the host, or on a card, and then they stay there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from pooling_engine.backends import Backend
from pooling_engine.calls.checks import as_tensor, check_out
from pooling_engine.errors import InvalidSpecError, InvalidTensorError
from pooling_engine.plans.indices import check_indices, from_caller, to_positions
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat

if TYPE_CHECKING:
    from pooling_engine.backends.cupy_backend.backend import CupyBackend

Array = Any  # of NumPy, or of a card

_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack


class Memory(Protocol):
    """What the engine does with arrays of one kind, beside computing."""

    def as_tensor(self, array: Any, field: str) -> Array:
        """A C-contiguous array; the caller's own where it is one already.

        Raises:
            InvalidTensorError: it is no array of numbers.
        """
        ...

    def allocate(
        self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
    ) -> Array:
        """`out`, if it can be written into, or an array of any content.

        Raises:
            InvalidTensorError: `out` is of another shape or type, or shares memory with an input.
        """
        ...

    def to_positions(self, plan: PoolPlan, indices: Array, index_format: IndexFormat) -> Array:
        """Window indices as int64 positions."""
        ...

    def from_caller(self, plan: PoolPlan, indices: Array, chosen: IndexFormat | None) -> Array:
        """Window indices from what the caller sent."""
        ...


class HostMemory:
    """NumPy's arrays, and whatever NumPy makes one of."""

    as_tensor = staticmethod(as_tensor)
    to_positions = staticmethod(to_positions)
    from_caller = staticmethod(from_caller)

    def allocate(
        self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
    ) -> Array:
        """As `Memory` says."""
        check_out(out, shape, dtype, *inputs)
        return np.empty(shape, dtype) if out is None else out


class CardMemory:
    """Arrays of the device of a backend, and by DLPack those of other libraries there."""

    def __init__(self, backend: CupyBackend) -> None:
        self._backend = backend
        self._device = backend.device

    def as_tensor(self, array: Any, field: str) -> Array:
        """As `Memory` says; an array of the host is copied to the card."""
        if is_on_card(array):
            return self._adopt(array, field)[0]
        return self._backend.to_device(as_tensor(array, field))

    def allocate(
        self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
    ) -> Array:
        """As `Memory` says."""
        if out is None:
            return self._device.empty(shape, dtype)
        if not is_on_card(out):
            raise InvalidTensorError(
                f"out must be on the device that the tensors are on, not {type(out).__name__}",
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

    def to_positions(self, plan: PoolPlan, indices: Array, index_format: IndexFormat) -> Array:
        """As `Memory` says."""
        return self._backend.to_positions(plan, indices, index_format)

    def from_caller(self, plan: PoolPlan, indices: Array, chosen: IndexFormat | None) -> Array:
        """As `Memory` says."""
        chosen = check_indices(plan, indices, chosen)
        if chosen is IndexFormat.WINDOW:
            return indices
        return self._backend.from_positions(plan, indices, chosen)

    def _adopt(self, array: Any, field: str) -> tuple[Array, bool]:
        try:
            return self._device.adopt(array)
        except (BufferError, TypeError, ValueError, NotImplementedError) as error:
            raise InvalidTensorError(f"{field} cannot be taken: {error}", field=field) from None

    def _span(self, array: Array) -> tuple[int, int]:
        begin = self._device.address(array)
        return begin, begin + math.prod(array.shape) * array.dtype.itemsize


HOST = HostMemory()


def memory_of(array: Any, backend: Backend) -> Memory:
    """The memory that an array is in, and its results belong into.

    Raises:
        InvalidSpecError: it is on a card, which the backend does not compute on.
    """
    if type(array) is np.ndarray or not is_on_card(array):
        return HOST
    if backend.name != "cupy":
        raise InvalidSpecError(
            f'the tensor is on a CUDA device, but backend "{backend.name}" computes on the '
            'processor; "cupy" takes it, where CuPy is installed',
            field="backend",
        )
    return CardMemory(cast("CupyBackend", backend))


def is_on_card(array: Any) -> bool:
    """Whether an array says that it is in the memory of an NVIDIA card."""
    if isinstance(array, np.ndarray):
        return False
    where = getattr(array, "__dlpack_device__", None)
    try:
        return where is not None and where()[0] in _CUDA
    except (BufferError, ValueError):  # on a device that DLPack has no number for
        return False
