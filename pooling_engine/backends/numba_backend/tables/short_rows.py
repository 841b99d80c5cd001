"""Windows of small planes with short rows, as the kernels take them."""

from __future__ import annotations

from functools import reduce

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import (
    ROW_TAPS,
    RowDivisors,
    RowSizes,
    RowTables,
)
from pooling_engine.backends.numba_backend.tables.axes import is_adjacent, is_wide
from pooling_engine.backends.numba_backend.tables.flat_planes import begins_inside
from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy

MOST_SUMMED = 1024  # elements of a plane; larger ones are pooled as fast by the other kernels
MOST_SELECTED = 512  # the same, for extremes
MOST_SELECTED_BY_LANE = 64  # the same, if outputs are not compressed in registers
MOST_DIVISOR = 1 << 20  # `quotient_by_inverse` is exact up to far larger ones
SUM_LANES = 8


def has_short_rows(plan: PoolPlan, most_selected: int = MOST_SELECTED) -> bool:
    """Return whether the kernels in `forward/short_rows*.py` compute the outputs fastest.

    Args:
        plan: the plan.
        most_selected: elements of the largest plane whose extremes these kernels select.
    """
    if plan.dtype != np.float32 or plan.inner > 1 or len(plan.axes) != 2:
        return False
    first, last = plan.axes
    if not isinstance(last, SlidingAxis) or not isinstance(first, SlidingAxis):
        return False
    most = most_selected if plan.selects else MOST_SUMMED
    if first.size * last.size > most or last.kernel != ROW_TAPS:
        return False
    if last.window.stride > 2 or (is_adjacent(first) and is_adjacent(last)):
        return False
    if not all(map(_has_elements, plan.axes)):
        return False
    if plan.selects:
        is_flat = all(begins_inside(axis) and not is_wide(axis) for axis in plan.axes)
        return is_flat and plan.nan_policy is not NanPolicy.IGNORE
    if any(map(plan.scans, plan.axes)):
        return False
    values = _divisors(plan)
    is_exact = (values == np.rint(values)).all() and (abs(values) <= MOST_DIVISOR).all()
    is_faster = last.window.stride == 2 or values.min() < values.max()
    return bool(is_exact and is_faster)


def row_tables(plan: PoolPlan) -> RowTables:
    """Return the tables of a plan of AVERAGE or SUM that `has_short_rows`."""
    first, last = plan.axes
    assert isinstance(last, SlidingAxis)
    begin, end = first.tap_limits()
    rows = first.starts() + begin * first.dilation
    sizes = RowSizes(
        height=first.size,
        width=last.size,
        size=first.size * last.size,
        outputs=first.outputs,
        out_row=last.outputs,
        out_size=first.outputs * last.outputs,
        row_step=last.dilation,
        stride=last.window.stride,
        before=last.window.padding_before,
        column_step=first.dilation,
        margin=max(last.window.padding_before, SUM_LANES),
    )
    return RowTables(
        sizes=sizes,
        limits=np.concatenate([rows, end - begin]),
        masks=_mask_of_row(last),
        tiles=plan.outer,
    )


def row_divisors(plan: PoolPlan) -> RowDivisors:
    """Return the divisors of a plan of AVERAGE or SUM that `has_short_rows`."""
    rows = _divisors(plan)
    is_same = bool((rows == rows[:1]).all())
    last = plan.axes[-1]
    assert isinstance(last, SlidingAxis)
    length = -(-last.outputs // SUM_LANES) * SUM_LANES
    table = np.ones((1 if is_same else len(rows), length))
    table[:, : last.outputs] = rows[: len(table)]
    stored = last.window.padding_before + -(-last.size // SUM_LANES) * SUM_LANES
    pitch = max(stored, length * last.window.stride + last.window.extent)
    return RowDivisors(table.reshape(-1), 1 / table.reshape(-1), 0 if is_same else length, pitch)


def _divisors(plan: PoolPlan) -> np.ndarray:
    """Return the divisor of each output of a plane."""
    shape = tuple(axis.outputs for axis in plan.axes)
    if plan.mode is Mode.SUM:
        return np.ones(shape)
    if plan.divisor_override is not None:
        return np.full(shape, float(plan.divisor_override))
    return reduce(np.multiply.outer, divisors(plan)).astype(np.float64)


def _has_elements(axis: Axis) -> bool:
    """Return whether all windows have a tap on an element along an axis, and there are windows."""
    first, stop = axis.tap_limits()
    return axis.outputs > 0 and bool((stop > first).all())


def _mask_of_row(axis: SlidingAxis) -> np.ndarray:
    """Return the mask of the last vector of a row: 8 lanes."""
    return np.array([(2 << (axis.size - 1) % SUM_LANES) - 1], np.uint8)
