"""Adaptive windows at regular steps, as sliding windows, which have faster kernels.

Along an axis of 13 elements with 7 outputs, adaptive windows are those of 3 taps with a stride of 2
and a padding of 1. Sizes of m * outputs - 1 and m * outputs + 1 have such windows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from pooling_engine.plans.geometry import AdaptiveAxis, Axis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.window import Window


@lru_cache(maxsize=512)
def sliding_axis(axis: Axis) -> SlidingAxis | None:
    """Return the axis with sliding windows of the same elements, or None if there is none.

    Taps before the first element are numbered, so a tap that is on an element may have another
    number than in an adaptive window. At most two windows share an element, so the order of the
    windows does not change a sum of gradients.
    """
    if isinstance(axis, SlidingAxis):
        return axis
    starts, sizes = axis.starts(), axis.tap_limits()[1]
    before = axis.kernel - int(sizes[0])
    stride = int(starts[-1] - starts[-2]) if axis.outputs > 2 else int(starts[-1]) + before
    if axis.kernel > 2 * stride:  # more than two windows may share an element
        return None
    after = max(0, (axis.outputs - 1) * stride - before + axis.kernel - axis.size)
    window = Window(axis.kernel, stride, 1, before, after)
    sliding = SlidingAxis(axis.size, window, axis.outputs)
    first, stop = sliding.tap_limits()
    begins = sliding.starts() + first
    is_same = np.array_equal(begins, starts) and np.array_equal(stop - first, sizes)
    return sliding if is_same and not sliding.is_scanned else None


def stride_of(axis: Axis) -> int:
    """Return the step from window to window along an axis, or 0 if it varies."""
    sliding = sliding_axis(axis)
    return sliding.window.stride if sliding else 0


def sliding_plan(plan: PoolPlan) -> PoolPlan:
    """Return a plan with the same outputs and gradients, without adaptive axes where possible.

    Averages divide by the number of elements of a window, as those of adaptive windows do. Indices
    number the taps in the padding, too, so they may differ.
    """
    if not any(isinstance(axis, AdaptiveAxis) for axis in plan.axes):
        return plan
    axes = tuple(sliding_axis(axis) or axis for axis in plan.axes)
    return replace(plan, axes=axes, count_include_pad=False) if axes != plan.axes else plan
