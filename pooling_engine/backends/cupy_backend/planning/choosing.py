"""Which kernels fit a plan, and what a thread of theirs computes."""

from __future__ import annotations

import math
from typing import NamedTuple

from pooling_engine.backends.cupy_backend.planning import names
from pooling_engine.backends.cupy_backend.planning.geometry import (
    KERNEL_AXES,
    Share,
    is_small,
    threads_of,
)
from pooling_engine.backends.cupy_backend.planning.names import VECTOR_BYTES, WINDOW_TEAMS
from pooling_engine.dtypes import INTEGERS
from pooling_engine.plans.geometry import AdaptiveAxis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.window import Window

MANY = 8  # taps along an axis, for a team; float32 apart, for a transaction of memory each
FEW_OUTPUTS = 1 << 16  # less than one for each thread that a large card holds
FEW_THREADS = 1 << 18  # what a large card holds at a time


class Shape(NamedTuple):
    """What a kernel with a thread for each element, or for a few, is made for.

    Attributes:
        name: the template arguments.
        is_small: whether 32 bits number all positions.
        share: what a thread computes.
    """

    name: str
    is_small: bool
    share: Share


def any_shape(plan: PoolPlan, is_aligned: bool, of_input: bool) -> Shape:
    """For kernels that compute windows of any kind."""
    small = is_small(plan)
    vector = VECTOR_BYTES // plan.dtype.itemsize
    channels = vector if is_aligned and small and plan.inner % vector == 0 else 1
    shared = not small or any(isinstance(axis, AdaptiveAxis) for axis in plan.axes)
    shared |= plan.dtype in INTEGERS  # which have no kernels for less
    rank = KERNEL_AXES if shared else max(2, len(plan.axes))
    return Shape(
        names.shape_of(rank, shared, small, channels), small, Share(of_input, channels=channels)
    )


def team_of(plan: PoolPlan) -> int | None:
    """How many threads read a window together; None where each reads one of its own.

    Together they read side by side what threads with windows of their own would read far apart.
    """
    axis = plan.axes[-1]
    step = axis.size / axis.outputs if isinstance(axis, AdaptiveAxis) else axis.window.stride
    is_large = axis.kernel >= MANY and plan.taps >= MANY**2
    is_apart = step >= MANY or math.prod(plan.output_shape) < FEW_OUTPUTS
    if plan.inner > 1 or not is_small(plan) or not is_large or not is_apart:
        return None
    return WINDOW_TEAMS[axis.kernel > 2 * WINDOW_TEAMS[0]]


def row_shape(plan: PoolPlan, is_aligned: bool, of_input: bool) -> Shape | None:
    """For kernels that read rows in packs; None where they cannot."""
    axis = plan.axes[-1]
    if not isinstance(axis, SlidingAxis) or plan.inner > 1 or not is_small(plan):
        return None
    if any(isinstance(other, AdaptiveAxis) for other in plan.axes):
        return None
    w = axis.window
    window = (w.kernel, w.stride, w.padding_before)
    if window not in names.ROW_WINDOWS or w.dilation > 1:
        return None
    if plan.selects and plan.index_dtype != names.ROW_INDEX:
        return None
    for count in names.neighbours_of(plan.dtype):
        packs_fit = count == 1 or (is_aligned and axis.size % count == 0)
        if of_input:
            packs_fit &= count % w.stride == 0 and axis.outputs % (count // w.stride) == 0
        else:  # at most a fifth of what threads compute may be beyond the row
            packs_fit &= -axis.outputs % count * 4 <= axis.outputs
        if packs_fit:
            share = Share(of_input, neighbours=count)
            if of_input and not plan.shares_ties:
                share = share._replace(rows=_rows_of(plan, share, w))
            return Shape(names.row_of(window, count), True, share)
    return None


def _rows_of(plan: PoolPlan, share: Share, w: Window) -> int:
    """How many rows a thread takes: those `rows.cu` has room for, if enough threads are left."""
    across = plan.axes[-2:-1]
    if not across or across[0].dilation > 1:
        return 1
    has_room = plan.selects or w.stride > 1 or w.kernel + share.neighbours < 10
    rows = 2 * w.stride if has_room else 1
    while rows > 1 and threads_of(plan, share._replace(rows=rows)) < FEW_THREADS:
        rows //= 2
    return rows


def square_shape(plan: PoolPlan, row: Shape) -> Shape | None:
    """For a thread that takes a few rows of outputs as `row` says; None where it should not.

    It should where windows are square and one apart, and outputs enough for all threads of a card.
    """
    windows = [axis.window for axis in plan.axes if isinstance(axis, SlidingAxis)]
    if len(windows) == 1 or any(window.kernel > 1 for window in windows[:-2]):
        return None
    above, own = windows[-2:]
    if (above.kernel, above.stride, above.dilation) != (own.kernel, 1, 1) or own.stride > 1:
        return None
    rows, outputs = names.SQUARE_ROWS[own.kernel], plan.axes[-2].outputs
    share = row.share._replace(rows=rows)
    if -outputs % rows * 4 > outputs or threads_of(plan, share) < FEW_THREADS:
        return None  # at most a fifth of what threads compute may be beyond the plane
    return row._replace(share=share)
