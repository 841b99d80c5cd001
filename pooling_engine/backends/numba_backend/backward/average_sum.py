"""Gradients of AVERAGE and SUM: each, divided by its divisor, goes to every tap of its window.

Axis by axis, every element adds the outputs whose windows reach it, in float64. A tile is a run
of positions along the first axis of one plane of the *input*.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.backward.collect_axis import (
    collect_rows,
    collect_vectors,
)
from pooling_engine.backends.numba_backend.language.arguments import (
    AXIS_COLUMNS,
    AxisRow,
    Divisors,
    SpreadTables,
)
from pooling_engine.backends.numba_backend.language.axes import (
    TileSizes,
    axis_at,
    is_unchanged,
    sizes_of,
)
from pooling_engine.backends.numba_backend.language.division import divide_by, divide_by_factors
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part
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


@part
def _reaching(first: AxisRow, ends: Row, outputs: Row, begin: int, end: int) -> tuple[int, int]:
    """Return the range of outputs along the first axis that reach positions `begin` to `end`."""
    low, high = begin, end - 1
    if not is_unchanged(first):
        start, stop = ends[begin], ends[end]
        if start == stop:
            return 0, 0
        low, high = outputs[start], outputs[start]
        for at in range(start + 1, stop):
            low, high = min(low, outputs[at]), max(high, outputs[at])
    return low, high + 1


@part
def _divide(
    values: Pointer,
    quotients: Pointer,
    factors: Row,
    divisor: float,
    first: int,
    count: int,
    axes: Pointer,
    sizes: TileSizes,
) -> None:
    """Divide the gradients of `count` outputs, from position `first` of the first axis on."""
    if len(factors):
        divide_by_factors(values, quotients, pointer_to(factors, 0), first, count, axes, sizes)
    elif divisor != 1:
        divide_by(values, quotients, divisor, count)
    else:
        for i in range(count):
            put(quotients, i, convert(get(values, i), quotients))


@part
def _collect_axis(
    source: Pointer,
    target: Pointer,
    axis: AxisRow,
    ends: Pointer,
    outputs: Pointer,
    start: int,
    outer: int,
    inner: int,
) -> None:
    """Collect `outer` blocks of (outputs, inner) to as many of (size, inner)."""
    if inner == 1:
        collect_rows(source, target, axis, ends, outputs, start, outer)
        return
    for block in range(outer):
        gradients = ahead(source, block * axis.outputs * inner)
        results = ahead(target, block * axis.size * inner)
        collect_vectors(gradients, results, axis, ends, outputs, start, 0, axis.size, 0, inner)


@kernel
def spread_gradients(
    dy: Row, dx: Row, tables: SpreadTables, divisors: Divisors, begin: int, end: int
) -> bool:
    """Compute tiles `begin` to `end` of flat `dx`.

    Returns:
        False: the results are always complete.
    """
    ends, outputs, starts, parts = tables.ends, tables.outputs, tables.starts, tables.parts
    axes, height, element = pointer_to(tables.axes, 0), tables.height, tables.element
    factors = divisors.factors
    sizes = sizes_of(axes, len(tables.axes) // AXIS_COLUMNS, tables.inner, 1)
    first = axis_at(axes, 0)
    per_plane = -(-first.size // height)
    most = 1
    for tile in range(begin, end):
        low = tile % per_plane * height
        o_low, o_high = _reaching(first, ends, outputs, low, min(first.size, low + height))
        most = max(most, o_high - o_low)
        if tile - begin >= per_plane:
            break
    quotients = np.empty(most * sizes.out_row)
    widened = scratch_for(element.zero, most * sizes.out_row)
    room = height * sizes.scratch
    scratch, narrowed = np.empty(2 * room), np.empty(height * sizes.row, np.float32)
    for tile in range(begin, end):
        plane, low = tile // per_plane, tile % per_plane * height
        high = min(first.size, low + height)
        o_low, o_high = _reaching(first, ends, outputs, low, high)
        count = (o_high - o_low) * sizes.out_row
        place = pointer_to(dy, (plane * first.outputs + o_low) * sizes.out_row)
        source = pointer_to(quotients, 0)
        values = load(place, count, pointer_to(widened, 0), element)
        _divide(values, source, factors, divisors.divisor, o_low, count, axes, sizes)
        if not is_unchanged(first):
            gradient, source = source, pointer_to(scratch, 0)
            own_ends, own_outputs = pointer_to(ends, 0), pointer_to(outputs, 0)
            length, start = sizes.out_row, starts[0]
            collect_vectors(
                gradient, source, first, own_ends, own_outputs, start, low, high, o_low, length
            )
        rest, outer = sizes.out_row, high - low
        for a in range(1, sizes.axes):
            axis, target = axis_at(axes, a), pointer_to(scratch, (a % 2) * room)
            rest //= axis.outputs
            own_ends = pointer_to(ends, parts[2 * a])
            own_outputs = pointer_to(outputs, parts[2 * a + 1])
            _collect_axis(source, target, axis, own_ends, own_outputs, starts[a], outer, rest)
            outer *= axis.size
            source = target
        target = pointer_to(dx, (plane * first.size + low) * sizes.row)
        count = (high - low) * sizes.row
        divide_and_round(source, target, 1.0, count, pointer_to(narrowed, 0), element)
    return False
