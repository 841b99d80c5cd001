"""Adjacent windows: which plans have them, and where their elements are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import AdjacentTables
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.axes import is_adjacent, planes_and_axes
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.plans.plan import PoolPlan

LEAST_ROW = 12  # elements; shorter rows are scattered faster than copied


class Side(NamedTuple):
    """One axis: its size, its outputs, and the taps of its windows."""

    size: int
    outputs: int
    taps: int


def adjacent_tables(plan: PoolPlan) -> AdjacentTables | None:
    """Return the tables of adjacent windows.

    Returns:
        The tables; None if the windows of the plan are not adjacent, or their rows too short.
    """
    planes, axes = planes_and_axes(plan)
    if not all(map(is_adjacent, axes)):
        return None
    sides = [Side(axis.size, axis.outputs, axis.kernel) for axis in axes]
    if plan.inner > 1:  # elements side by side are one more axis, with windows of one tap
        sides.append(Side(plan.inner, plan.inner, 1))
    planes, sides = _at_least_two(planes, _merged(sides))
    first, last = sides[0], sides[-1]
    if last.outputs * last.taps < LEAST_ROW:
        return None
    sizes = [side.size for side in sides]
    steps = [math.prod(sizes[a + 1 :]) for a in range(len(sides))]
    cells, offsets = np.zeros(1, np.int64), np.arange(first.taps) * steps[0]
    for side, step in zip(sides[1:-1], steps[1:], strict=False):
        cells = np.add.outer(cells, np.arange(side.outputs) * (side.taps * step)).reshape(-1)
        offsets = np.add.outer(offsets, np.arange(side.taps) * step).reshape(-1)
    step = first.taps * steps[0]
    height = max(1, min(first.outputs, tile_sizes.ADJACENT // (step * plan.dtype.itemsize)))
    return AdjacentTables(
        cells=cells,
        offsets=offsets,
        outputs=first.outputs,
        row=last.outputs,
        row_taps=last.taps,
        step=step,
        size=math.prod(sizes),
        height=height,
        is_streamed=plan.input_bytes > tile_sizes.STREAMED,
        tiles=planes * -(-first.outputs // height),
        element=element_of(plan),
    )


def _merged(sides: list[Side]) -> list[Side]:
    """Return the same windows with as few axes as possible: rows inside one window are one row."""
    while len(sides) > 1 and sides[-1].size == sides[-1].taps:
        (size, outputs, taps), (row, _, _) = sides[-2:]
        sides = [*sides[:-2], Side(size * row, outputs, taps * row)]
    return sides


def _at_least_two(planes: int, sides: list[Side]) -> tuple[int, list[Side]]:
    """Return at least two axes, and the number of planes: a single axis gets a row per window."""
    if len(sides) > 1:
        return planes, sides
    size, outputs, taps = sides[0]
    if size > outputs * taps:  # elements are left over, so that windows are not evenly spaced
        return planes, [Side(1, 1, 1), *sides]
    return 1, [Side(planes * outputs, planes * outputs, 1), Side(taps, 1, taps)]
