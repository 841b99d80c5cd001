"""Where the elements are that window indices name, and which indices are legal."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.tables.axes import Integers, planes_and_axes
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan

SLAB_BYTES = 128 << 10  # of the gradient in one slab; its sums in float64 fill half of 512 KiB


FORGED, SKIPPED = -(1 << 62), -(1 << 61)  # in place of an offset; both are outside of any target


class Targets(NamedTuple):
    """The targets of the indices of a plan, in elements of one plane of the input.

    Windows whose taps on elements are the same along an axis are of one class along it.

    Attributes:
        starts: of each output along the first axis, the position of its first tap.
        reach: of each slab of a plane the first output that reaches it and the one after the last.
        rows: of each output along the first axis, where its class begins in `offsets`.
        cells: of each output at one position of the first axis, its window's first tap.
        classes: of the same outputs, where the class along the other axes begins from there.
        offsets: for each class and each value that an index can have, how far the tap is from the
            first of the window; FORGED if it is on no element, SKIPPED for "none".
        size: the positions along the first axis.
        row: the elements at each of them.
        height: the positions along the first axis that one slab has.
        overlaps: whether an element may be in several windows.
        slabs: the slabs of all planes of the input.
    """

    starts: Integers
    reach: Integers
    rows: Integers
    cells: Integers
    classes: Integers
    offsets: Integers
    size: int
    row: int
    height: int
    overlaps: bool
    slabs: int


@Memo
def targets_of(plan: PoolPlan) -> Targets:
    """The targets of the indices of a plan."""
    planes, axes = planes_and_axes(plan)
    first, *others = axes
    sizes = [axis.size for axis in axes]
    steps = [math.prod(sizes[a + 1 :]) * plan.inner for a in range(len(axes))]
    cells = classes = np.zeros(1, np.int64)
    taps, valid = _tap_offsets(first, steps[0]), np.ones((1, 1), np.bool_)
    for axis, step in zip(others, steps[1:], strict=True):
        own_classes, own_valid = _classes(axis)
        cells = np.add.outer(cells, axis.starts() * step).reshape(-1)
        classes = np.add.outer(classes * len(own_valid), own_classes).reshape(-1)
        taps = np.add.outer(taps, _tap_offsets(axis, step)).reshape(-1)
        valid = _both(valid, own_valid)
    rows, first_valid = _classes(first)
    values = np.iinfo(plan.index_dtype).max + 1
    offsets = np.full((len(first_valid) * len(valid), values), FORGED)
    offsets[:, : plan.taps] = np.where(_both(first_valid, valid), taps, FORGED)
    offsets[:, values - 1] = SKIPPED
    height = min(first.size, max(1, SLAB_BYTES // (steps[0] * plan.dtype.itemsize)))
    lows = range(0, first.size, height)
    reach = [first.outputs_of(low, min(first.size, low + height)) for low in lows]
    return Targets(
        first.starts(),
        np.array(reach, np.int64).reshape(-1),
        rows * (len(valid) * values),
        np.add.outer(cells, np.arange(plan.inner)).reshape(-1),
        np.repeat(classes * values, plan.inner),
        offsets.reshape(-1),
        first.size,
        steps[0],
        height,
        not all(map(_is_disjoint, axes)),
        planes * len(reach),
    )


def _tap_offsets(axis: Axis, step: int) -> Integers:
    return np.arange(axis.kernel) * (axis.dilation * step)


def _classes(axis: Axis) -> tuple[Integers, NDArray[np.bool_]]:
    """The class of each output along one axis, and for each class which taps are on elements."""
    kinds, classes = np.unique(_kinds(axis), return_inverse=True)
    first, stop = np.divmod(kinds[:, None], axis.kernel + 1)
    taps = np.arange(axis.kernel)
    return classes, (first <= taps) & (taps < stop)


def _kinds(axis: Axis) -> Integers:
    """The first and the end of the valid taps of each output, as one number."""
    first, stop = axis.tap_limits()
    return np.minimum(first, axis.kernel) * (axis.kernel + 1) + np.minimum(stop, axis.kernel)


def _both(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Any:
    """Classes and taps along two axes as classes and taps along both."""
    shape = (len(one) * len(other), one.shape[1] * other.shape[1])
    return (one[:, None, :, None] & other[None, :, None, :]).reshape(shape)


def _is_disjoint(axis: Axis) -> bool:
    """Whether no two windows along an axis have an element in common."""
    if axis.outputs == 1:
        return True
    return isinstance(axis, SlidingAxis) and axis.window.stride >= axis.window.extent


@lru_cache(maxsize=512)
def count_offsets(plan: PoolPlan) -> int:
    """How many entries `Targets.offsets` would have."""
    classes = (len(np.unique(_kinds(axis))) for axis in plan.axes)
    return math.prod(classes) * (int(np.iinfo(plan.index_dtype).max) + 1)
