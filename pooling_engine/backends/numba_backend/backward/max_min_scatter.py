"""Gradients of MAX and MIN: each goes to the selected element of its window.

If windows overlap, gradients are added in float64 and in window order. Every index is checked
before it is used. A tile is a run of positions along the first axis of one plane of the *input*.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import INVALID_OFFSET, ScatterTables
from pooling_engine.backends.numba_backend.language.elements import (
    load,
    scratch_for,
    store,
    target_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, routine
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    convert,
    get,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.rounding import divide_and_round


@routine
def _add_row(
    gradient: Pointer,
    index: Pointer,
    target: Pointer,
    first: int,
    count: int,
    cells: Pointer,
    classes: Pointer,
    offsets: Pointer,
    outputs: int,
) -> bool:
    """Add the gradients of the outputs at one position of the first axis to their elements.

    Args:
        first: offset of the first row of their windows from the target.
        count: elements of the target; elements of windows outside of it are skipped.
        offsets: `ScatterTables.offsets`, from the class of the position on.
        outputs: number of outputs.

    Returns:
        Whether an index is invalid: it selects no tap on an element of its window.
    """
    is_invalid, nan = False, convert(np.nan, target)
    for i in range(outputs):
        offset = get(offsets, get(classes, i) + get(index, i))
        cell = first + get(cells, i) + offset
        if 0 <= cell < count:
            total = get(target, cell) + convert(get(gradient, i), target)
            put(target, cell, total if total == total else nan)
        elif offset == INVALID_OFFSET:
            is_invalid = True
    return is_invalid


@kernel
def scatter_gradients(
    dy: Row, indices: Row, dx: Row, tables: ScatterTables, begin: int, end: int
) -> bool:
    """Compute tiles `begin` to `end` of flat `dx`.

    Returns:
        Whether an index is invalid; then `dx` is incomplete.
    """
    starts, tile_outputs, row_classes = tables.starts, tables.tile_outputs, tables.row_classes
    cells, cell_classes, offsets = tables.cells, tables.cell_classes, tables.offsets
    size, row, height, element = tables.size, tables.row, tables.height, tables.element
    overlaps = tables.overlaps
    outputs, out_row, per_plane = len(starts), len(cells), len(tile_outputs) // 2
    totals = np.empty(height * row if overlaps else 0, np.float64)
    narrowed, widened = np.empty(height * row, np.float32), scratch_for(element.zero, out_row)
    results = scratch_for(element.zero, height * row)
    is_invalid = False
    for tile in range(begin, end):
        plane, low = tile // per_plane, tile % per_plane * height
        count = (min(size, low + height) - low) * row
        place = pointer_to(dx, (plane * size + low) * row)
        total, target = pointer_to(totals, 0), target_for(place, pointer_to(results, 0))
        if overlaps:
            for i in range(count):
                put(total, i, 0.0)
        else:
            for i in range(count):
                put(target, i, element.zero)
        for o in range(tile_outputs[tile % per_plane * 2], tile_outputs[tile % per_plane * 2 + 1]):
            at, first = (plane * outputs + o) * out_row, (starts[o] - low) * row
            gradient = load(pointer_to(dy, at), out_row, pointer_to(widened, 0), element)
            index, own = pointer_to(indices, at), pointer_to(offsets, row_classes[o])
            own_cells, classes = pointer_to(cells, 0), pointer_to(cell_classes, 0)
            if overlaps:
                is_invalid |= _add_row(
                    gradient, index, total, first, count, own_cells, classes, own, out_row
                )
            else:
                is_invalid |= _add_row(
                    gradient, index, target, first, count, own_cells, classes, own, out_row
                )
        if overlaps:
            divide_and_round(total, place, 1.0, count, pointer_to(narrowed, 0), element)
        else:
            store(target, place, count, element)
    return is_invalid
