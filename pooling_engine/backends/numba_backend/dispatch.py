"""From a plan to the kernel that computes it, with all arguments but the range of slabs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.backward.average_sum import spread
from pooling_engine.backends.numba_backend.backward.max_min_gather import gather
from pooling_engine.backends.numba_backend.backward.max_min_scatter import scatter
from pooling_engine.backends.numba_backend.backward.non_overlapping import WIDEST, shares, tiles
from pooling_engine.backends.numba_backend.forward.average_sum import sums
from pooling_engine.backends.numba_backend.forward.global_sum import plane_sums
from pooling_engine.backends.numba_backend.forward.max_min import maxima, minima
from pooling_engine.backends.numba_backend.forward.max_min_indices import argmaxima, argminima
from pooling_engine.backends.numba_backend.language.streaming import STREAMED_BYTES
from pooling_engine.backends.numba_backend.tables.adjacent_windows import Tiling, tiling_of
from pooling_engine.backends.numba_backend.tables.axes import (
    geometry_of,
    is_left,
    reach_of,
)
from pooling_engine.backends.numba_backend.tables.index_targets import count_offsets, targets_of
from pooling_engine.backends.numba_backend.tables.reaching_outputs import gathering_of
from pooling_engine.backends.rules import empty_window_extreme
from pooling_engine.dtypes import BFLOAT16, FLOATS, is_bfloat16
from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode

Array = NDArray[Any]

MAX_NUMBERED_TAPS = 65_535  # of windows with indices; more need wider numbers than kernels keep
MAX_OFFSETS = 1 << 20  # entries of the table of what indices name
MAX_REACHED = 1 << 22  # entries of the lists of outputs that reach a position
# Gradients of extremes are gathered over so many channels and windows of so few taps, where they
# are last; else they are scattered sooner (docs/adr/0004).
GATHERED_CHANNELS = 48
GATHERED_TAPS = 25
HALVES = tuple(dtype for dtype in (np.dtype(np.float16), BFLOAT16) if dtype is not None)


class KernelCall(NamedTuple):
    """A kernel and what to call it with.

    Attributes:
        kernel: takes the arguments and a range of slabs; says whether it left a doubt.
        arguments: all but the range.
        slabs: how many there are.
        size_bytes: of the larger tensor.
    """

    kernel: Any
    arguments: tuple[Any, ...]
    slabs: int
    size_bytes: int


def forward_call(
    plan: PoolPlan, x: Array, output: Array, indices: Array | None
) -> KernelCall | None:
    """What computes the forward pass of a plan; None if no kernel does."""
    if plan.outer == 0 or plan.mode is Mode.LP or plan.dtype not in FLOATS:
        return None
    if indices is not None:
        return _choose(plan, x, output, indices) if plan.taps <= MAX_NUMBERED_TAPS else None
    if plan.selects:
        return _select(plan, x, output)
    if plan.is_global and plan.inner == 1:
        return _sum_planes(plan, x, output)
    return _sum(plan, x, output)


def backward_call(plan: PoolPlan, dy: Array, indices: Array | None, dx: Array) -> KernelCall | None:
    """What computes the backward pass of a plan; None if no kernel does."""
    if plan.outer == 0 or plan.mode is Mode.LP or plan.shares_ties:
        return None
    tiling = tiling_of(plan)
    if tiling and (indices is None or tiling.kernel <= WIDEST):
        return _fill_tiles(plan, tiling, dy, indices, dx)
    if indices is not None:
        if plan.taps > MAX_NUMBERED_TAPS or count_offsets(plan) > MAX_OFFSETS:
            return None
        return (_gather if _is_gathered(plan) else _scatter)(plan, dy, indices, dx)
    is_short = sum(axis.outputs * axis.kernel for axis in plan.axes) <= MAX_REACHED
    return _spread(plan, dy, dx) if is_short else None


def _is_gathered(plan: PoolPlan) -> bool:
    """Whether gradients of extremes are gathered; windows that are no tiles are given."""
    if plan.inner < GATHERED_CHANNELS or plan.taps > GATHERED_TAPS:
        return False
    is_short = math.prod(axis.outputs * axis.kernel for axis in plan.axes) <= MAX_REACHED
    return is_short and targets_of(plan).overlaps


def _select(plan: PoolPlan, x: Array, output: Array) -> KernelCall:
    g, kernel = geometry_of(plan), maxima if plan.mode is Mode.MAX else minima
    arguments = (
        read(x), written(output), g.axes, g.tables, g.inner, g.height, _empty(plan),
        is_bfloat16(plan.dtype),
    )  # fmt: skip
    return KernelCall(kernel, arguments, g.slabs, x.nbytes)


def _choose(plan: PoolPlan, x: Array, output: Array, indices: Array) -> KernelCall:
    g, kernel = geometry_of(plan), argmaxima if plan.mode is Mode.MAX else argminima
    none = indices.dtype.type(np.iinfo(indices.dtype).max)
    arguments = (
        read(x), written(output), written(indices), g.axes, g.tables, g.inner, g.height,
        _empty(plan), none, is_bfloat16(plan.dtype),
    )  # fmt: skip
    return KernelCall(kernel, arguments, g.slabs, x.nbytes)


def _sum(plan: PoolPlan, x: Array, output: Array) -> KernelCall:
    g, (divisor, factors) = geometry_of(plan), divisors_of(plan)
    arguments = (
        read(x), written(output), g.axes, g.tables, factors, g.inner, g.height, divisor,
        _zero(plan), is_bfloat16(plan.dtype),
    )  # fmt: skip
    return KernelCall(sums, arguments, g.slabs, x.nbytes)


def _sum_planes(plan: PoolPlan, x: Array, output: Array) -> KernelCall:
    divisor, factors = divisors_of(plan)
    arguments = (
        read(x), written(output), factors, plan.axes[0].size, divisor, _zero(plan),
        is_bfloat16(plan.dtype),
    )  # fmt: skip
    return KernelCall(plane_sums, arguments, plan.outer, x.nbytes)


def _fill_tiles(
    plan: PoolPlan, tiling: Tiling, dy: Array, indices: Array | None, dx: Array
) -> KernelCall:
    t, is_streamed, is_brain = tiling, dx.nbytes > STREAMED_BYTES, is_bfloat16(plan.dtype)
    if indices is not None:
        arguments = (read(dy), read(indices), written(dx), *t[:-1], is_streamed, is_brain)
        return KernelCall(tiles, arguments, t.slabs, dx.nbytes)
    divisor, _ = divisors_of(plan)  # one for all: tiles are whole
    shared = (read(dy), written(dx), *t[:-1], is_streamed, divisor, _zero(plan), is_brain)
    return KernelCall(shares, shared, t.slabs, dx.nbytes)


def _gather(plan: PoolPlan, dy: Array, indices: Array, dx: Array) -> KernelCall:
    g = gathering_of(plan)
    arguments = (
        read(dy), read(indices), written(dx), *g[:-1], _zero(plan), is_bfloat16(plan.dtype),
    )  # fmt: skip
    return KernelCall(gather, arguments, g.slabs, dx.nbytes)


def _scatter(plan: PoolPlan, dy: Array, indices: Array, dx: Array) -> KernelCall:
    t = targets_of(plan)
    arguments = (
        read(dy), read(indices), written(dx), *t[:-1], _zero(plan), is_bfloat16(plan.dtype),
    )  # fmt: skip
    return KernelCall(scatter, arguments, t.slabs, dx.nbytes)


def _spread(plan: PoolPlan, dy: Array, dx: Array) -> KernelCall:
    g, reach, (divisor, factors) = geometry_of(plan), reach_of(plan), divisors_of(plan)
    arguments = (
        read(dy), written(dx), g.axes, reach.starts, reach.ends, reach.reached, reach.places,
        factors, g.inner, reach.height, divisor, _zero(plan), is_bfloat16(plan.dtype),
    )  # fmt: skip
    return KernelCall(spread, arguments, reach.slabs, dx.nbytes)


def written(array: Array) -> Array:
    """The elements in one row, in a type that kernels know."""
    row = array.reshape(-1)
    return row.view(np.uint16) if array.dtype in HALVES else row


def read(array: Array) -> Array:
    """The same, read-only: a kernel is compiled once for arrays that may be written to or not."""
    row = written(array if array.flags.aligned else array.copy()).view()
    row.flags.writeable = False
    return row


@lru_cache(maxsize=512)
def _zero(plan: PoolPlan) -> Any:
    """Zero, of the type that elements are computed in."""
    return np.float32(0) if plan.dtype in HALVES else plan.dtype.type(0)


@lru_cache(maxsize=512)
def _empty(plan: PoolPlan) -> Any:
    """The extreme of no elements, in that type."""
    return type(_zero(plan))(empty_window_extreme(plan))


@Memo
def divisors_of(plan: PoolPlan) -> tuple[float, NDArray[np.float64]]:
    """The divisor of all outputs, or else those of each, factored over the axes of a geometry."""
    none = np.empty(0)
    if plan.mode is Mode.SUM:
        return 1.0, none
    if plan.divisor_override is not None:
        return float(plan.divisor_override), none
    factors = divisors(plan)
    if all(factor.min() == factor.max() for factor in factors):
        return float(math.prod(int(factor[0]) for factor in factors)), none
    if len(factors) > 1 and is_left(plan.axes[0]):
        factors = factors[1:]
    return 1.0, np.concatenate(factors, dtype=np.float64)
