"""Large windows with a stride of 1 along two axes, as the kernels take them."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import (
    LargeDivisors,
    LargeSizes,
    LargeSums,
    LargeTables,
)
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.divisors import divisors_of
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.backends.numba_backend.tables.short_rows import MOST_DIVISOR
from pooling_engine.backends.rules import empty_window_extreme
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import NanPolicy

LEAST_TAPS = 5  # fewer are pooled as fast tap by tap
EXTREME_LANES, SUM_LANES = 16, 8  # of the vectors; rows have as many elements
LEAST_TILE = 2  # rows of outputs, in kernels: neighbouring tiles share rows of the input


def has_large_windows(plan: PoolPlan) -> bool:
    """Return whether the kernels in `forward/large_*.py` compute the outputs fastest."""
    if plan.inner > 1 or len(plan.axes) != 2 or not all(map(_is_large, plan.axes)):
        return False
    first, last = plan.axes
    if plan.selects:
        is_long = min(last.size, last.outputs) >= EXTREME_LANES
        return is_long and plan.nan_policy is not NanPolicy.IGNORE
    least = min(first.size, first.outputs, last.size, last.outputs)  # rows are transposed
    is_alike = plan.scans(first) == plan.scans(last)
    return is_alike and plan.dtype == np.float32 and least >= SUM_LANES


def _is_large(axis: Axis) -> TypeGuard[SlidingAxis]:
    """Return whether windows along an axis are large, have a stride of 1, and have elements."""
    if not isinstance(axis, SlidingAxis) or axis.window.stride > 1 or axis.dilation > 1:
        return False
    return LEAST_TAPS <= axis.kernel < 2 * axis.size


def large_tables(plan: PoolPlan) -> LargeTables:
    """Return the tables of MAX and MIN for a plan that `has_large_windows`."""
    element, (first, last) = element_of(plan), plan.axes
    rows = tile_sizes.SELECTED // (last.size * element.zero.itemsize)
    sizes = _sizes(plan, min(first.outputs, max(rows, LEAST_TILE * first.kernel)))
    group = max(1, tile_sizes.PADDED // (sizes.pitch * element.zero.itemsize))
    room = group * sizes.pitch + sizes.before + sizes.row_taps + 2 * EXTREME_LANES
    return LargeTables(
        sizes=sizes,
        group=group,
        room=-(-room // EXTREME_LANES) * EXTREME_LANES,  # the second one is aligned, too
        tiles=plan.outer * -(-first.outputs // sizes.tile),
        element=element,
        identity=type(element.zero)(empty_window_extreme(plan)),
        rejects_nan=plan.nan_policy is NanPolicy.ERROR,
    )


def large_sums(plan: PoolPlan) -> LargeSums:
    """Return the tables of AVERAGE and SUM for a plan that `has_large_windows`."""
    first, last = plan.axes
    # Tiles begin with a block of rows, and their rows fill a vector.
    rows = max(tile_sizes.SELECTED // (8 * last.size * first.kernel), LEAST_TILE) * first.kernel
    while 0 < first.outputs % rows < SUM_LANES:
        rows += first.kernel
    sizes = _sizes(plan, min(first.outputs, rows))
    return LargeSums(
        sizes=sizes,
        scans=plan.scans(first),
        tiles=plan.outer * -(-first.outputs // sizes.tile),
    )


def large_divisors(plan: PoolPlan) -> LargeDivisors:
    """Return the divisors of AVERAGE and SUM for a plan that `has_large_windows`."""
    factors, _, divisor = divisors_of(plan)
    if len(factors):
        rows, columns = np.split(factors, [plan.axes[0].outputs])
        return LargeDivisors(rows, columns, 0.0, 0.0)
    is_exact = divisor == round(divisor) and abs(divisor) <= MOST_DIVISOR
    return LargeDivisors(factors, factors, divisor, 1 / divisor if is_exact else 0.0)


def _sizes(plan: PoolPlan, tile: int) -> LargeSizes:
    first, last = plan.axes
    assert _is_large(first)
    assert _is_large(last)
    before = last.window.padding_before
    after = last.outputs - 1 - before + last.kernel - last.size
    return LargeSizes(
        height=first.size,
        width=last.size,
        outputs=first.outputs,
        out_row=last.outputs,
        taps=first.kernel,
        row_taps=last.kernel,
        above=first.window.padding_before,
        before=before,
        pitch=last.size + max(before, after),  # the padding after a row is that before the next
        tile=tile,
    )
