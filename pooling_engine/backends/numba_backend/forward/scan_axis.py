"""Sums of large windows along one axis, at a cost that does not grow with the window.

The axis, with its padding, is cut into blocks of the window's length. A window is one block, or the
end of one and the beginning of the next: the sum of a suffix of the one and a prefix of the other.
Nothing is subtracted. Van Herk, Gil and Werman have the same method for extremes.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    ahead,
    convert,
    get,
    put,
)


@routine
def scan_vectors(
    source: Pointer,
    target: Pointer,
    axis: AxisRow,
    before: int,
    begin: int,
    end: int,
    length: int,
    suffixes: Pointer,
    prefix: Pointer,
) -> None:
    """Sum vectors of `length` elements to outputs `begin` to `end` of an axis without dilation.

    Args:
        source: the vector at position 0 of the axis; positions that no window reaches are not read.
        target: the sums, in their type.
        axis: the axis.
        before: padding before position 0.
        begin: first output.
        end: one after the last.
        length: elements of a vector.
        suffixes: room for as many vectors of sums as a block has, or the axis if it has fewer.
        prefix: room for one.
    """
    taps, stride = axis.taps, axis.stride
    output = begin
    while output < end:
        # Where the window, its block and the next block start; positions may lie in the padding.
        start = output * stride - before
        block = start - output * stride % taps
        following = block + taps
        stop = min(end, (following + before + stride - 1) // stride)
        if start == block:
            low, high = max(start, 0), min(following, axis.size)
            results = ahead(target, (output - begin) * length)
            _clear(results, length)
            for position in range(low, high):
                _add(ahead(source, position * length), results, results, length)
            output += 1
            if output == stop:
                continue
            start += stride
        low, high = max(start, 0), min(following, axis.size)
        if low < high:
            _copy(
                ahead(source, (high - 1) * length),
                ahead(suffixes, (high - 1 - low) * length),
                length,
            )
        for position in range(high - 2, low - 1, -1):
            sums = ahead(suffixes, (position - low) * length)
            _add(ahead(source, position * length), ahead(sums, length), sums, length)
        _clear(prefix, length)
        position = max(following, 0)
        for number in range(output, stop):
            start = number * stride - before
            limit = min(start + taps, axis.size)
            for further in range(position, limit):
                _add(ahead(source, further * length), prefix, prefix, length)
            position = max(position, limit)
            results = ahead(target, (number - begin) * length)
            if start < high:
                own = ahead(suffixes, (max(start, low) - low) * length)
                _add(own, prefix, results, length)
            else:
                _copy(prefix, results, length)
        output = stop


@routine
def scan_rows(
    source: Pointer,
    pitch: int,
    target: Pointer,
    axis: AxisRow,
    before: int,
    rows: int,
    group: int,
    columns: Pointer,
    sums: Pointer,
    suffixes: Pointer,
    prefix: Pointer,
) -> None:
    """Sum the windows of rows of single elements, `pitch` apart, along an axis without dilation.

    Args:
        source: the rows.
        pitch: distance between them.
        target: the sums, in their type.
        axis: the axis.
        before: padding before position 0.
        rows: number of rows.
        group: rows that are transposed, so that they can be summed as vectors.
        columns: room for `group` rows of sums' elements.
        sums: room for the outputs of `group` rows.
        suffixes: as in `scan_vectors`, for vectors of `group` elements.
        prefix: the same.
    """
    for first in range(0, rows, group):
        count = min(group, rows - first)
        for row in range(count):
            own = ahead(source, (first + row) * pitch)
            for position in range(axis.size):
                put(columns, position * count + row, convert(get(own, position), columns))
        scan_vectors(columns, sums, axis, before, 0, axis.outputs, count, suffixes, prefix)
        for row in range(count):
            own = ahead(target, (first + row) * axis.outputs)
            for output in range(axis.outputs):
                put(own, output, get(sums, output * count + row))


@part
def _add(one: Pointer, other: Pointer, target: Pointer, length: int) -> None:
    for i in range(length):
        put(target, i, convert(get(one, i), target) + get(other, i))


@part
def _copy(source: Pointer, target: Pointer, length: int) -> None:
    for i in range(length):
        put(target, i, convert(get(source, i), target))


@part
def _clear(target: Pointer, length: int) -> None:
    for i in range(length):
        put(target, i, convert(0, target))
