"""Choice of the kernel variant for a plan, and of the work of a thread."""

from __future__ import annotations

import math
from typing import NamedTuple

from pooling_engine.backends.cupy_backend.planning import kernels
from pooling_engine.backends.cupy_backend.planning.geometry import (
    KERNEL_AXES,
    ThreadWork,
    fits_32_bits,
    thread_count,
)
from pooling_engine.backends.cupy_backend.planning.kernels import (
    VECTOR_BYTES,
    WINDOW_TEAMS,
    Arguments,
)
from pooling_engine.dtypes import INTEGERS
from pooling_engine.plans.geometry import AdaptiveAxis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.window import Window

TEAM_KERNEL = 8  # taps along an axis from which a team pays; also float32 per memory transaction
FULL_OUTPUTS = 1 << 16  # fewer outputs cannot occupy a large GPU with one thread each
FULL_THREADS = 1 << 18  # threads that a large GPU holds at a time


class Variant(NamedTuple):
    """Variant of a kernel in which each thread computes one or a few elements.

    Attributes:
        arguments: template arguments.
        is_small: whether 32 bits number all positions.
        work: elements per thread.
    """

    arguments: Arguments
    is_small: bool
    work: ThreadWork


def general_variant(plan: PoolPlan, is_aligned: bool, of_input: bool) -> Variant:
    """Return the variant for windows of any kind."""
    small = fits_32_bits(plan)
    vector = VECTOR_BYTES // plan.dtype.itemsize
    channels = vector if is_aligned and small and plan.inner % vector == 0 else 1
    adaptive = not small or any(isinstance(axis, AdaptiveAxis) for axis in plan.axes)
    adaptive |= plan.dtype in INTEGERS  # only the adaptive variants are compiled for integers
    rank = KERNEL_AXES if adaptive else max(2, len(plan.axes))
    arguments = kernels.shape_arguments(rank, adaptive, small, channels)
    return Variant(arguments, small, ThreadWork(of_input, channels=channels))


def team_size(plan: PoolPlan) -> int | None:
    """Return how many threads should read a window together, or None for one thread per window.

    A team reads adjacent elements, where threads with a window each would read far apart.
    """
    axis = plan.axes[-1]
    step = axis.size / axis.outputs if isinstance(axis, AdaptiveAxis) else axis.window.stride
    is_large = axis.kernel >= TEAM_KERNEL and plan.taps >= TEAM_KERNEL**2
    is_apart = step >= TEAM_KERNEL or math.prod(plan.output_shape) < FULL_OUTPUTS
    if plan.inner > 1 or not fits_32_bits(plan) or not is_large or not is_apart:
        return None
    return WINDOW_TEAMS[axis.kernel > 2 * WINDOW_TEAMS[0]]


def row_variant(plan: PoolPlan, is_aligned: bool, of_input: bool) -> Variant | None:
    """Return the variant that reads rows in packs, or None if it does not fit the plan."""
    axis = plan.axes[-1]
    if not isinstance(axis, SlidingAxis) or plan.inner > 1 or not fits_32_bits(plan):
        return None
    if any(isinstance(other, AdaptiveAxis) for other in plan.axes):
        return None
    w = axis.window
    window = (w.kernel, w.stride, w.padding_before)
    if window not in kernels.ROW_WINDOWS or w.dilation > 1:
        return None
    if plan.selects and plan.index_dtype != kernels.ROW_INDEX:
        return None
    for count in kernels.neighbour_counts(plan.dtype):
        packs_fit = count == 1 or (is_aligned and axis.size % count == 0)
        if of_input:
            packs_fit &= count % w.stride == 0 and axis.outputs % (count // w.stride) == 0
        else:  # at most a fifth of the computed outputs may lie beyond the end of the row
            packs_fit &= -axis.outputs % count * 4 <= axis.outputs
        if packs_fit:
            work = ThreadWork(of_input, neighbours=count)
            if of_input and not plan.shares_ties:
                work = work._replace(rows=_gradient_rows(plan, work, w))
            return Variant(kernels.row_arguments(window, count), True, work)
    return None


def _gradient_rows(plan: PoolPlan, work: ThreadWork, w: Window) -> int:
    """Return the rows per thread: as many as `rows.cu` allows if enough threads are left."""
    across = plan.axes[-2:-1]
    if not across or across[0].dilation > 1:
        return 1
    has_room = plan.selects or w.stride > 1 or w.kernel + work.neighbours < 10
    rows = 2 * w.stride if has_room else 1
    while rows > 1 and thread_count(plan, work._replace(rows=rows)) < FULL_THREADS:
        rows //= 2
    return rows


def square_work(plan: PoolPlan, row: Variant) -> ThreadWork | None:
    """Return the work of a thread of `square_rows.cu`, or None if that does not pay.

    It pays for square windows of stride 1 with enough outputs for all threads of a GPU.

    Args:
        row: row variant of the plan.
    """
    windows = [axis.window for axis in plan.axes if isinstance(axis, SlidingAxis)]
    if len(windows) == 1 or any(window.kernel > 1 for window in windows[:-2]):
        return None
    above, own = windows[-2:]
    if (above.kernel, above.stride, above.dilation) != (own.kernel, 1, 1) or own.stride > 1:
        return None
    rows, outputs = kernels.SQUARE_ROWS[own.kernel], plan.axes[-2].outputs
    work = row.work._replace(rows=rows)
    if -outputs % rows * 4 > outputs or thread_count(plan, work) < FULL_THREADS:
        return None  # at most a fifth of the computed outputs may lie beyond the plane
    return work
