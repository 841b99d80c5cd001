"""The Numba backend: compiled kernels for common calls, the NumPy backend for the rest."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.dispatch import (
    NO_KERNEL,
    Launch,
    backward_launch,
    forward_launch,
    index_launch,
)
from pooling_engine.backends.numba_backend.library import Library
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from pooling_engine.dtypes import FLOATS
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import make_plan
from pooling_engine.runtime import threads
from pooling_engine.specs.enums import IndexFormat, Mode
from pooling_engine.specs.spec import PoolSpec

Array = NDArray[Any]


class Launches(NamedTuple):
    """Launches of the latest plans: of the forward pass, without and with indices, and backward."""

    forward: Memo[PoolPlan, Launch]
    indices: Memo[PoolPlan, Launch]
    backward: Memo[PoolPlan, Launch]


class NumbaBackend:
    """Pools NumPy arrays on the CPU with compiled kernels, on the engine's threads.

    The NumPy backend computes calls without a kernel. Results are bit-identical.
    """

    name = "numba"
    modes = (Mode.MAX, Mode.MIN, Mode.AVERAGE, Mode.SUM)
    dtypes = FLOATS
    index_formats = tuple(IndexFormat)

    def __init__(self) -> None:
        self._numpy = NumpyBackend()
        self.library = Library()
        self.launches = Launches(Memo(forward_launch), Memo(index_launch), Memo(backward_launch))

    def devices(self) -> tuple[str, ...]:
        """Return the name of the CPU and the number of threads that one call may use."""
        return self._numpy.devices()

    def warm_up(self, *, background: bool) -> None:
        """Compile the kernels for float32, except mode MIN, or load them from the disk cache.

        Args:
            background: whether later calls that need another kernel are computed by the NumPy
                backend until that kernel is compiled; otherwise they wait for it.
        """
        x = np.zeros((1, 1, 4, 16), np.float32)
        # Overlapping and adjacent windows, and averages of three elements in a row.
        windows = (*product((Mode.MAX, Mode.AVERAGE), (2,), (1, 2)), (Mode.AVERAGE, 3, 1))
        for mode, kernel, stride in windows:
            plan = make_plan(PoolSpec(mode, kernel, stride), x.shape, x.dtype)
            output = np.empty(plan.output_shape, np.float32)
            indices = np.zeros(plan.output_shape, plan.index_dtype) if plan.selects else None
            self.forward(plan, x, output, None)
            self.forward(plan, x, output, indices)
            self.backward(plan, output, indices, None, np.empty_like(x))
        for mode in (Mode.MAX, Mode.AVERAGE):  # of short rows
            plan = make_plan(PoolSpec(mode, 3, 2), x.shape, x.dtype)
            self.forward(plan, x, np.empty(plan.output_shape, np.float32), None)
        if background:
            self.library.compile_in_background()

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pool C-contiguous `x` into C-contiguous `output` and, if given, `indices`."""
        if indices is None:
            is_done = self._run(self.launches.forward(plan), x, output)
        else:
            is_done = self._run(self.launches.indices(plan), x, output, indices)
        if not is_done:
            self._numpy.forward(plan, x, output, indices)

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Compute the gradient into C-contiguous `dx` from C-contiguous arrays."""
        launch = self.launches.backward(plan)
        is_done = (
            self._run(launch, dy, dx) if indices is None else self._run(launch, dy, indices, dx)
        )
        if not is_done:
            self._numpy.backward(plan, dy, indices, x, dx)

    def _run(self, launch: Launch, *tensors: Array) -> bool:
        """Run a kernel on tensors; return whether it computed the result."""
        if launch is NO_KERNEL:
            return False
        compiled = self.library.find(launch)
        if compiled is None:
            return False
        rows = [tensor.reshape(-1) for tensor in tensors]
        if launch.converted is not None:
            rows[0] = rows[0].astype(launch.converted)
        if launch.size_bytes < threads.SHARED_BYTES:
            return not compiled(*rows, *launch.records, 0, launch.tiles)
        work = partial(compiled, *rows, *launch.records)
        return not any(threads.run_range(work, launch.tiles, launch.size_bytes))


def load() -> NumbaBackend:
    """Return the backend.

    Raises:
        ImportError: Numba is not installed.
    """
    return NumbaBackend()
