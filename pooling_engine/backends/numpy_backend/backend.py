"""NumPy backend: always available, complete, and blocked to run at cache speed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numpy_backend.block import Block, backward_blocks, forward_blocks
from pooling_engine.backends.numpy_backend.select import select_backward, select_forward
from pooling_engine.backends.numpy_backend.sums import (
    make_canonical,
    norm_backward,
    norm_forward,
    sum_backward,
    sum_forward,
    times_sign,
)
from pooling_engine.backends.numpy_backend.ties import global_tie_backward, tie_backward
from pooling_engine.backends.numpy_backend.whole import global_backward, global_forward
from pooling_engine.dtypes import FLOATS, INTEGERS, as_summable, is_bfloat16, store
from pooling_engine.plans.indices import check_window_indices
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.runtime.threads import run_blocks, thread_count
from pooling_engine.specs.enums import IndexFormat, Mode

Array = NDArray[Any]


class NumpyBackend:
    """Pooling of NumPy arrays on the CPU, block by block on the engine's threads."""

    name = "numpy"
    modes = tuple(Mode)
    dtypes = FLOATS + INTEGERS
    index_formats = tuple(IndexFormat)

    def warm_up(self, *, background: bool) -> None:
        """Do nothing: there is nothing to compile."""

    def devices(self) -> tuple[str, ...]:
        """Return the CPU, with the number of threads that one call may use."""
        threads = thread_count()
        return (f"CPU, {threads} thread{'s' if threads > 1 else ''}",)

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pool `x` into `output` and, if given, `indices`; see `Backend`."""
        if _is_largest_magnitude(plan) and is_bfloat16(plan.dtype):
            wide = np.empty(output.shape)
            with np.errstate(all="ignore"):
                self.forward(_as_float64(plan), x.astype(np.float64), wide, indices)
                store(output, wide)
            return
        if _is_largest_magnitude(plan):
            self.forward(_as_maximum(plan), np.abs(x), output, indices)
            with np.errstate(all="ignore"):
                np.maximum(output, 0, out=output)  # the norm of an empty window
                make_canonical(output)
            return
        inputs = x.reshape(plan.input_block_shape)
        outputs = output.reshape(plan.output_block_shape)
        taps = None if indices is None else indices.reshape(plan.output_block_shape)

        def pool(block: Block) -> None:
            source, target = inputs[block.input_part], outputs[block.output_part]
            chosen = None if taps is None else taps[block.output_part]
            if plan.is_global:
                global_forward(plan, source, target, chosen)
            elif plan.selects:
                select_forward(plan, block, source, target, chosen)
            elif plan.mode is Mode.LP:
                norm_forward(plan, block, as_summable(source), target)
            else:
                sum_forward(plan, block, as_summable(source), target)

        run_blocks(partial(_without_warnings, pool), forward_blocks(plan))

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Compute the gradient of the input into `dx`; see `Backend`."""
        if indices is not None:
            check_window_indices(plan, indices)
        if _is_largest_magnitude(plan) and is_bfloat16(plan.dtype):
            wide = np.empty(dx.shape)
            with np.errstate(all="ignore"):
                x = _required(x).astype(np.float64)
                self.backward(_as_float64(plan), dy.astype(np.float64), None, x, wide)
                store(dx, wide)
            return
        if _is_largest_magnitude(plan):
            with np.errstate(all="ignore"):
                self._largest_magnitude_backward(plan, dy, _required(x), dx)
            return
        gradients = dy.reshape(plan.output_block_shape)
        results = dx.reshape(plan.input_block_shape)
        taps = None if indices is None else indices.reshape(plan.output_block_shape)
        inputs = None if x is None else x.reshape(plan.input_block_shape)

        def scatter(block: Block) -> None:
            source, target = as_summable(gradients[block.output_part]), results[block.input_part]
            if plan.shares_ties:
                tied = _required(inputs)[block.input_part]
                if plan.is_global:
                    global_tie_backward(plan, source, tied, target)
                else:
                    tie_backward(plan, block, source, tied, target)
            elif plan.selects:
                select_backward(plan, block, source, _required(taps)[block.output_part], target)
            elif plan.is_global:
                x_part = None if inputs is None else as_summable(inputs[block.input_part])
                global_backward(plan, source, x_part, target)
            elif plan.mode is Mode.LP:
                x_part = as_summable(_required(inputs)[block.input_part])
                norm_backward(plan, block, source, x_part, target)
            else:
                sum_backward(plan, block, source, target)

        run_blocks(partial(_without_warnings, scatter), backward_blocks(plan))

    def _largest_magnitude_backward(self, plan: PoolPlan, dy: Array, x: Array, dx: Array) -> None:
        """Compute the gradient of LP with p = inf: ``dy * sign(x)`` at the first largest |x|."""
        plan = _as_maximum(plan)
        output = np.empty(plan.output_shape, plan.dtype)
        indices = np.empty(plan.output_shape, plan.index_dtype)
        self.forward(plan, np.abs(x), output, indices)
        self.backward(plan, dy, indices, None, dx)
        dx[x == 0] = 0  # the norm is 0 there
        np.copyto(dx, times_sign(dx, x))
        make_canonical(dx)


def load() -> NumpyBackend:
    """Return the backend; NumPy is always available."""
    return NumpyBackend()


def _is_largest_magnitude(plan: PoolPlan) -> bool:
    return plan.mode is Mode.LP and math.isinf(plan.norm_p)


@lru_cache(maxsize=64)  # the same object each time, so that its blocks are cut only once
def _as_maximum(plan: PoolPlan) -> PoolPlan:
    return replace(plan, mode=Mode.MAX)


@lru_cache(maxsize=64)
def _as_float64(plan: PoolPlan) -> PoolPlan:
    return replace(plan, dtype=np.dtype(np.float64))


def _without_warnings(work: Callable[[Block], None], block: Block) -> None:
    # Infinities and NaNs are expected results.
    with np.errstate(all="ignore"):
        work(block)


def _required(array: Array | None) -> Array:
    """Return the array, which `BackwardCall` has checked to be present."""
    if array is None:
        raise AssertionError("expected the indices or the input (internal invariant)")
    return array
