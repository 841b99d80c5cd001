"""Elements that window indices select, and legal indices."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.language.arguments import (
    INVALID_OFFSET,
    NO_OFFSET,
    Integers,
    ScatterTables,
)
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.axes import planes_and_axes
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan

Flags = NDArray[np.bool_]


@Memo
def scatter_tables(plan: PoolPlan) -> ScatterTables:
    """Return the tables of `scatter_gradients` for a plan."""
    planes, axes = planes_and_axes(plan)
    first, *others = axes
    sizes = [axis.size for axis in axes]
    steps = [math.prod(sizes[a + 1 :]) * plan.inner for a in range(len(axes))]
    cells = classes = np.zeros(1, np.int64)
    taps, valid = _tap_offsets(first, steps[0]), np.ones((1, 1), np.bool_)
    for axis, step in zip(others, steps[1:], strict=True):
        axis_classes, axis_valid = _classes(axis)
        cells = np.add.outer(cells, axis.starts() * step).reshape(-1)
        classes = np.add.outer(classes * len(axis_valid), axis_classes).reshape(-1)
        taps = np.add.outer(taps, _tap_offsets(axis, step)).reshape(-1)
        valid = _product(valid, axis_valid)
    row_classes, first_valid = _classes(first)
    values = np.iinfo(plan.index_dtype).max + 1
    offsets = np.full((len(first_valid) * len(valid), values), INVALID_OFFSET)
    offsets[:, : plan.taps] = np.where(_product(first_valid, valid), taps, INVALID_OFFSET)
    offsets[:, values - 1] = NO_OFFSET
    height = min(first.size, max(1, tile_sizes.SCATTERED // (steps[0] * plan.dtype.itemsize)))
    lows = range(0, first.size, height)
    tile_outputs = [first.outputs_of(low, min(first.size, low + height)) for low in lows]
    return ScatterTables(
        starts=first.starts(),
        tile_outputs=np.array(tile_outputs, np.int64).reshape(-1),
        row_classes=row_classes * (len(valid) * values),
        cells=np.add.outer(cells, np.arange(plan.inner)).reshape(-1),
        cell_classes=np.repeat(classes * values, plan.inner),
        offsets=offsets.reshape(-1),
        size=first.size,
        row=steps[0],
        height=height,
        overlaps=not all(map(_is_disjoint, axes)),
        tiles=planes * len(tile_outputs),
        element=element_of(plan),
    )


@lru_cache(maxsize=512)
def count_offsets(plan: PoolPlan) -> int:
    """Return the number of entries that `ScatterTables.offsets` would have."""
    classes = (len(np.unique(_tap_limits(axis))) for axis in plan.axes)
    return math.prod(classes) * (int(np.iinfo(plan.index_dtype).max) + 1)


def _tap_offsets(axis: Axis, step: int) -> Integers:
    return np.arange(axis.kernel) * (axis.dilation * step)


def _classes(axis: Axis) -> tuple[Integers, Flags]:
    """Return the class of each output of an axis, and for each class the taps on elements."""
    limits, classes = np.unique(_tap_limits(axis), return_inverse=True)
    first, stop = np.divmod(limits[:, None], axis.kernel + 1)
    taps = np.arange(axis.kernel)
    return classes, (first <= taps) & (taps < stop)


def _tap_limits(axis: Axis) -> Integers:
    """Return the first and the end of the taps on elements of each output, as one number."""
    first, stop = axis.tap_limits()
    return np.minimum(first, axis.kernel) * (axis.kernel + 1) + np.minimum(stop, axis.kernel)


def _product(one: Flags, other: Flags) -> Flags:
    """Return the classes and taps along two axes as classes and taps along both."""
    shape = (len(one) * len(other), one.shape[1] * other.shape[1])
    return (one[:, None, :, None] & other[None, :, None, :]).reshape(shape)


def _is_disjoint(axis: Axis) -> bool:
    """Return whether no two windows along an axis share an element."""
    if axis.outputs == 1:
        return True
    return isinstance(axis, SlidingAxis) and axis.window.stride >= axis.window.extent
