"""Outputs whose windows reach each position of the input."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numba_backend.language.arguments import (
    GatherTables,
    Integers,
    SpreadTables,
)
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.axes import (
    NO_INTEGERS,
    input_tile_height,
    is_unchanged,
    planes_and_axes,
    window_tables,
)
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.backends.numba_backend.tables.regular_windows import sliding_axis
from pooling_engine.plans.geometry import AdaptiveAxis, Axis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.window import Window

Flags = NDArray[np.bool_]


class Reaching(NamedTuple):
    """The outputs that reach the positions of some axes.

    Attributes:
        ends: where the outputs of each position end in `outputs`, preceded by 0.
        outputs: those outputs.
        taps: for each, the number of the tap that reaches the position.
    """

    ends: Integers
    outputs: Integers
    taps: Integers


def spread_tables(plan: PoolPlan) -> SpreadTables:
    """Return the tables of `spread_gradients` for a plan."""
    planes, axes = planes_and_axes(plan)
    starts: list[int] = []
    parts: list[int] = []
    ends: list[Integers] = []
    outputs: list[Integers] = []
    for number, axis in enumerate(axes):
        is_needed = number > 0 or not is_unchanged(axis)
        axis_ends, axis_outputs = (
            outputs_in_tap_order(axis) if is_needed else (NO_INTEGERS, NO_INTEGERS)
        )
        starts.append(int((sliding_axis(axis) or axis).starts()[0]))
        parts += [sum(map(len, ends)), sum(map(len, outputs))]
        ends.append(axis_ends)
        outputs.append(axis_outputs)
    height = input_tile_height(plan, axes)
    windows = window_tables(plan)
    return SpreadTables(
        axes=windows.axes,
        starts=np.array(starts, np.int64),
        ends=np.concatenate(ends, dtype=np.int64),
        outputs=np.concatenate(outputs, dtype=np.int64),
        parts=np.array(parts, np.int64),
        inner=plan.inner,
        height=height,
        tiles=planes * -(-axes[0].size // height),
        element=windows.element,
    )


def gather_tables(plan: PoolPlan) -> GatherTables:
    """Return the tables of `gather_gradients` for a plan."""
    planes, (first, *others) = planes_and_axes(plan)
    row_classes, first_valid = _classes(first)
    cell_classes, valid = np.zeros(1, np.int64), np.ones((1, 1), np.bool_)
    for axis in others:
        axis_classes, axis_valid = _classes(axis)
        cell_classes = np.add.outer(cell_classes * len(axis_valid), axis_classes).reshape(-1)
        valid = _product(valid, axis_valid)
    values = int(np.iinfo(plan.index_dtype).max) + 1
    legal = np.zeros((len(first_valid) * len(valid), values), np.uint8)
    legal[:, : plan.taps] = _product(first_valid, valid)
    legal[:, -1] = 1  # "none"
    row_bytes = math.prod(axis.size for axis in others) * plan.inner * plan.dtype.itemsize
    height = min(first.size, max(1, tile_sizes.SCATTERED // row_bytes))
    lows = range(0, first.size, height)
    tile_outputs = [first.outputs_of(low, min(first.size, low + height)) for low in lows]
    own, rest = _in_output_order([first]), _in_output_order(others)
    return GatherTables(
        ends=own.ends,
        outputs=own.outputs,
        taps=own.taps * math.prod(axis.kernel for axis in others),
        rest_ends=rest.ends,
        rest_outputs=rest.outputs,
        rest_taps=rest.taps,
        tile_outputs=np.array(tile_outputs, np.int64).reshape(-1),
        row_classes=row_classes * len(valid),
        cell_classes=cell_classes,
        legal=legal.reshape(-1),
        limits=np.argmin(legal, axis=1),
        values=values,
        length=plan.inner,
        height=height,
        tiles=planes * len(tile_outputs),
        element=element_of(plan),
    )


def count_legal(plan: PoolPlan) -> int:
    """Return the number of entries that `GatherTables.legal` would have."""
    classes = (len(np.unique(_tap_limits(axis))) for axis in plan.axes)
    return math.prod(classes) * (int(np.iinfo(plan.index_dtype).max) + 1)


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


def outputs_in_tap_order(axis: Axis) -> tuple[Integers, Integers]:
    """Return `SpreadTables.ends` and `outputs` of one axis."""
    if isinstance(axis, SlidingAxis) and axis.window == Window(axis.size, axis.size):  # global
        return np.arange(axis.size + 1), np.zeros(axis.size, np.int64)
    positions, outputs, _ = _connections(axis)
    in_order = outputs if isinstance(axis, AdaptiveAxis) else -outputs  # overlaps begin with tap 0
    return _ends(positions, axis.size), outputs[np.lexsort((in_order, positions))]


def _in_output_order(axes: list[Axis]) -> Reaching:
    """Return what reaches the positions of all axes together, each in the order of outputs."""
    positions, outputs, taps = (np.zeros(1, np.int64) for _ in range(3))
    for axis in axes:
        axis_positions, axis_outputs, axis_taps = _connections(axis)
        positions = np.add.outer(positions * axis.size, axis_positions).reshape(-1)
        outputs = np.add.outer(outputs * axis.outputs, axis_outputs).reshape(-1)
        taps = np.add.outer(taps * axis.kernel, axis_taps).reshape(-1)
    order = np.lexsort((outputs, positions))
    size = math.prod(axis.size for axis in axes)
    return Reaching(_ends(positions, size), outputs[order], taps[order])


def _connections(axis: Axis) -> tuple[Integers, Integers, Integers]:
    """Return the positions, outputs and tap numbers of all taps of an axis on elements."""
    firsts, stops = axis.tap_limits()
    counts = stops - firsts
    outputs = np.repeat(np.arange(axis.outputs), counts)
    taps = np.arange(len(outputs)) - np.repeat(np.cumsum(counts) - counts - firsts, counts)
    return axis.starts()[outputs] + taps * axis.dilation, outputs, taps


def _ends(positions: Integers, size: int) -> Integers:
    return np.concatenate([[0], np.cumsum(np.bincount(positions, minlength=size))])
