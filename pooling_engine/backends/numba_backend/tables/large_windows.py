"""Large windows with a stride of 1, as the kernels of their extremes take them."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeGuard

from pooling_engine.backends.numba_backend.language.arguments import LargeSizes, LargeTables
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.backends.rules import empty_window_extreme
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import NanPolicy

LEAST_TAPS = 5  # fewer are selected as fast tap by tap
LANES = 16  # of the vectors; rows have as many
LEAST_TILE = 2  # rows of outputs, in kernels: neighbouring tiles share rows of the input


@lru_cache(maxsize=512)
def has_large_windows(plan: PoolPlan) -> bool:
    """Return whether the kernels in `forward/large_max_min.py` compute the outputs fastest."""
    if not plan.selects or plan.inner > 1 or len(plan.axes) != 2:
        return False
    first, last = plan.axes
    if plan.nan_policy is NanPolicy.IGNORE or not (_is_large(first) and _is_large(last)):
        return False
    return min(last.size, last.outputs) >= LANES


def _is_large(axis: Axis) -> TypeGuard[SlidingAxis]:
    """Return whether windows along an axis are large, have a stride of 1, and have elements."""
    if not isinstance(axis, SlidingAxis) or axis.window.stride > 1 or axis.dilation > 1:
        return False
    return LEAST_TAPS <= axis.kernel < 2 * axis.size


@Memo
def large_tables(plan: PoolPlan) -> LargeTables:
    """Return the tables of a plan that `has_large_windows`."""
    first, last = plan.axes
    assert _is_large(first)
    assert _is_large(last)
    element = element_of(plan)
    before = last.window.padding_before
    after = last.outputs - 1 - before + last.kernel - last.size
    pitch = last.size + max(before, after)  # the padding after a row is that before the next
    row_bytes = pitch * element.zero.itemsize
    group = max(1, tile_sizes.PADDED // row_bytes)
    rows = max(tile_sizes.SELECTED // row_bytes, LEAST_TILE * first.kernel)
    tile = min(first.outputs, rows)
    sizes = LargeSizes(
        height=first.size,
        width=last.size,
        outputs=first.outputs,
        out_row=last.outputs,
        taps=first.kernel,
        row_taps=last.kernel,
        above=first.window.padding_before,
        before=before,
        pitch=pitch,
        group=group,
        room=group * pitch + before + last.kernel + 2 * LANES,
        tile=tile,
    )
    return LargeTables(
        sizes=sizes,
        tiles=plan.outer * -(-first.outputs // tile),
        element=element,
        identity=type(element.zero)(empty_window_extreme(plan)),
        rejects_nan=plan.nan_policy is NanPolicy.ERROR,
    )
