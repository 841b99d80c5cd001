"""Gradients of AVERAGE and SUM in small planes, whose rows are too short for vectors.

As in `average_sum.py`, every element adds the outputs that reach it, one axis after the other, in
float64. Here a table lists these outputs for every element of a plane. A tile is a run of planes.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import CollectTables
from pooling_engine.backends.numba_backend.language.division import divide_by
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.operations import pick
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

STEP_COLUMNS = 3  # of a row of `CollectTables.steps`


@part
def _collect_constant(
    source: Pointer, target: Pointer, slots: Pointer, count: int, reach: int
) -> None:
    """Add `reach` outputs to each of `count` elements; `reach` is a constant."""
    for i in range(count):
        output = np.int64(get(slots, i))
        total = pick(output >= 0, get(source, max(0, output)), 0.0)
        for slot in range(1, reach):
            output = np.int64(get(slots, slot * count + i))
            total += pick(output >= 0, get(source, max(0, output)), 0.0)
        put(target, i, total)


@routine
def _collect(source: Pointer, target: Pointer, slots: Pointer, count: int, reach: int) -> None:
    """Add the outputs that reach each of `count` elements along one axis, up to four."""
    if reach == 1:
        _collect_constant(source, target, slots, count, 1)
    elif reach == 2:
        _collect_constant(source, target, slots, count, 2)
    elif reach == 3:
        _collect_constant(source, target, slots, count, 3)
    else:
        _collect_constant(source, target, slots, count, 4)


@part
def _divide(
    values: Pointer, quotients: Pointer, planes: int, count: int, divisors: Row, divisor: float
) -> None:
    """Divide the gradients of some planes of `count` outputs."""
    if len(divisors) == 0:
        divide_by(values, quotients, divisor, planes * count)
        return
    own = pointer_to(divisors, 0)
    for plane in range(planes):
        gradients, results = ahead(values, plane * count), ahead(quotients, plane * count)
        for i in range(count):
            put(results, i, convert(get(gradients, i), results) / get(own, i))


@kernel
def collect_planes(dy: Row, dx: Row, tables: CollectTables, begin: int, end: int) -> bool:
    """Compute tiles `begin` to `end` of flat `dx`.

    Returns:
        False: the results are always complete.
    """
    slots, steps, height, planes = tables.slots, tables.steps, tables.height, tables.planes
    divisors, divisor, element = tables.divisors, tables.divisor, tables.element
    outputs, size, room = tables.outputs, tables.size, height * tables.largest
    widened = scratch_for(element.zero, height * outputs)
    scratch, narrowed = np.empty(2 * room), np.empty(height * size, np.float32)
    for tile in range(begin, end):
        first = tile * height
        number = min(planes, first + height) - first
        source, place = pointer_to(scratch, 0), pointer_to(dy, first * outputs)
        values = load(place, number * outputs, pointer_to(widened, 0), element)
        _divide(values, source, number, outputs, divisors, divisor)
        before = outputs
        for step in range(len(steps) // STEP_COLUMNS):
            row = STEP_COLUMNS * step
            at, count, reach = steps[row], steps[row + 1], steps[row + 2]
            target = pointer_to(scratch, (step + 1) % 2 * room)
            for plane in range(number):
                own, results = ahead(source, plane * before), ahead(target, plane * count)
                _collect(own, results, pointer_to(slots, at), count, reach)
            source, before = target, count
        result = pointer_to(dx, first * size)
        divide_and_round(source, result, 1.0, number * size, pointer_to(narrowed, 0), element)
    return False
