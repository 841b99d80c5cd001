"""Outputs whose windows reach each position of the input."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import (
    INVALID_OFFSET,
    GatherTables,
    Integers,
    SpreadTables,
)
from pooling_engine.backends.numba_backend.tables.axes import (
    NO_INTEGERS,
    input_tile_height,
    is_unchanged,
    planes_and_axes,
    window_tables,
)
from pooling_engine.backends.numba_backend.tables.index_targets import scatter_tables
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.window import Window


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


@Memo
def spread_tables(plan: PoolPlan) -> SpreadTables:
    """Return the tables of `spread_gradients` for a plan."""
    planes, axes = planes_and_axes(plan)
    starts: list[int] = []
    parts: list[int] = []
    ends: list[Integers] = []
    outputs: list[Integers] = []
    for number, axis in enumerate(axes):
        is_needed = number > 0 or not is_unchanged(axis)
        axis_ends, axis_outputs = _in_tap_order(axis) if is_needed else (NO_INTEGERS, NO_INTEGERS)
        starts.append(int(axis.starts()[0]))
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


@Memo
def gather_tables(plan: PoolPlan) -> GatherTables:
    """Return the tables of `gather_gradients` for a plan."""
    _, (first, *others) = planes_and_axes(plan)
    targets = scatter_tables(plan)
    values = int(np.iinfo(plan.index_dtype).max) + 1
    legal = (targets.offsets != INVALID_OFFSET).reshape(-1, values)
    own, rest = _in_output_order([first]), _in_output_order(others)
    return GatherTables(
        ends=own.ends,
        outputs=own.outputs,
        taps=own.taps * math.prod(axis.kernel for axis in others),
        rest_ends=rest.ends,
        rest_outputs=rest.outputs,
        rest_taps=rest.taps,
        tile_outputs=targets.tile_outputs,
        row_classes=targets.row_classes // values,
        cell_classes=targets.cell_classes[:: plan.inner] // values,
        legal=legal.reshape(-1).astype(np.uint8),
        limits=np.argmin(legal, axis=1),
        values=values,
        length=plan.inner,
        height=targets.height,
        tiles=targets.tiles,
        element=targets.element,
    )


def _in_tap_order(axis: Axis) -> tuple[Integers, Integers]:
    """Return `ends` and `outputs` of one axis, the outputs of a position in tap order."""
    if isinstance(axis, SlidingAxis) and axis.window == Window(axis.size, axis.size):  # global
        return np.arange(axis.size + 1), np.zeros(axis.size, np.int64)
    positions, outputs, _ = _connections(axis)
    return _ends(positions, axis.size), outputs[np.argsort(positions, kind="stable")]


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
    positions, outputs, taps = ([NO_INTEGERS] for _ in range(3))
    for tap in axis.taps((0, axis.outputs), (0, axis.size)):
        positions.append(np.arange(axis.size)[tap.inputs])
        outputs.append(np.arange(axis.outputs)[tap.outputs])
        taps.append(np.full(len(positions[-1]), tap.number))
    return np.concatenate(positions), np.concatenate(outputs), np.concatenate(taps)


def _ends(positions: Integers, size: int) -> Integers:
    return np.concatenate([[0], np.cumsum(np.bincount(positions, minlength=size))])
