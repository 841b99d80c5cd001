"""AVERAGE and SUM of global windows: the sum of each plane, in float64.

Elements are added in the order that `rules.py` defines.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import PlaneTables
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part
from pooling_engine.backends.numba_backend.language.lanes import add_in_lanes, sum_of_lanes
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    ahead,
    convert,
    get,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.rounding import divide_and_round
from pooling_engine.backends.rules import BLOCK, LANES

ROUNDED = 256  # sums that are divided and rounded together


@kernel
def global_sum_pool(x: Row, output: Row, planes: PlaneTables, begin: int, end: int) -> bool:
    """Pool planes `begin` to `end` of flat `x` into flat `output`.

    Returns:
        False: the results are always complete.
    """
    size, element = planes.size, planes.element
    widened, narrowed = scratch_for(element.zero, BLOCK), np.empty(ROUNDED, np.float32)
    lanes_of_plane, sums = np.empty(LANES), np.empty(ROUNDED)
    for group in range(begin, end, ROUNDED):
        totals, count = pointer_to(sums, 0), min(ROUNDED, end - group)
        for plane in range(count):
            lanes = pointer_to(lanes_of_plane, 0)
            for lane in range(LANES):
                put(lanes, lane, 0.0)
            for first in range(0, size, BLOCK):
                number = min(BLOCK, size - first)
                source = pointer_to(x, (group + plane) * size + first)
                elements = load(source, number, pointer_to(widened, 0), element)
                add_in_lanes(elements, number, lanes)
            put(totals, plane, sum_of_lanes(lanes))
        place, spare = pointer_to(output, group), pointer_to(narrowed, 0)
        divide_and_round(totals, place, planes.divisor, count, spare, element)
    return False


@kernel
def global_sum_channels(x: Row, output: Row, planes: PlaneTables, begin: int, end: int) -> bool:
    """Pool planes `begin` to `end` of flat `x`, with the channels last, into flat `output`.

    Returns:
        False: the results are always complete.
    """
    size, channels, element = planes.size, planes.channels, planes.element
    widened, narrowed = scratch_for(element.zero, 8 * channels), np.empty(channels, np.float32)
    sums = np.empty(channels)
    for plane in range(begin, end):
        totals = pointer_to(sums, 0)
        for channel in range(channels):
            put(totals, channel, 0.0)
        for first in range(0, size, 8):
            number = min(8, size - first)
            source = pointer_to(x, (plane * size + first) * channels)
            rows = load(source, number * channels, pointer_to(widened, 0), element)
            if number == 8:
                _add_rows(rows, totals, channels, 8)
            else:
                for row in range(number):
                    _add_rows(ahead(rows, row * channels), totals, channels, 1)
        place, spare = pointer_to(output, plane * channels), pointer_to(narrowed, 0)
        divide_and_round(totals, place, planes.divisor, channels, spare, element)
    return False


@part
def _add_rows(rows: Pointer, totals: Pointer, channels: int, count: int) -> None:
    """Add rows of channels to their sums, in order; `count` is a constant."""
    for channel in range(channels):
        total = get(totals, channel)
        for row in range(count):
            total = convert(get(rows, row * channels + channel), totals) + total
        put(totals, channel, total)
