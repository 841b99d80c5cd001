"""Which windows are tiles, and where their elements are."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.tables.axes import (
    Integers,
    is_tiled,
    planes_and_axes,
)
from pooling_engine.plans.plan import PoolPlan

LEAST = 12  # elements along a row; shorter rows are scattered sooner than moved
SLAB_BYTES = 16 << 10  # of the gradient in one slab: its parts share 32 KiB of L1


Side = tuple[int, int, int]  # the size, the outputs and the kernel of an axis


class Tiling(NamedTuple):
    """The tiles of a plan; the attributes are the arguments of `tiles`, and the slabs of all."""

    cells: Integers
    offsets: Integers
    outputs: int
    row: int
    kernel: int
    step: int
    size: int
    height: int
    slabs: int


@lru_cache(maxsize=128)
def tiling_of(plan: PoolPlan) -> Tiling | None:
    """The tiles of a plan; None if its windows are none, or too small to be worth it."""
    planes, axes = planes_and_axes(plan)
    if not all(map(is_tiled, axes)):
        return None
    sides = [(axis.size, axis.outputs, axis.kernel) for axis in axes]
    if plan.inner > 1:  # elements side by side are an axis of their own, of windows of one tap
        sides.append((plan.inner, plan.inner, 1))
    planes, sides = _as_rows(planes, _joined(sides))
    sizes, outputs, kernels = map(list, zip(*sides, strict=True))
    if outputs[-1] * kernels[-1] < LEAST:
        return None
    steps = [math.prod(sizes[a + 1 :]) for a in range(len(sizes))]
    cells, offsets = np.zeros(1, np.int64), np.arange(kernels[0]) * steps[0]
    for a in range(1, len(sizes) - 1):
        cells = np.add.outer(cells, np.arange(outputs[a]) * (kernels[a] * steps[a])).reshape(-1)
        offsets = np.add.outer(offsets, np.arange(kernels[a]) * steps[a]).reshape(-1)
    step = kernels[0] * steps[0]
    height = max(1, min(outputs[0], SLAB_BYTES // (step * plan.dtype.itemsize)))
    return Tiling(
        cells, offsets, outputs[0], outputs[-1], kernels[-1], step, math.prod(sizes), height,
        planes * -(-outputs[0] // height),
    )  # fmt: skip


def _joined(sides: list[Side]) -> list[Side]:
    """The same tiles with as few axes as possible: rows that windows have whole are one row."""
    while len(sides) > 1 and sides[-1][0] == sides[-1][2]:
        (size, outputs, kernel), (row, _, _) = sides[-2:]
        sides = [*sides[:-2], (size * row, outputs, kernel * row)]
    return sides


def _as_rows(planes: int, sides: list[Side]) -> tuple[int, list[Side]]:
    """At least two axes, of how many planes: a row for each window that is alone on its row."""
    if len(sides) > 1:
        return planes, sides
    size, outputs, kernel = sides[0]
    if size > outputs * kernel:  # something is left over, so that windows are not all alike
        return planes, [(1, 1, 1), *sides]
    return 1, [(planes * outputs, planes * outputs, 1), (kernel, 1, kernel)]
