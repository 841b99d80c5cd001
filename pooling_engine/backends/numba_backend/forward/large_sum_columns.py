"""Sums of float64 along columns of windows with a stride of 1: by scans, or tap by tap."""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, ahead
from pooling_engine.backends.numba_backend.language.vectors import (
    filled,
    load_8,
    store_vector,
    sum_of,
    widened,
)

LANES = 8
STEP = 3 * LANES  # elements of a row that are summed side by side
Vectors = tuple[Element, Element, Element]


@routine
def widen_rows(source: Pointer, rows: int, length: int, target: Pointer, target_pitch: int) -> None:
    """Copy rows of float32, one after the other, to rows of float64."""
    last = rows - 1
    for at in range(0, length, LANES):
        elements, places = ahead(source, at), ahead(target, at)
        for row in range(last):  # the elements after a row are those of the next one
            store_vector(places, row * target_pitch, _wide(elements, row * length))
        left = min(at, length - LANES)
        store_vector(target, last * target_pitch + left, _wide(source, last * length + left))


@routine
def scan_columns(
    source: Pointer,
    pitch: int,
    rows: int,
    start: int,
    target: Pointer,
    outputs: int,
    taps: int,
    suffixes: Pointer,
) -> None:
    """Sum windows by scans, in the order of `scan_axis.py`.

    Args:
        source: rows of float64.
        pitch: distance between them, and between those of `target`: at least STEP, a multiple of
            LANES; all elements between them are summed.
        rows: number of rows.
        start: where the first window begins, which is a block; may be before the first row.
        target: rows of sums.
        outputs: number of rows of sums.
        taps: taps of a window.
        suffixes: room for STEP sums for each tap.
    """
    for at in range(0, pitch, STEP):  # several vectors: each sum waits for the one before
        left = min(at, pitch - STEP)
        elements, results = ahead(source, left), ahead(target, left)
        zero = filled(0.0, load_8(suffixes, 0))
        zeros = zero, zero, zero
        sums = zeros  # of the beginning of a block
        for position in range(max(start, 0), min(start + taps, rows)):
            sums = _added(sums, ahead(elements, position * pitch))
        for block in range(start, start + outputs, taps):
            _store(ahead(results, (block - start) * pitch), sums)
            low, high = max(block, 0), min(block + taps, rows)
            sums = zeros
            for position in range(high - 1, low - 1, -1):
                sums = _added(sums, ahead(elements, position * pitch))
                _store(ahead(suffixes, (position - block) * STEP), sums)
            for position in range(block, low):
                _store(ahead(suffixes, (position - block) * STEP), sums)
            end = min(start + outputs, block + taps)
            last = min(end, max(block + 1, rows - taps + 1))  # of the windows inside
            sums = zeros
            for window in range(block + 1, last):
                sums = _added(sums, ahead(elements, (window + taps - 1) * pitch))
                suffix = ahead(suffixes, (window - block) * STEP)
                _store(ahead(results, (window - start) * pitch), _added(sums, suffix))
            for window in range(last, end):
                suffix = ahead(suffixes, (window - block) * STEP)
                _store(ahead(results, (window - start) * pitch), _added(sums, suffix))
            if block + 2 * taps <= rows:  # the last element of the next block
                sums = _added(sums, ahead(elements, (block + 2 * taps - 1) * pitch))


@part
def _added(sums: Vectors, place: Pointer) -> Vectors:
    return (
        sum_of(sums[0], load_8(place, 0)),
        sum_of(sums[1], load_8(place, LANES)),
        sum_of(sums[2], load_8(place, 2 * LANES)),
    )


@part
def _store(place: Pointer, sums: Vectors) -> None:
    store_vector(place, 0, sums[0])
    store_vector(place, LANES, sums[1])
    store_vector(place, 2 * LANES, sums[2])


@routine
def add_columns(
    source: Pointer,
    length: int,
    rows: int,
    start: int,
    target: Pointer,
    target_pitch: int,
    outputs: int,
    taps: int,
) -> None:
    """Sum windows tap by tap.

    Args:
        source: rows of float32.
        length: elements of a row, at least LANES.
        rows: number of rows.
        start: where the first window begins; may be before the first row.
        target: rows of sums.
        target_pitch: distance between them.
        outputs: number of rows of sums.
        taps: taps of a window.
    """
    inside = min(outputs, max(0, -start))
    inside_end = max(inside, min(outputs, rows - taps + 1 - start))
    for number in range(-(-length // LANES)):
        at = min(number * LANES, length - LANES)
        elements, results = ahead(source, at), ahead(target, at)
        for output in range(inside):
            place = ahead(results, output * target_pitch)
            store_vector(place, 0, _sum_of(elements, length, 0, min(start + output + taps, rows)))
        places = ahead(results, inside * target_pitch)
        first = ahead(elements, (start + inside) * length)
        if taps == 5:
            _slide(first, length, places, target_pitch, inside_end - inside)
        else:
            for output in range(inside_end - inside):
                total = _sum_of(first, length, output, output + taps)
                store_vector(places, output * target_pitch, total)
        for output in range(inside_end, outputs):
            total = _sum_of(elements, length, max(start + output, 0), rows)
            store_vector(results, output * target_pitch, total)


@part
def _slide(source: Pointer, pitch: int, target: Pointer, target_pitch: int, outputs: int) -> None:
    """Sum windows of 5 taps; every element is loaded once."""
    a, b = _wide(source, 0), _wide(source, pitch)
    c, d = _wide(source, 2 * pitch), _wide(source, 3 * pitch)
    for output in range(outputs):
        e = _wide(source, (output + 4) * pitch)
        total = sum_of(sum_of(sum_of(sum_of(a, b), c), d), e)
        store_vector(target, output * target_pitch, total)
        a, b, c, d = b, c, d, e


@part
def _sum_of(source: Pointer, step: int, begin: int, end: int) -> Element:
    total = _wide(source, begin * step)
    for tap in range(begin + 1, end):
        total = sum_of(total, _wide(source, tap * step))
    return total


@part
def _wide(place: Pointer, index: int) -> Element:
    return widened(load_8(place, index))
