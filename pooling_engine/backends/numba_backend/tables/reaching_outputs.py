"""Which outputs reach each position of a plane, and which indices are legal for them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.tables.axes import Integers, planes_and_axes
from pooling_engine.backends.numba_backend.tables.index_targets import FORGED, targets_of
from pooling_engine.plans.geometry import Axis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan


class Reached(NamedTuple):
    """The outputs that reach the positions of some axes, in the order of the outputs.

    Attributes:
        ends: where the outputs of each position begin in the others, and where the last end.
        outputs: those outputs.
        taps: of each, the number of the tap with which it reaches the position.
    """

    ends: Integers
    outputs: Integers
    taps: Integers


class Gathering(NamedTuple):
    """What `gather` needs of a plan.

    Attributes:
        ends, reached, taps: the outputs that reach each position of the first axis.
        rest_ends, rest_reached, rest_taps: the same for the other axes together.
        reach: of each slab of a plane the first output that reaches it and the one after the last.
        rows: of each output along the first axis, the class of its window.
        classes: of each output along the others, its class from there.
        legal: for each class and each value that an index can have, whether it may have it.
        limits: for each class, the values that are legal from 0 on.
        values: how many values an index can have.
        length: the channels.
        height: the positions along the first axis that one slab has.
        slabs: the slabs of all planes of the input.
    """

    ends: Integers
    reached: Integers
    taps: Integers
    rest_ends: Integers
    rest_reached: Integers
    rest_taps: Integers
    reach: Integers
    rows: Integers
    classes: Integers
    legal: NDArray[np.uint8]
    limits: Integers
    values: int
    length: int
    height: int
    slabs: int


@Memo
def gathering_of(plan: PoolPlan) -> Gathering:
    """What `gather` needs of a plan."""
    _, (first, *others) = planes_and_axes(plan)
    t = targets_of(plan)
    values = int(np.iinfo(plan.index_dtype).max) + 1
    legal = (t.offsets != FORGED).reshape(-1, values)
    limits = np.argmin(legal, axis=1)  # the first that is not
    own, rest = _reached(first), _reached_together(others)
    scale = math.prod(axis.kernel for axis in others)
    return Gathering(
        own.ends, own.outputs, own.taps * scale, *rest, t.reach, t.rows // values,
        t.classes[:: plan.inner] // values, legal.reshape(-1).astype(np.uint8), limits, values,
        plan.inner, t.height, t.slabs,
    )  # fmt: skip


def _reached_together(axes: list[Axis]) -> Reached:
    positions, outputs, taps = (np.zeros(1, np.int64) for _ in range(3))
    for axis in axes:
        own_positions, own_outputs, own_taps = _joined(axis)
        positions = np.add.outer(positions * axis.size, own_positions).reshape(-1)
        outputs = np.add.outer(outputs * axis.outputs, own_outputs).reshape(-1)
        taps = np.add.outer(taps * axis.kernel, own_taps).reshape(-1)
    return _sorted(positions, outputs, taps, math.prod(axis.size for axis in axes))


def _reached(axis: Axis) -> Reached:
    return _sorted(*_joined(axis), axis.size)


def _joined(axis: Axis) -> tuple[Integers, Integers, Integers]:
    """The positions, outputs and tap numbers of all taps of an axis that are on elements."""
    positions, outputs, taps = ([np.empty(0, np.int64)] for _ in range(3))
    for tap in axis.taps((0, axis.outputs), (0, axis.size)):
        positions.append(np.arange(axis.size)[tap.inputs])
        outputs.append(np.arange(axis.outputs)[tap.outputs])
        taps.append(np.full(len(positions[-1]), tap.number))
    return np.concatenate(positions), np.concatenate(outputs), np.concatenate(taps)


def _sorted(positions: Integers, outputs: Integers, taps: Integers, size: int) -> Reached:
    order = np.lexsort((outputs, positions))
    ends = np.concatenate([[0], np.cumsum(np.bincount(positions, minlength=size))])
    return Reached(ends, outputs[order], taps[order])
