"""AVERAGE and SUM of global windows of integers: the sum of each plane, in 64 bits."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import PlaneTables
from pooling_engine.backends.numba_backend.language.jit import kernel, routine
from pooling_engine.backends.numba_backend.language.lanes import add_in_lanes, sum_of_lanes
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.rounding import divide_and_round
from pooling_engine.backends.rules import LANES

ROUNDED = 256  # sums that are divided and rounded together


@kernel
def global_integer_sum_pool(x: Row, output: Row, planes: PlaneTables, begin: int, end: int) -> bool:
    """Sum planes `begin` to `end` of flat `x` into flat int64 `output`; no sum overflows.

    Returns:
        False: the results are always complete.
    """
    lanes = np.empty(LANES, np.int64)
    for plane in range(begin, end):
        total = _sum_of_plane(pointer_to(x, plane * planes.size), planes.size, pointer_to(lanes, 0))
        put(pointer_to(output, plane), 0, total)
    return False


@kernel
def global_integer_average_pool(
    x: Row, output: Row, planes: PlaneTables, begin: int, end: int
) -> bool:
    """Average planes `begin` to `end` of flat `x` into flat float32 `output`; no sum overflows.

    Returns:
        False: the results are always complete.
    """
    lanes, sums, narrowed = np.empty(LANES, np.int64), np.empty(ROUNDED), np.empty(1, np.float32)
    for group in range(begin, end, ROUNDED):
        totals, count = pointer_to(sums, 0), min(ROUNDED, end - group)
        for plane in range(count):
            source = pointer_to(x, (group + plane) * planes.size)
            total = _sum_of_plane(source, planes.size, pointer_to(lanes, 0))
            put(totals, plane, float(total))
        place, spare = pointer_to(output, group), pointer_to(narrowed, 0)
        divide_and_round(totals, place, planes.divisor, count, spare, planes.element)
    return False


@routine
def _sum_of_plane(source: Pointer, size: int, lanes: Pointer) -> int:
    for lane in range(LANES):
        put(lanes, lane, 0)
    add_in_lanes(source, size, lanes)
    return sum_of_lanes(lanes)
