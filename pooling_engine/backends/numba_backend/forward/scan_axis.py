"""Sums of large windows along one axis, at a cost that does not grow with the window.

The axis, with its padding, is cut into blocks of the window's length. A window is one block, or the
end of one and the beginning of the next: the sum of a suffix of the one and a prefix of the other.
Nothing is subtracted. Van Herk, Gil and Werman have the same method for extremes.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.jit import part, routine, section
from pooling_engine.backends.numba_backend.language.lanes import suffix_sums, window_sums
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    ahead,
    convert,
    get,
    put,
)
from pooling_engine.backends.rules import LANES


@section
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
        suffixes: room for as many vectors of sums as a block has, or the axis if it has fewer; a
            vector has room for at least LANES sums.
        prefix: room for two.
    """
    if length < LANES:
        _scan_short(source, target, axis, before, begin, end, length, suffixes, prefix)
        return
    for number in range(-(-length // LANES)):
        at = min(number * LANES, length - LANES)  # the last part may repeat some of the one before
        part_source, part_target = ahead(source, at), ahead(target, at)
        _scan_lanes(part_source, part_target, axis, before, begin, end, length, suffixes, prefix)


@routine
def _scan_lanes(
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
    """Scan vectors of LANES elements, `length` apart, like `scan_vectors`."""
    taps, stride = axis.taps, axis.stride
    zeros = ahead(prefix, LANES)
    _clear(zeros, LANES)
    output = begin
    while output < end:
        start = output * stride - before
        block = start - output * stride % taps
        following = block + taps
        stop = min(end, (following + before + stride - 1) // stride)
        _clear(prefix, LANES)
        if start == block:
            low, high = max(start, 0), min(following, axis.size)
            results, taken = ahead(target, (output - begin) * length), ahead(source, low * length)
            window_sums(taken, length, max(high - low, 0), zeros, 0, results, length, 1, prefix)
            _clear(prefix, LANES)
            output += 1
            start += stride
        low, high = max(start, 0), min(following, axis.size)
        if output < stop and low < high:
            suffix_sums(ahead(source, low * length), length, high - low, suffixes)
        position = max(following, 0)
        while output < stop:
            start = output * stride - before
            limit = min(start + taps, axis.size)
            count, each = 1, max(limit - position, 0)
            if start >= low and limit == start + taps and each == stride:
                count = min(stop, (axis.size - taps + before) // stride + 1) - output
            own = ahead(suffixes, (max(start, low) - low) * LANES) if start < high else zeros
            results = ahead(target, (output - begin) * length)
            taken = ahead(source, position * length)
            window_sums(taken, length, each, own, stride * LANES, results, length, count, prefix)
            position += each * count
            output += count


@routine
def _scan_short(
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
    """Scan vectors of fewer than LANES elements, like `scan_vectors`."""
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
        group: rows that are transposed, so that they can be summed as vectors: at least LANES.
        columns: room for `group` rows of sums' elements.
        sums: room for the outputs of `group` rows.
        suffixes: as in `scan_vectors`, for vectors of `group` elements.
        prefix: the same.
    """
    for first in range(0, rows, group):
        count = min(group, rows - first)
        if count < group:
            _clear(columns, axis.size * group)
        for row in range(count):
            own = ahead(source, (first + row) * pitch)
            for position in range(axis.size):
                put(columns, position * group + row, convert(get(own, position), columns))
        scan_vectors(columns, sums, axis, before, 0, axis.outputs, group, suffixes, prefix)
        for row in range(count):
            own = ahead(target, (first + row) * axis.outputs)
            for output in range(axis.outputs):
                put(own, output, get(sums, output * group + row))


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
