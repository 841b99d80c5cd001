"""AVERAGE and SUM of global windows: the sum of each plane, in float64.

Elements are added in the order that `rules.py` defines.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import PlaneTables
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    ahead,
    get,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.rounding import divide_and_round
from pooling_engine.backends.rules import BLOCK, LANES


@part
def _add_block(source: Pointer, count: int, lanes: Pointer) -> None:
    """Sum up to `BLOCK` elements, the i-th into lane ``i % LANES``."""
    for lane in range(LANES):
        put(lanes, lane, 0.0)
    rows = count // LANES
    for row in range(rows):
        elements = ahead(source, row * LANES)
        for lane in range(LANES):
            put(lanes, lane, get(lanes, lane) + get(elements, lane))
    elements = ahead(source, rows * LANES)
    for lane in range(count - rows * LANES):
        put(lanes, lane, get(lanes, lane) + get(elements, lane))


@kernel
def global_sum_pool(x: Row, output: Row, planes: PlaneTables, begin: int, end: int) -> bool:
    """Pool planes `begin` to `end` of flat `x` into flat `output`.

    Returns:
        False: the results are always complete.
    """
    size, element = planes.size, planes.element
    widened, narrowed = scratch_for(element.zero, BLOCK), np.empty(1, np.float32)
    block_lanes, plane_lanes = np.empty(LANES), np.empty(LANES)
    for plane in range(begin, end):
        plane_lanes[:] = 0
        for first in range(0, size, BLOCK):
            count = min(BLOCK, size - first)
            source = pointer_to(x, plane * size + first)
            elements = load(source, count, pointer_to(widened, 0), element)
            _add_block(elements, count, pointer_to(block_lanes, 0))
            for lane in range(LANES):
                plane_lanes[lane] += block_lanes[lane]
        half = LANES // 2
        while half:
            for lane in range(half):
                plane_lanes[lane] += plane_lanes[lane + half]
            half //= 2
        place, spare = pointer_to(output, plane), pointer_to(narrowed, 0)
        divide_and_round(pointer_to(plane_lanes, 0), place, planes.divisor, 1, spare, element)
    return False
