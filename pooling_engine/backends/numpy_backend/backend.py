"""The NumPy backend: always there, complete, and blocked so that it runs at cache speed."""

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
    """Pools NumPy arrays on the processor, block by block on the engine's threads."""

    name = "numpy"
    modes = tuple(Mode)
    dtypes = FLOATS + INTEGERS
    index_formats = tuple(IndexFormat)

    def warm_up(self, *, background: bool) -> None:
        """There is nothing to get ready."""

    def devices(self) -> tuple[str, ...]:
        """The processor and the threads that one call may use."""
        threads = thread_count()
        return (f"CPU, {threads} thread{'s' if threads > 1 else ''}",)

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pools C-contiguous `x` into C-contiguous `output` and, if given, `indices`."""
        if _is_largest_magnitude(plan) and is_bfloat16(plan.dtype):
            wide = np.empty(output.shape)
            with np.errstate(all="ignore"):
                self.forward(_as_float64(plan), x.astype(np.float64), wide, indices)
                store(output, wide)
            return
        if _is_largest_magnitude(plan):
            self.forward(_as_maximum(plan), np.abs(x), output, indices)
            with np.errstate(all="ignore"):
                np.maximum(output, 0, out=output)  # the norm of no taps
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

        run_blocks(partial(_quietly, pool), forward_blocks(plan))

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Computes the gradient into C-contiguous `dx` from C-contiguous arrays."""
        if indices is not None:
            check_window_indices(plan, indices)
        if _is_largest_magnitude(plan) and is_bfloat16(plan.dtype):
            wide = np.empty(dx.shape)
            with np.errstate(all="ignore"):
                x = _given(x).astype(np.float64)
                self.backward(_as_float64(plan), dy.astype(np.float64), None, x, wide)
                store(dx, wide)
            return
        if _is_largest_magnitude(plan):
            with np.errstate(all="ignore"):
                self._largest_magnitude_backward(plan, dy, _given(x), dx)
            return
        gradients = dy.reshape(plan.output_block_shape)
        results = dx.reshape(plan.input_block_shape)
        taps = None if indices is None else indices.reshape(plan.output_block_shape)
        inputs = None if x is None else x.reshape(plan.input_block_shape)

        def scatter(block: Block) -> None:
            source, target = as_summable(gradients[block.output_part]), results[block.input_part]
            if plan.shares_ties:
                tied = _given(inputs)[block.input_part]
                if plan.is_global:
                    global_tie_backward(plan, source, tied, target)
                else:
                    tie_backward(plan, block, source, tied, target)
            elif plan.selects:
                select_backward(plan, block, source, _given(taps)[block.output_part], target)
            elif plan.is_global:
                x_part = None if inputs is None else as_summable(inputs[block.input_part])
                global_backward(plan, source, x_part, target)
            elif plan.mode is Mode.LP:
                x_part = as_summable(_given(inputs)[block.input_part])
                norm_backward(plan, block, source, x_part, target)
            else:
                sum_backward(plan, block, source, target)

        run_blocks(partial(_quietly, scatter), backward_blocks(plan))

    def _largest_magnitude_backward(self, plan: PoolPlan, dy: Array, x: Array, dx: Array) -> None:
        """LP with p = inf: the first tap of the largest magnitude gets ``dy * sign(x)``."""
        plan = _as_maximum(plan)
        output = np.empty(plan.output_shape, plan.dtype)
        indices = np.empty(plan.output_shape, plan.index_dtype)
        self.forward(plan, np.abs(x), output, indices)
        self.backward(plan, dy, indices, None, dx)
        dx[x == 0] = 0  # the norm is 0 there
        np.copyto(dx, times_sign(dx, x))
        make_canonical(dx)


def load() -> NumpyBackend:
    """The backend; NumPy is always there."""
    return NumpyBackend()


def _is_largest_magnitude(plan: PoolPlan) -> bool:
    return plan.mode is Mode.LP and math.isinf(plan.norm_p)


@lru_cache(maxsize=64)  # one plan for each, so that its blocks are cut once
def _as_maximum(plan: PoolPlan) -> PoolPlan:
    return replace(plan, mode=Mode.MAX)


@lru_cache(maxsize=64)
def _as_float64(plan: PoolPlan) -> PoolPlan:
    return replace(plan, dtype=np.dtype(np.float64))


def _quietly(work: Callable[[Block], None], block: Block) -> None:
    """Infinities and NaNs are answers here, not accidents."""
    with np.errstate(all="ignore"):
        work(block)


def _given(array: Array | None) -> Array:
    """The array, which the engine has made sure is there."""
    if array is None:
        raise AssertionError("the engine gives this mode its residual")
    return array
