"""Sums of output gradients along one axis: each input position adds the outputs that reach it.

The transpose of `forward/reduce_axis.py` for sums. Every position adds its outputs in the order
of their taps, in float64.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead, get, put


@routine
def _collect(
    source: Pointer,
    target: Pointer,
    ends: Pointer,
    outputs: Pointer,
    position: int,
    first_output: int,
    length: int,
) -> None:
    """Sum the vectors of all outputs that reach one position.

    Args:
        ends: where the outputs of each position end in `outputs`, preceded by 0.
        first_output: the output at the start of `source`.
    """
    begin, end = get(ends, position), get(ends, position + 1)
    if begin == end:
        for i in range(length):
            put(target, i, 0.0)
        return
    a = ahead(source, (get(outputs, begin) - first_output) * length)
    if end - begin == 1:
        for i in range(length):
            put(target, i, get(a, i))
        return
    b = ahead(source, (get(outputs, begin + 1) - first_output) * length)
    for i in range(length):
        put(target, i, get(a, i) + get(b, i))
    for at in range(begin + 2, end):
        a = ahead(source, (get(outputs, at) - first_output) * length)
        for i in range(length):
            put(target, i, get(target, i) + get(a, i))


@part
def collect_vectors(
    source: Pointer,
    target: Pointer,
    axis: AxisRow,
    ends: Pointer,
    outputs: Pointer,
    start: int,
    begin: int,
    end: int,
    first_output: int,
    length: int,
) -> None:
    """Collect positions `begin` to `end` of an axis of vectors of `length` elements.

    Args:
        ends: where the outputs of each position end in `outputs`, preceded by 0.
        start: position of the first tap of the first window.
        first_output: the output at the start of `source`.
    """
    pad = -start
    is_plain = axis.stride == 1 and axis.dilation == 1
    position = begin
    while position < end:
        results = ahead(target, (position - begin) * length)
        if is_plain and axis.taps - 1 - pad <= position < axis.outputs - pad:
            run = min(end, axis.outputs - pad) - position  # as many outputs reach each: as one
            taps = ahead(source, (position + pad - first_output) * length)
            _collect_run(taps, results, axis.taps, length, run * length)
            position += run
        else:
            _collect(source, results, ends, outputs, position, first_output, length)
            position += 1


@routine
def _collect_run(source: Pointer, target: Pointer, count: int, step: int, length: int) -> None:
    """Sum `count` vectors, each `step` before the previous one."""
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
def _collect_each(
    source: Pointer, target: Pointer, ends: Pointer, outputs: Pointer, begin: int, end: int
) -> None:
    """Collect positions `begin` to `end` of a row of single elements."""
    for position in range(begin, end):
        total = 0.0
        for at in range(get(ends, position), get(ends, position + 1)):
            total += get(source, get(outputs, at))
        put(target, position, total)


@routine
def collect_rows(
    source: Pointer,
    target: Pointer,
    axis: AxisRow,
    ends: Pointer,
    outputs: Pointer,
    start: int,
    rows: int,
) -> None:
    """Collect rows of single elements along the last axis.

    Args:
        ends: where the outputs of each position end in `outputs`, preceded by 0.
        start: position of the first tap of the first window.
    """
    size, per_row, taps, stride, pad = axis.size, axis.outputs, axis.taps, axis.stride, -start
    is_plain = axis.dilation == 1
    begin, end = 0, 0  # the positions that a loop without conditions computes
    if per_row == 1 and start <= 0 and is_plain and start + taps >= size:
        begin, end = 0, size
        for row in range(rows):
            results = ahead(target, row * size)
            for i in range(size):
                put(results, i, get(source, row))
    elif is_plain and stride == 2 and taps == 2:
        first, stop = (pad + 1) // 2, min(per_row, (size + pad) // 2)
        begin, end = 2 * first - pad, 2 * stop - pad
        is_one_row = size == 2 * per_row and begin == 0 and end == size
        for row in range(1 if is_one_row else rows):
            a = ahead(source, row * per_row + first)
            results = ahead(target, row * size + begin)
            for o in range(rows * per_row if is_one_row else stop - first):
                put(results, 2 * o, get(a, o))
                put(results, 2 * o + 1, get(a, o))
    elif is_plain and stride == 2 and taps == 3:
        first, stop = max(1, (pad + 1) // 2), min(per_row, (size + pad) // 2)
        begin, end = 2 * first - pad, 2 * stop - pad
        for row in range(rows):
            a = ahead(source, row * per_row + first)
            results = ahead(target, row * size + begin)
            for o in range(stop - first):
                put(results, 2 * o, get(a, o) + get(a, o - 1))
                put(results, 2 * o + 1, get(a, o))
    elif is_plain and stride == 1:
        begin, end = max(0, taps - 1 - pad), min(size, per_row - pad)
        if begin < end and size == per_row:  # all rows as one; what wraps is overwritten below
            length = (rows - 1) * size + end - begin
            _collect_run(ahead(source, begin + pad), ahead(target, begin), taps, 1, length)
        elif begin < end:
            for row in range(rows):
                a = ahead(source, row * per_row + begin + pad)
                _collect_run(a, ahead(target, row * size + begin), taps, 1, end - begin)
    if end <= begin:
        begin, end = size, size
    for row in range(rows):
        a, results = ahead(source, row * per_row), ahead(target, row * size)
        _collect_each(a, results, ends, outputs, 0, begin)
        _collect_each(a, results, ends, outputs, end, size)
