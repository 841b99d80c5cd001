"""Windows of a plan, for the kernel that adds gradients to selected elements."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.language.arguments import Integers, ScatterTables
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.axes import (
    ONE,
    is_unchanged,
    largest_divisor,
    planes_and_axes,
)
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan

MOST_OUTPUTS = 8192  # of planes that are computed whole: their tables fit in the L2 cache
MOST_OFFSET = 1 << 28  # of a tap from an element, because the kernel computes in int32
MOST_LANES = 4
Short = NDArray[np.int32]


@Memo
def scatter_tables(plan: PoolPlan) -> ScatterTables:
    """Return the tables of `scatter_gradients` for a plan."""
    planes, axes, lanes = _planes_and_axes(plan)
    first, *others = axes
    sizes = [axis.size for axis in axes]
    steps = [math.prod(sizes[a + 1 :]) * plan.inner for a in range(len(axes))]
    most = tile_sizes.STACKED if is_unchanged(first) else tile_sizes.SCATTERED
    height = max(1, min(first.size, most // (steps[0] * plan.dtype.itemsize)))
    lows = range(0, first.size, height)
    tile_outputs = [first.outputs_of(low, min(first.size, low + height)) for low in lows]
    overlaps = not all(map(_is_disjoint, axes))
    firsts, stops = first.tap_limits()
    cells = np.zeros(1, np.int64)
    for axis, step in zip(others, steps[1:], strict=True):
        cells = np.add.outer(cells, axis.starts() * step).reshape(-1)
    limits, splits = _splits(others, steps[1:], plan.inner)
    return ScatterTables(
        starts=first.starts(),
        firsts=firsts,
        stops=stops,
        tile_outputs=np.array(tile_outputs, np.int64).reshape(-1),
        cells=np.add.outer(cells, np.arange(plan.inner)).reshape(-1).astype(np.int32),
        limits=limits,
        splits=splits,
        window=plan.taps,
        step=first.dilation * steps[0],
        size=first.size,
        row=steps[0],
        height=height,
        overlaps=overlaps,
        lanes=lanes,
        is_streamed=not overlaps and plan.input_bytes > tile_sizes.STREAMED,
        tiles=planes * len(tile_outputs),
        element=element_of(plan),
    )


def has_short_offsets(plan: PoolPlan) -> bool:
    """Return whether all offsets between taps and elements fit in the kernel's integers."""
    span, step = plan.taps, plan.inner
    for axis in reversed(plan.axes):
        starts, extent = axis.starts(), (axis.kernel - 1) * axis.dilation + 1
        span += (max(axis.size, int(starts[-1]) + extent) - min(0, int(starts[0]))) * step
        step *= axis.size
    return span <= MOST_OFFSET


def _planes_and_axes(plan: PoolPlan) -> tuple[int, tuple[Axis, ...], int]:
    """Return the number of planes, their axes, at least two, and the number of lanes.

    Small planes are stacked: they are two more axes.
    """
    plane_bytes = math.prod(axis.size for axis in plan.axes) * plan.inner * plan.dtype.itemsize
    outputs = math.prod(axis.outputs for axis in plan.axes) * plan.inner
    if plane_bytes > tile_sizes.SCATTERED or outputs > MOST_OUTPUTS:
        return (*planes_and_axes(plan), 1)
    most = min(tile_sizes.STACKED // plane_bytes, MOST_OUTPUTS // outputs)
    count = largest_divisor(plan.outer, most)
    planes = plan.outer // count
    stacks = SlidingAxis(planes, ONE, planes), SlidingAxis(count, ONE, count)
    return 1, (*stacks, *plan.axes), math.gcd(count, MOST_LANES)


def _splits(axes: list[Axis], steps: list[int], inner: int) -> tuple[Short, Integers]:
    """Return `ScatterTables.limits` and `splits`; axes with windows of one tap need none."""
    limits, splits, shape = [np.empty(0, np.int32)], [], [axis.outputs for axis in axes]
    for number in range(len(axes) - 1, -1, -1):
        axis = axes[number]
        if is_unchanged(axis):
            continue
        for limit in axis.tap_limits():
            along = limit.reshape((-1,) + (1,) * (len(axes) - 1 - number))
            limits.append(np.broadcast_to(along, shape).repeat(inner).astype(np.int32))
        splits += [axis.kernel, axis.dilation * steps[number]]
    return np.concatenate(limits), np.array(splits, np.int64)


def _is_disjoint(axis: Axis) -> bool:
    """Return whether no two windows along an axis share an element."""
    if axis.outputs == 1:
        return True
    return isinstance(axis, SlidingAxis) and axis.window.stride >= axis.window.extent
