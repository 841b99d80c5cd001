"""Gradients of adjacent windows: they overlap neither one another nor an edge.

Each element is in at most one window, so nothing is added. With indices, an element has the
gradient of its window if the index selects it, else zero: a vectorised choice, where
`max_min_scatter.py` writes one element after the other. Without, it has its share of the
gradient. A tile is a run of outputs along the first axis of one plane.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import AdjacentTables, Divisors
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
from pooling_engine.backends.numba_backend.language.rounding import (
    copy_canonical,
    divide_and_round,
)
from pooling_engine.backends.numba_backend.language.streaming import (
    copy,
    finish_streaming,
    stream,
    streaming_buffer,
)

MOST_SELECTED_TAPS = 4  # along a row, of windows whose taps `fill_selected` selects
LONG_ROW = 32  # outputs; shorter rows are computed together and then copied to their places


@part
def _write_selected_constant(
    gradient: Pointer, index: Pointer, first: int, target: Pointer, count: int, taps: int
) -> None:
    """Write `taps` taps of each of `count` windows, from tap `first` on; `taps` is a constant."""
    zero = convert(0, target)
    for i in range(count):
        for tap in range(taps):
            is_selected = get(index, i) == convert(first + tap, index)
            put(target, i * taps + tap, pick(is_selected, get(gradient, i), zero))


@routine
def _write_selected(
    gradient: Pointer, index: Pointer, first: int, target: Pointer, count: int, taps: int
) -> None:
    """Write taps like `_write_selected_constant`, for any `taps` up to `MOST_SELECTED_TAPS`."""
    if taps == 1:
        _write_selected_constant(gradient, index, first, target, count, 1)
    elif taps == 2:
        _write_selected_constant(gradient, index, first, target, count, 2)
    elif taps == 3:
        _write_selected_constant(gradient, index, first, target, count, 3)
    else:
        _write_selected_constant(gradient, index, first, target, count, 4)


@routine
def _has_invalid_index(indices: Pointer, count: int, taps: int) -> bool:
    """Return whether any index is neither the number of a tap nor "none"."""
    limit, none, is_invalid = convert(taps, indices), convert(-1, indices), False
    for i in range(count):
        is_invalid |= (get(indices, i) >= limit) & (get(indices, i) != none)
    return is_invalid


@part
def _repeat_constant(gradient: Pointer, target: Pointer, count: int, taps: int) -> None:
    for i in range(count):
        for tap in range(taps):
            put(target, i * taps + tap, get(gradient, i))


@routine
def _repeat(gradient: Pointer, target: Pointer, count: int, taps: int) -> None:
    """Write each of `count` gradients `taps` times."""
    if taps == 1:
        _repeat_constant(gradient, target, count, 1)
    elif taps == 2:
        _repeat_constant(gradient, target, count, 2)
    elif taps == 3:
        _repeat_constant(gradient, target, count, 3)
    elif taps == 4:
        _repeat_constant(gradient, target, count, 4)
    else:
        _repeat_constant(gradient, target, count, taps)


@routine
def _fill_rows(
    gradient: Pointer,
    index: Pointer,
    image: Pointer,
    spare: Pointer,
    cells: Row,
    offsets: Row,
    rows: int,
    row: int,
    taps: int,
    step: int,
) -> None:
    """Write the taps of all windows at `rows` outputs of the first axis.

    Args:
        gradient: output gradients.
        index: their indices.
        image: the input gradient.
        spare: room for the input gradient of one tap row of all windows.
        rows: number of outputs of the first axis.
        cells, offsets, row, taps, step: as in `AdjacentTables`, with `taps` for `row_taps`.
    """
    each, width = len(cells), row * taps
    for tap in range(len(offsets)):
        if row < LONG_ROW:
            _write_selected(gradient, index, tap * taps, spare, rows * each * row, taps)
        for number in range(rows * each):
            target = ahead(image, number // each * step + offsets[tap] + cells[number % each])
            at = number * row
            if row < LONG_ROW:
                copy(ahead(spare, at * taps), target, width)
            else:
                own, own_index = ahead(gradient, at), ahead(index, at)
                _write_selected(own, own_index, tap * taps, target, row, taps)


@kernel
def fill_selected(
    dy: Row, indices: Row, dx: Row, tables: AdjacentTables, begin: int, end: int
) -> bool:
    """Compute tiles `begin` to `end` of flat `dx`: the gradients of selected elements.

    Returns:
        Whether an index is invalid; then `dx` is incomplete.
    """
    outputs, row, height = tables.outputs, tables.row, tables.height
    size, step, is_streamed = tables.size, tables.step, tables.is_streamed
    cells, offsets, row_taps = tables.cells, tables.offsets, tables.row_taps
    each, taps, per_plane = len(cells), len(offsets) * row_taps, -(-outputs // height)
    most, rest = height * each * row, size - outputs * step
    has_gaps = outputs * each * row * taps != size
    gradients, spares = np.empty(most, dx.dtype), np.empty(most * row_taps, dx.dtype)
    images = np.empty(height * step + rest if is_streamed else 0, dx.dtype)
    is_invalid = False
    for tile in range(begin, end):
        plane, low = tile // per_plane, tile % per_plane * height
        high = min(outputs, low + height)
        at, count = (plane * outputs + low) * each * row, (high - low) * each * row
        gradient, index = pointer_to(gradients, 0), pointer_to(indices, at)
        copy_canonical(pointer_to(dy, at), gradient, count, tables.element)
        is_invalid |= _has_invalid_index(index, count, taps)
        target, out_count = pointer_to(dx, plane * size + low * step), (high - low) * step
        if high == outputs:
            out_count += rest
        image = streaming_buffer(target, pointer_to(images, 0), is_streamed)
        if has_gaps:
            for i in range(out_count):
                put(image, i, convert(0, image))
        spare, rows = pointer_to(spares, 0), high - low
        _fill_rows(gradient, index, image, spare, cells, offsets, rows, row, row_taps, step)
        stream(image, target, out_count, is_streamed)
    finish_streaming()
    return is_invalid


@kernel
def fill_shares(
    dy: Row, dx: Row, tables: AdjacentTables, divisors: Divisors, begin: int, end: int
) -> bool:
    """Compute tiles `begin` to `end` of flat `dx`: the gradients over the one divisor.

    Returns:
        False: the results are always complete.
    """
    outputs, row, height = tables.outputs, tables.row, tables.height
    size, step, is_streamed = tables.size, tables.step, tables.is_streamed
    cells, offsets = tables.cells, tables.offsets
    element, each, width = tables.element, len(tables.cells), row * tables.row_taps
    per_plane = -(-outputs // height)
    most, rest = height * each * row, size - outputs * step
    has_gaps = outputs * each * width * len(offsets) != size
    widened, quotients = scratch_for(element.zero, most), np.empty(most)
    narrowed = np.empty(most, np.float32)
    gradients, spares = np.empty(most, dx.dtype), np.empty(most * tables.row_taps, dx.dtype)
    images = np.empty(height * step + rest if is_streamed else 0, dx.dtype)
    for tile in range(begin, end):
        plane, low = tile // per_plane, tile % per_plane * height
        high = min(outputs, low + height)
        count, out_count = (high - low) * each * row, (high - low) * step
        if high == outputs:
            out_count += rest
        place = pointer_to(dy, (plane * outputs + low) * each * row)
        values = load(place, count, pointer_to(widened, 0), element)
        quotient, gradient = pointer_to(quotients, 0), pointer_to(gradients, 0)
        divide_by(values, quotient, divisors.divisor, count)
        divide_and_round(quotient, gradient, 1.0, count, pointer_to(narrowed, 0), element)
        target = pointer_to(dx, plane * size + low * step)
        image = streaming_buffer(target, pointer_to(images, 0), is_streamed)
        if has_gaps:
            for i in range(out_count):
                put(image, i, convert(0, image))
        spare = pointer_to(spares, 0)
        _repeat(gradient, spare, count, tables.row_taps)
        for number in range((high - low) * each):
            start = ahead(image, number // each * step + cells[number % each])
            for tap in range(len(offsets)):
                copy(ahead(spare, number * width), ahead(start, offsets[tap]), width)
        stream(image, target, out_count, is_streamed)
    finish_streaming()
    return False
