"""The windows of a plan as arrays of integers, which is what kernels take."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.window import Window

# The columns of `Geometry.axes`.
SIZE, OUTPUTS, KERNEL, STRIDE, DILATION, TABLE, LOW, HIGH = range(8)
COLUMNS = 8
LEFT = -1  # in place of a table: the first axis is left as it is

Integers = NDArray[np.int64]


_ONE = Window(1, 1)
_NONE = np.empty(0, np.int64)
SLAB_BYTES = 32 << 10  # of input for one slab; measured best of 8 to 64 KiB with 32 KiB of L1

LONG_ENOUGH = 64  # outputs; long rows are cut into pieces of so many at least


class Geometry(NamedTuple):
    """The spatial axes of a plan, at least two: a single one is preceded by that of the planes.

    Attributes:
        axes: a row for each axis: its size, outputs, kernel, stride and dilation; where its
            table begins; the range of outputs whose taps are all on elements, at equal steps.
        tables: for each axis the starts, the first valid taps, and the ends of the valid taps
            of all outputs, one after the other; none of a first axis that is left as it is.
        inner: the elements that stand side by side at one position (1, or C).
        height: the outputs along the first axis that one slab has, or less at a plane's end.
        slabs: the slabs of all planes: what a kernel takes a run of.
    """

    axes: Integers
    tables: Integers
    inner: int
    height: int
    slabs: int


@Memo
def geometry_of(plan: PoolPlan) -> Geometry:
    """The geometry of the forward pass of a plan."""
    planes, axes = planes_and_axes(plan)
    rows, tables, offset = [], [_NONE], 0
    for number, axis in enumerate(axes):
        if number == 0 and is_left(axis):
            rows.append([axis.size, axis.outputs, 1, 1, 1, LEFT, 0, axis.outputs])
            continue
        table = [axis.starts(), *axis.tap_limits()]
        rows.append(_row(axis, offset, *table))
        tables += table
        offset += 3 * axis.outputs
    first = axes[0]
    height = _positions_per_slab(plan, axes) * first.outputs // first.size
    height = max(1, min(first.outputs, height))
    return Geometry(
        np.array(rows, np.int64).reshape(-1),
        np.concatenate(tables),
        plan.inner,
        height,
        planes * -(-first.outputs // height),
    )


def planes_and_axes(plan: PoolPlan) -> tuple[int, tuple[Axis, ...]]:
    """How many planes there are, of which axes: at least two.

    Small planes are one on top of the other, and long rows in pieces, where that makes no
    difference to the windows: where they lie side by side and leave nothing over.
    """
    first, *others = plan.axes
    item = plan.inner * plan.dtype.itemsize
    if others:
        plane = math.prod(axis.size for axis in plan.axes) * item
        if _is_even(first) and all(map(_is_whole, others)):
            count = largest_divisor(plan.outer, SLAB_BYTES // plane)
            return plan.outer // count, (_repeated(first, count), *others)
        return plan.outer, plan.axes
    rows = plan.outer
    if _is_even(first):
        outputs = largest_divisor(first.outputs, SLAB_BYTES // (first.kernel * item))
        if outputs >= LONG_ENOUGH:
            rows *= first.outputs // outputs
            first = SlidingAxis(outputs * first.kernel, first.window, outputs)
    return 1, (SlidingAxis(rows, _ONE, rows), first)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`, or 1."""
    return next((d for d in range(min(number, most), 1, -1) if number % d == 0), 1)


def _repeated(axis: SlidingAxis, count: int) -> SlidingAxis:
    return SlidingAxis(axis.size * count, axis.window, axis.outputs * count)


def _is_whole(axis: Axis) -> bool:
    """Whether every tap of every window is on an element."""
    first, stop = axis.tap_limits()
    return bool((stop - first == axis.kernel).all())


def _is_even(axis: Axis) -> TypeGuard[SlidingAxis]:
    """Whether windows lie side by side along an axis, and leave nothing over."""
    return is_tiled(axis) and axis.outputs * axis.kernel == axis.size


def is_tiled(axis: Axis) -> bool:
    """Whether windows lie side by side along an axis, from its first element on."""
    if not isinstance(axis, SlidingAxis) or axis.window.padding_before:
        return False
    is_adjacent = axis.window.stride == axis.window.extent == axis.kernel
    return is_adjacent and axis.outputs * axis.kernel <= axis.size


def _positions_per_slab(plan: PoolPlan, axes: tuple[Axis, ...]) -> int:
    row_bytes = math.prod(axis.size for axis in axes[1:]) * plan.inner * plan.dtype.itemsize
    return max(1, SLAB_BYTES // row_bytes)


def is_left(axis: Axis) -> bool:
    """Whether an axis is left as it is: every output is the element at its place."""
    return isinstance(axis, SlidingAxis) and axis.window == _ONE


def _row(axis: Axis, table: int, starts: Any, first: Any, stop: Any) -> list[int]:
    stride = axis.window.stride if isinstance(axis, SlidingAxis) else 0
    inside = np.flatnonzero(stop - first == axis.kernel) if stride else _NONE
    low, high = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    return [axis.size, axis.outputs, axis.kernel, stride, axis.dilation, table, low, high]


class Reach(NamedTuple):
    """Which outputs reach which positions of the input, axis by axis.

    Attributes:
        starts: for each axis, where its first window starts.
        ends: for each axis in turn, where the outputs of each position end in `reached`.
        reached: for each axis in turn, the outputs that reach its positions, in tap order.
        places: for each axis, where its part of `ends` and of `reached` begins.
        height: the positions along the first axis that one slab has.
        slabs: the slabs of all planes of the input.
    """

    starts: Integers
    ends: Integers
    reached: Integers
    places: Integers
    height: int
    slabs: int


@Memo
def reach_of(plan: PoolPlan) -> Reach:
    """The reach of the outputs of a plan."""
    planes, axes = planes_and_axes(plan)
    starts: list[int] = []
    places: list[int] = []
    ends: list[Integers] = []
    reached: list[Integers] = []
    for number, axis in enumerate(axes):
        is_needed = number > 0 or not is_left(axis)
        own_ends, own_reached = _reached_along(axis) if is_needed else (_NONE, _NONE)
        starts.append(int(axis.starts()[0]))
        places += [sum(map(len, ends)), sum(map(len, reached))]
        ends.append(own_ends)
        reached.append(own_reached)
    height = min(axes[0].size, _positions_per_slab(plan, axes))
    return Reach(
        np.array(starts, np.int64),
        np.concatenate(ends, dtype=np.int64),
        np.concatenate(reached, dtype=np.int64),
        np.array(places, np.int64),
        height,
        planes * -(-axes[0].size // height),
    )


def _reached_along(axis: Axis) -> tuple[Integers, Integers]:
    if isinstance(axis, SlidingAxis) and axis.window == Window(axis.size, axis.size):  # global
        return np.arange(axis.size + 1), np.zeros(axis.size, np.int64)
    positions, outputs = [_NONE], [_NONE]
    for tap in axis.taps((0, axis.outputs), (0, axis.size)):
        positions.append(np.arange(axis.size)[tap.inputs])
        outputs.append(np.arange(axis.outputs)[tap.outputs])
    flat = np.concatenate(positions)
    ends = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=axis.size))])
    return ends, np.concatenate(outputs)[np.argsort(flat, kind="stable")]
