"""Gradients of MAX and MIN: each goes to the selected element of its window.

The outputs at one position of the first axis take two steps. `selected_cells.py` finds their
elements, in vectors. Then their gradients are added one after the other: in float64 and in window
order, if windows overlap. A tile is a run of positions along the first axis of one plane of the
*input*; small planes are positions of a first axis themselves.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.backward.selected_cells import (
    NOWHERE,
    SPLIT_COLUMNS,
    FirstTaps,
    find_cells,
)
from pooling_engine.backends.numba_backend.language.arguments import ScatterTables
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
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
    finish_streaming,
    stream,
    streaming_buffer,
)


@part
def _add_one(gradient: Pointer, cells: Pointer, target: Pointer, i: int) -> None:
    cell = np.int64(get(cells, i))
    put(target, cell, get(target, cell) + convert(get(gradient, i), target))


@routine
def _add(
    gradient: Pointer, cells: Pointer, target: Pointer, count: int, is_partial: bool, lanes: int
) -> None:
    """Add gradients to their cells; if `is_partial`, some are NOWHERE.

    Neighbours often select the same element, so that each sum has to wait for the previous one.
    The sums of the lanes do not depend on one another.
    """
    if is_partial:
        for i in range(count):
            if get(cells, i) != NOWHERE:
                _add_one(gradient, cells, target, i)
    elif lanes == 4:
        lane = count // 4
        for i in range(lane):
            _add_one(gradient, cells, target, i)
            _add_one(gradient, cells, target, i + lane)
            _add_one(gradient, cells, target, i + 2 * lane)
            _add_one(gradient, cells, target, i + 3 * lane)
    elif lanes == 2:
        lane = count // 2
        for i in range(lane):
            _add_one(gradient, cells, target, i)
            _add_one(gradient, cells, target, i + lane)
    else:
        for i in range(count):
            _add_one(gradient, cells, target, i)


@routine
def _write(
    gradient: Pointer, cells: Pointer, target: Pointer, count: int, is_partial: bool
) -> None:
    """Write gradients to their cells; if `is_partial`, some are NOWHERE."""
    if is_partial:
        for i in range(count):
            cell = np.int64(get(cells, i))
            if cell != NOWHERE:
                put(target, cell, get(gradient, i))
    else:
        for i in range(count):
            put(target, np.int64(get(cells, i)), get(gradient, i))


@part
def _clear(target: Pointer, count: int) -> None:
    for i in range(count):
        put(target, i, convert(0, target))


@kernel
def scatter_gradients(
    dy: Row, indices: Row, dx: Row, tables: ScatterTables, begin: int, end: int
) -> bool:
    """Compute tiles `begin` to `end` of flat `dx`.

    Returns:
        Whether an index is invalid; then `dx` is incomplete.
    """
    starts, firsts, stops = tables.starts, tables.firsts, tables.stops
    tile_outputs, splits = tables.tile_outputs, tables.splits
    first_cells, limits, window, step = tables.cells, tables.limits, tables.window, tables.step
    size, row, height, element = tables.size, tables.row, tables.height, tables.element
    overlaps, lanes, is_streamed = tables.overlaps, tables.lanes, tables.is_streamed
    outputs, out_row, per_plane = len(starts), len(first_cells), len(tile_outputs) // 2
    axes, most = len(splits) // SPLIT_COLUMNS, height * row
    numbers, selected = np.empty(out_row, np.int32), np.empty(out_row, np.int32)
    totals = np.empty(most if overlaps else 0, np.float64)
    narrowed, widened = np.empty(most, np.float32), scratch_for(element.zero, out_row)
    values = np.empty(0 if overlaps else out_row, dx.dtype)
    images = np.empty(most if is_streamed else 0, dx.dtype)
    is_invalid = False
    for tile in range(begin, end):
        plane, low = tile // per_plane, tile % per_plane * height
        count = (min(size, low + height) - low) * row
        place, total = pointer_to(dx, (plane * size + low) * row), pointer_to(totals, 0)
        image = streaming_buffer(place, pointer_to(images, 0), is_streamed)
        if overlaps:
            _clear(total, count)
        else:
            _clear(image, count)
        for o in range(tile_outputs[tile % per_plane * 2], tile_outputs[tile % per_plane * 2 + 1]):
            at = (plane * outputs + o) * out_row
            cells, index = pointer_to(selected, 0), pointer_to(indices, at)
            first = FirstTaps((starts[o] - low) * row, step, firsts[o], stops[o])
            is_wrong, is_partial = find_cells(
                index, pointer_to(first_cells, 0), pointer_to(limits, 0), pointer_to(splits, 0),
                axes, pointer_to(numbers, 0), cells, out_row, window, first, count,
            )  # fmt: skip
            is_invalid |= is_wrong
            if overlaps:
                gradient = load(pointer_to(dy, at), out_row, pointer_to(widened, 0), element)
                _add(gradient, cells, total, out_row, is_partial, lanes)
            else:
                value = pointer_to(values, 0)
                copy_canonical(pointer_to(dy, at), value, out_row, element)
                _write(value, cells, image, out_row, is_partial)
        if overlaps:
            divide_and_round(total, image, 1.0, count, pointer_to(narrowed, 0), element)
        stream(image, place, count, is_streamed)
    finish_streaming()
    return is_invalid
