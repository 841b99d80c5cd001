"""Gradients of AVERAGE and SUM: each goes, over the divisor, to every tap of its window.

The transpose of a sum, axis by axis: every element collects the outputs whose windows reach it,
in the order of the taps, in float64. A slab here is a run of positions along the first axis of one
plane of the *input*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.forward.average_sum import divide
from pooling_engine.backends.numba_backend.forward.reduce_tile import axis_at, is_left, sizes_of
from pooling_engine.backends.numba_backend.language.elements import (
    averaged,
    divide_by,
    loaded,
    scratch_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.pointers import (
    ahead,
    get,
    lift,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.tables.axes import (
    COLUMNS,
    DILATION,
    KERNEL,
    OUTPUTS,
    SIZE,
    STRIDE,
)


@routine
def _collect(
    source: Any, target: Any, ends: Any, reached: Any, position: int, low: int, length: int
) -> None:
    """One position: the sum of the vectors of all outputs that reach it.

    Args:
        ends: where the outputs of each position end in `reached`; those of the first begin at 0.
        low: the output that `source` begins with.
    """
    begin, end = get(ends, position), get(ends, position + 1)
    if begin == end:
        for i in range(length):
            put(target, i, 0.0)
        return
    a = ahead(source, (get(reached, begin) - low) * length)
    if end - begin == 1:
        for i in range(length):
            put(target, i, get(a, i))
        return
    b = ahead(source, (get(reached, begin + 1) - low) * length)
    for i in range(length):
        put(target, i, get(a, i) + get(b, i))
    for place in range(begin + 2, end):
        a = ahead(source, (get(reached, place) - low) * length)
        for i in range(length):
            put(target, i, get(target, i) + get(a, i))


@part
def _collect_axis(
    source: Any, target: Any, axis: Any, ends: Any, reached: Any, first: int, low: int, high: int,
    o_low: int, length: int,
) -> None:  # fmt: skip
    """Positions `low` to `high` of an axis of vectors of `length` elements.

    Args:
        first: where the first window of the axis starts.
        o_low: the output that `source` begins with.
    """
    count, pad = get(axis, KERNEL), -first
    is_plain = get(axis, STRIDE) == 1 and get(axis, DILATION) == 1
    position = low
    while position < high:
        out = ahead(target, (position - low) * length)
        if is_plain and count - 1 - pad <= position < get(axis, OUTPUTS) - pad:
            run = min(high, get(axis, OUTPUTS) - pad) - position  # all reached alike: as one
            taps = ahead(source, (position + pad - o_low) * length)
            _collect_run(taps, out, count, length, run * length)
            position += run
        else:
            _collect(source, out, ends, reached, position, o_low, length)
            position += 1


@routine
def _collect_run(source: Any, target: Any, count: int, step: int, length: int) -> None:
    """The sum of `count` vectors, each `step` before the last one."""
    if count == 1:
        for i in range(length):
            put(target, i, get(source, i))
        return
    b = ahead(source, -step)
    if count == 2:
        for i in range(length):
            put(target, i, get(source, i) + get(b, i))
        return
    c = ahead(b, -step)
    for i in range(length):
        put(target, i, get(source, i) + get(b, i) + get(c, i))
    for tap in range(3, count - 1, 2):
        b = ahead(source, -tap * step)
        c = ahead(b, -step)
        for i in range(length):
            put(target, i, get(target, i) + get(b, i) + get(c, i))
    if count > 3 and count % 2 == 0:
        b = ahead(source, -(count - 1) * step)
        for i in range(length):
            put(target, i, get(target, i) + get(b, i))


@part
def _collect_each(source: Any, target: Any, ends: Any, reached: Any, low: int, high: int) -> None:
    """Positions `low` to `high` of a row of single elements."""
    for position in range(low, high):
        total = 0.0
        for place in range(get(ends, position), get(ends, position + 1)):
            total += get(source, get(reached, place))
        put(target, position, total)


@routine
def _collect_rows(
    source: Any, target: Any, axis: Any, ends: Any, reached: Any, first: int, rows: int
) -> None:
    """Rows of single elements along the last axis; `first` is the start of its first window."""
    size, outputs, count = get(axis, SIZE), get(axis, OUTPUTS), get(axis, KERNEL)
    stride, pad = get(axis, STRIDE), -first
    is_plain = get(axis, DILATION) == 1
    low, high = 0, 0  # the positions that a loop without conditions covers
    if outputs == 1 and first <= 0 and is_plain and first + count >= size:
        low, high = 0, size
        for row in range(rows):
            out = ahead(target, row * size)
            for i in range(size):
                put(out, i, get(source, row))
    elif is_plain and stride == 2 and count == 2:
        o_low, o_high = (pad + 1) // 2, min(outputs, (size + pad) // 2)
        low, high = 2 * o_low - pad, 2 * o_high - pad
        is_one_row = size == 2 * outputs and low == 0 and high == size
        for row in range(1 if is_one_row else rows):
            a = ahead(source, row * outputs + o_low)
            out = ahead(target, row * size + low)
            for o in range(rows * outputs if is_one_row else o_high - o_low):
                put(out, 2 * o, get(a, o))
                put(out, 2 * o + 1, get(a, o))
    elif is_plain and stride == 2 and count == 3:
        o_low, o_high = max(1, (pad + 1) // 2), min(outputs, (size + pad) // 2)
        low, high = 2 * o_low - pad, 2 * o_high - pad
        for row in range(rows):
            a = ahead(source, row * outputs + o_low)
            out = ahead(target, row * size + low)
            for o in range(o_high - o_low):
                put(out, 2 * o, get(a, o) + get(a, o - 1))
                put(out, 2 * o + 1, get(a, o))
    elif is_plain and stride == 1:
        low, high = max(0, count - 1 - pad), min(size, outputs - pad)
        if low < high and size == outputs:  # all rows as one; what wraps is written anew below
            length = (rows - 1) * size + high - low
            _collect_run(ahead(source, low + pad), ahead(target, low), count, 1, length)
        elif low < high:
            for row in range(rows):
                taps = ahead(source, row * outputs + low + pad)
                _collect_run(taps, ahead(target, row * size + low), count, 1, high - low)
    if high <= low:
        low, high = size, size
    for row in range(rows):
        a, out = ahead(source, row * outputs), ahead(target, row * size)
        _collect_each(a, out, ends, reached, 0, low)
        _collect_each(a, out, ends, reached, high, size)


@kernel
def spread(
    dy: Any, dx: Any, axes_of_plan: Any, starts: Any, ends: Any, reached: Any, places: Any,
    factors: Any, inner: int, height: int, divisor: float, empty: Any, is_brain: bool, begin: int,
    end: int,
) -> None:  # fmt: skip
    """Computes slabs `begin` to `end` of flat `dx`.

    Args:
        starts: for each axis, the position of its first tap of all.
        ends: for each axis in turn, where the outputs that reach its positions end in `reached`.
        reached: for each axis in turn, those outputs.
        places: for each axis, where its part of `ends` and of `reached` begins.
        factors, divisor: as in `sums`.
    """
    axes = pointer_to(axes_of_plan, 0)
    sizes = sizes_of(axes, len(axes_of_plan) // COLUMNS, inner, 1)
    size, outputs, last = get(axes, SIZE), get(axes, OUTPUTS), sizes.axes - 1
    bands = -(-size // height)
    most = 1
    for slab in range(begin, end):
        low = slab % bands * height
        o_low, o_high = _reach(axes, ends, reached, low, min(size, low + height))
        most = max(most, o_high - o_low)
        if slab - begin >= bands:
            break
    gradients, wide = np.empty(most * sizes.out_row), scratch_for(empty, most * sizes.out_row)
    room = height * sizes.scratch
    scratch, narrowed = np.empty(2 * room), np.empty(height * sizes.row, np.float32)
    for slab in range(begin, end):
        plane, low = slab // bands, slab % bands * height
        high = min(size, low + height)
        o_low, o_high = _reach(axes, ends, reached, low, high)
        count = (o_high - o_low) * sizes.out_row
        at = pointer_to(dy, (plane * outputs + o_low) * sizes.out_row)
        sent, gradient = loaded(at, count, pointer_to(wide, 0), is_brain), pointer_to(gradients, 0)
        if len(factors):
            rows = count // (inner * get(axis_at(axes, last), OUTPUTS))
            divide(sent, gradient, pointer_to(factors, 0), o_low, rows, axes, sizes, inner)
        elif divisor != 1:
            divide_by(sent, gradient, divisor, count)
        else:
            for i in range(count):
                put(gradient, i, lift(get(sent, i), gradient))
        source = gradient
        if not is_left(axes):
            source = pointer_to(scratch, 0)
            _collect_axis(
                gradient, source, axes, pointer_to(ends, 0), pointer_to(reached, 0), starts[0], low,
                high, o_low, sizes.out_row,
            )  # fmt: skip
        rest, outer = sizes.out_row, high - low
        for a in range(1, sizes.axes):
            axis, target = axis_at(axes, a), pointer_to(scratch, (a % 2) * room)
            rest //= get(axis, OUTPUTS)
            own_ends = pointer_to(ends, places[2 * a])
            own_reached = pointer_to(reached, places[2 * a + 1])
            if rest == 1:
                _collect_rows(source, target, axis, own_ends, own_reached, starts[a], outer)
            else:
                for block in range(outer):
                    taps = ahead(source, block * get(axis, OUTPUTS) * rest)
                    out = ahead(target, block * get(axis, SIZE) * rest)
                    _collect_axis(
                        taps, out, axis, own_ends, own_reached, starts[a], 0, get(axis, SIZE), 0,
                        rest,
                    )  # fmt: skip
            outer *= get(axis, SIZE)
            source = target
        place, given = pointer_to(dx, (plane * size + low) * sizes.row), (high - low) * sizes.row
        averaged(source, place, 1.0, given, pointer_to(narrowed, 0), is_brain)


@part
def _reach(axes: Any, ends: Any, reached: Any, low: int, high: int) -> Any:
    """The range of outputs along the first axis that reach positions `low` to `high`."""
    first, last = low, high - 1
    if not is_left(axes):
        begin, end = ends[low], ends[high]
        if begin == end:
            return 0, 0
        first, last = reached[begin], reached[begin]
        for place in range(begin + 1, end):
            first, last = min(first, reached[place]), max(last, reached[place])
    return first, last + 1
