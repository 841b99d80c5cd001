"""The Numba backend: compiled kernels for what is common, the NumPy backend for the rest."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.dispatch import KernelCall, backward_call, forward_call
from pooling_engine.backends.numba_backend.library import Library
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from pooling_engine.dtypes import FLOATS
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import make_plan
from pooling_engine.runtime.threads import SHARED_BYTES, run_range
from pooling_engine.specs.enums import IndexFormat, Mode
from pooling_engine.specs.spec import PoolSpec

Array = NDArray[Any]


class NumbaBackend:
    """Pools NumPy arrays on the processor with compiled kernels, on the engine's threads.

    Calls go to the NumPy backend where there is no kernel, and where the order of taps must settle
    what a kernel leaves open: beside NaNs, and beside zeros of both signs. The bits are the same.
    """

    name = "numba"
    modes = (Mode.MAX, Mode.MIN, Mode.AVERAGE, Mode.SUM)
    dtypes = FLOATS
    index_formats = tuple(IndexFormat)

    def __init__(self) -> None:
        self._numpy = NumpyBackend()
        self._library = Library()

    def devices(self) -> tuple[str, ...]:
        """The processor and the threads that one call may use."""
        return self._numpy.devices()

    def warm_up(self, *, background: bool) -> None:
        """Compiles the kernels for float32, but for the smallest elements; or finds them on disk.

        Args:
            background: whether calls that need another kernel are computed by the NumPy backend
                from now on, until that is compiled; else they wait for it.
        """
        x = np.zeros((1, 1, 4, 16), np.float32)
        windows_over_each_other, tiles = 1, 2
        for mode, stride in product((Mode.MAX, Mode.AVERAGE), (windows_over_each_other, tiles)):
            plan = make_plan(PoolSpec(mode, 2, stride), x.shape, x.dtype)
            output = np.empty(plan.output_shape, np.float32)
            indices = np.zeros(plan.output_shape, plan.index_dtype) if plan.selects else None
            self.forward(plan, x, output, None)
            self.forward(plan, x, output, indices)
            self.backward(plan, output, indices, None, np.empty_like(x))
        if background:
            self._library.compile_in_background()

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pools C-contiguous `x` into C-contiguous `output` and, if given, `indices`."""
        call = forward_call(plan, x, output, indices)
        if call is None or not self._run(call):
            self._numpy.forward(plan, x, output, indices)

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Computes the gradient into C-contiguous `dx` from C-contiguous arrays."""
        call = backward_call(plan, dy, indices, dx)
        if call is None or not self._run(call):
            self._numpy.backward(plan, dy, indices, x, dx)

    def _run(self, call: KernelCall) -> bool:
        """Whether the kernel was there and left no doubt."""
        if not self._library.has(call.kernel, call.arguments):
            return False
        if call.size_bytes < SHARED_BYTES:
            return not call.kernel(*call.arguments, 0, call.slabs)
        work = partial(call.kernel, *call.arguments)
        return not any(run_range(work, call.slabs, call.size_bytes))


def load() -> NumbaBackend:
    """The backend, where Numba is installed.

    Raises:
        ImportError: it is not.
    """
    return NumbaBackend()
