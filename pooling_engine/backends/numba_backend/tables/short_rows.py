"""Windows of small planes with short rows, as the kernels take them."""

from __future__ import annotations

from functools import lru_cache, reduce

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import (
    ROW_TAPS,
    RowDivisors,
    RowSizes,
    RowTables,
)
from pooling_engine.backends.numba_backend.tables.axes import is_adjacent, is_wide
from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy

MOST_ELEMENTS = 1024  # of a plane; larger ones are pooled as fast by the other kernels
MOST_DIVISOR = 1 << 20  # `quotient_by_inverse` is exact up to far larger ones
EXTREME_LANES, SUM_LANES = 16, 8


@lru_cache(maxsize=512)
def has_short_rows(plan: PoolPlan) -> bool:
    """Return whether the kernels in `forward/short_rows*.py` compute the outputs fastest."""
    if plan.dtype != np.float32 or plan.inner > 1 or len(plan.axes) != 2:
        return False
    first, last = plan.axes
    if not isinstance(last, SlidingAxis) or not isinstance(first, SlidingAxis):
        return False
    if first.size * last.size > MOST_ELEMENTS or last.kernel != ROW_TAPS:
        return False
    if last.window.stride > 2 or (is_adjacent(first) and is_adjacent(last)):
        return False
    if not all(map(_has_elements, plan.axes)):
        return False
    if plan.selects:
        is_wide_plan = any(map(is_wide, plan.axes))
        return plan.nan_policy is not NanPolicy.IGNORE and not is_wide_plan and _fits(last)
    if any(map(plan.scans, plan.axes)):
        return False
    values = _divisors(plan)
    is_exact = (values == np.rint(values)).all() and (abs(values) <= MOST_DIVISOR).all()
    is_faster = last.window.stride == 2 or values.min() < values.max()
    return bool(is_exact and is_faster)


def _fits(axis: SlidingAxis) -> bool:
    """Return whether a vector holds a row of two planes, or all of a row with stride 2."""
    lanes = EXTREME_LANES if axis.window.stride == 2 else EXTREME_LANES // 2
    return _starts(axis) <= lanes


def _starts(axis: SlidingAxis) -> int:
    """Return the positions from the first window to the last."""
    return (axis.outputs - 1) * axis.window.stride + 1


@Memo
def row_tables(plan: PoolPlan) -> RowTables:
    """Return the tables of a plan that `has_short_rows`."""
    first, last = plan.axes
    assert isinstance(last, SlidingAxis)
    begin, end = first.tap_limits()
    rows = first.starts() + begin * first.dilation
    stride, extent = last.window.stride, last.window.extent
    vectors = -(-_starts(last) // EXTREME_LANES)
    is_paired = plan.selects and _starts(last) <= EXTREME_LANES // 2
    sizes = RowSizes(
        height=first.size,
        width=last.size,
        size=first.size * last.size,
        outputs=first.outputs,
        out_row=last.outputs,
        out_size=first.outputs * last.outputs,
        row_step=last.dilation,
        stride=stride,
        before=last.window.padding_before,
        column_step=first.dilation,
        vectors=vectors,
        margin=max(last.window.padding_before, vectors * EXTREME_LANES + extent),
    )
    return RowTables(
        sizes=sizes,
        limits=np.concatenate([rows, end - begin]),
        masks=_masks_of_taps(last, vectors, is_paired) if plan.selects else _mask_of_row(last),
        is_paired=is_paired,
        rejects_nan=plan.nan_policy is NanPolicy.ERROR,
        tiles=plan.outer,
    )


@Memo
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


def _masks_of_taps(axis: SlidingAxis, vectors: int, is_paired: bool) -> np.ndarray:
    """Return the masks of extremes: 16 lanes for each vector and each of its taps."""
    lanes = np.arange(EXTREME_LANES) % (EXTREME_LANES // 2 if is_paired else EXTREME_LANES)
    starts = lanes + EXTREME_LANES * np.arange(vectors)[:, None, None]
    taps = axis.dilation * np.arange(axis.kernel)[:, None] - axis.window.padding_before
    positions = starts + taps
    return _bits((positions >= 0) & (positions < axis.size), np.uint16)


def _mask_of_row(axis: SlidingAxis) -> np.ndarray:
    """Return the mask of the last vector of a row: 8 lanes."""
    return _bits(np.arange(SUM_LANES) <= (axis.size - 1) % SUM_LANES, np.uint8)


def _bits(lanes: np.ndarray, dtype: type) -> np.ndarray:
    return (lanes.astype(np.int64) << np.arange(lanes.shape[-1])).sum(-1).astype(dtype).reshape(-1)
