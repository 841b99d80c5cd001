"""Planes and axes of a plan, arranged for tiles; and the axes as rows of integers."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import (
    UNCHANGED,
    AxisRow,
    Integers,
    WindowTables,
)
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.backends.numba_backend.tables.regular_windows import stride_of
from pooling_engine.backends.rules import empty_window_extreme
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import NanPolicy
from pooling_engine.specs.window import Window

WIDE_TAPS = 7  # at least 5; of windows with stride 1; fewer are selected faster tap by tap
LEAST_PIECE = 64  # outputs; long rows are cut into pieces of at least as many
SCANNED_BLOCKS = 4  # of a tile, at least
NO_INTEGERS: Integers = np.empty(0, np.int64)
ONE = Window(1, 1)


@Memo
def window_tables(plan: PoolPlan) -> WindowTables:
    """Return the tables of the forward pass of a plan."""
    planes, axes = planes_and_axes(plan)
    rows: list[AxisRow] = []
    ranges = [NO_INTEGERS]
    offset = 0
    for number, axis in enumerate(axes):
        if number == 0 and is_unchanged(axis):
            rows.append(AxisRow(axis.size, axis.outputs, 1, 1, 1, UNCHANGED, 0, axis.outputs, 0))
            continue
        starts, (first, stop) = axis.starts(), axis.tap_limits()
        rows.append(_row(axis, offset, first, stop))
        ranges += [starts, first, stop]
        offset += 3 * axis.outputs
    outputs = axes[0].outputs
    height = max(1, min(outputs, _positions_per_tile(plan, axes) * outputs // axes[0].size))
    if plan.scans(axes[0]):  # a tile scans up to two blocks in vain
        height = min(outputs, max(height, SCANNED_BLOCKS * axes[0].kernel))
    if plan.selects and is_wide(axes[0]):
        height = max(height, min(outputs, _height_of_wide_windows(plan, axes)))
    element = element_of(plan)
    identity = type(element.zero)(empty_window_extreme(plan)) if plan.selects else element.zero
    return WindowTables(
        axes=np.array(rows, np.int64).reshape(-1),
        tap_ranges=np.concatenate(ranges),
        inner=plan.inner,
        height=height,
        tiles=planes * -(-outputs // height),
        element=element,
        identity=identity,
        rejects_nan=plan.nan_policy is NanPolicy.ERROR,
    )


def index_tables(plan: PoolPlan) -> WindowTables:
    """Return the tables of MAX and MIN with indices; with channels last, of higher tiles.

    The last axis is selected first, in all rows that the windows of a tile span. Rows of channels
    are long: tiles of few rows would have most of them in common.
    """
    windows = window_tables(plan)
    if plan.inner == 1:
        return windows
    planes, axes = planes_and_axes(plan)
    first = axes[0]
    rows = _positions_per_tile(plan, axes, tile_sizes.INDEXED)
    height = max(windows.height, min(first.outputs, rows * first.outputs // first.size))
    return windows._replace(height=height, tiles=planes * -(-first.outputs // height))


def planes_and_axes(plan: PoolPlan) -> tuple[int, tuple[Axis, ...]]:
    """Return the number of planes and their axes, at least two.

    Small planes are stacked, and long rows are divided, if no window changes: if windows are
    adjacent and cover the axis.
    """
    first, *others = plan.axes
    item = plan.inner * plan.dtype.itemsize
    if others:
        plane = math.prod(axis.size for axis in plan.axes) * item
        if _is_covered(first) and all(map(_is_inside, others)):
            count = largest_divisor(plan.outer, tile_sizes.WINDOWS // plane)
            return plan.outer // count, (_repeated(first, count), *others)
        return plan.outer, plan.axes
    rows = plan.outer
    if _is_covered(first):
        outputs = largest_divisor(first.outputs, tile_sizes.WINDOWS // (first.kernel * item))
        if outputs >= LEAST_PIECE:
            rows *= first.outputs // outputs
            first = SlidingAxis(outputs * first.kernel, first.window, outputs)
    return 1, (SlidingAxis(rows, ONE, rows), first)


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most `most`, or 1."""
    return next((d for d in range(min(number, most), 1, -1) if number % d == 0), 1)


def input_tile_height(plan: PoolPlan, axes: tuple[Axis, ...]) -> int:
    """Return the positions of the first axis that a tile of the *input* has."""
    return min(axes[0].size, _positions_per_tile(plan, axes))


def is_adjacent(axis: Axis) -> bool:
    """Return whether windows are adjacent along an axis, from its first element on."""
    if not isinstance(axis, SlidingAxis) or axis.window.padding_before:
        return False
    is_gapless = axis.window.stride == axis.window.extent == axis.kernel
    return is_gapless and axis.outputs * axis.kernel <= axis.size


def is_unchanged(axis: Axis) -> bool:
    """Return whether the outputs of an axis are its elements."""
    return isinstance(axis, SlidingAxis) and axis.window == ONE


def is_wide(axis: Axis) -> bool:
    """Return whether extremes of windows along an axis are selected in blocks of taps."""
    if not isinstance(axis, SlidingAxis) or axis.dilation > 1:
        return False
    return WIDE_TAPS * axis.window.stride <= axis.kernel < 2 * axis.size


def _repeated(axis: SlidingAxis, count: int) -> SlidingAxis:
    return SlidingAxis(axis.size * count, axis.window, axis.outputs * count)


def _is_inside(axis: Axis) -> bool:
    """Return whether all taps of all windows are on elements."""
    first, stop = axis.tap_limits()
    return bool((stop - first == axis.kernel).all())


def _is_covered(axis: Axis) -> TypeGuard[SlidingAxis]:
    """Return whether windows are adjacent along an axis and cover all of it."""
    return is_adjacent(axis) and axis.outputs * axis.kernel == axis.size


def _positions_per_tile(plan: PoolPlan, axes: tuple[Axis, ...], size: int = 0) -> int:
    """Return the positions of the first axis that `size` bytes have, WINDOWS by default."""
    row_bytes = math.prod(axis.size for axis in axes[1:]) * plan.inner * plan.dtype.itemsize
    return max(1, (size or tile_sizes.WINDOWS) // row_bytes)


def _height_of_wide_windows(plan: PoolPlan, axes: tuple[Axis, ...]) -> int:
    """Return outputs of a tile whose windows overlap with few rows of the next tile."""
    rows = tile_sizes.WIDE // tile_sizes.WINDOWS * _positions_per_tile(plan, axes)
    return min(4 * axes[0].kernel, rows)


def _row(axis: Axis, ranges: int, first: Any, stop: Any) -> AxisRow:
    stride = stride_of(axis)
    inside = np.flatnonzero(stop - first == axis.kernel) if stride else NO_INTEGERS
    begin, end = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    sizes = axis.size, axis.outputs, axis.kernel, stride, axis.dilation
    return AxisRow(*sizes, ranges, begin, end, int(is_wide(axis)))
