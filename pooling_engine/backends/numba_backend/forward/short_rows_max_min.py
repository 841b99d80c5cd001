"""MAX and MIN of small planes with short rows: a vector holds a row, or a row of two planes.

Every row is selected along the last axis first, in full vectors, and then rows are selected along
the first axis. So the first of equal elements is selected (`../language/selection.py`).
"""

from __future__ import annotations

from typing import Any

from pooling_engine.backends.numba_backend.forward.nans import has_nan
from pooling_engine.backends.numba_backend.forward.short_rows import copy_elements, is_near_edge
from pooling_engine.backends.numba_backend.language.arguments import (
    ROW_TAPS,
    RowSizes,
    RowTables,
)
from pooling_engine.backends.numba_backend.language.elements import scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part, section
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    ahead,
    get,
    pointer_to,
)
from pooling_engine.backends.numba_backend.language.selection import (
    Larger,
    Operation,
    Smaller,
    identity_of,
    is_better,
)
from pooling_engine.backends.numba_backend.language.vectors import (
    both,
    every_other,
    filled,
    joined,
    load_8,
    load_16,
    lower_half,
    mask_at,
    pick_lanes,
    store_vector,
    upper_half,
)

LANES = 16


@section
def _pool(
    x: Row, output: Row, planes: RowTables, begin: int, end: int, operation: Operation
) -> bool:
    sizes, is_paired, rejects_nan = planes.sizes, planes.is_paired, planes.rejects_nan
    size, out_size, margin = sizes.size, sizes.out_size, sizes.margin
    masks, limits = pointer_to(planes.masks, 0), pointer_to(planes.limits, 0)
    room, out_room = size + 2 * margin, out_size + LANES
    inputs, outputs = scratch_for(x[0], 2 * room), scratch_for(x[0], 2 * out_room)
    selected = scratch_for(x[0], sizes.height * sizes.vectors * LANES)
    count = end - begin
    half = count // 2 if is_paired else count
    for number in range(count - half if is_paired else count):
        first = begin + number
        # The second half of the planes has their rows in the upper lanes. The last of an odd
        # number is in both.
        second = first + half if is_paired else first
        if number == half:
            first = second
        source, apart = pointer_to(x, first * size), (second - first) * size
        if is_near_edge(first, size, margin, len(x)) or is_near_edge(second, size, margin, len(x)):
            apart = room
            copy_elements(source, pointer_to(inputs, margin), size)
            copy_elements(pointer_to(x, second * size), pointer_to(inputs, room + margin), size)
            source = pointer_to(inputs, margin)
        # Vectors are longer than rows: what follows is written again, except at the end.
        is_end = (half - 1 - number) * out_size < LANES
        target, out_apart = pointer_to(output, first * out_size), (second - first) * out_size
        if is_end:
            target, out_apart = pointer_to(outputs, 0), out_room
        memory = pointer_to(selected, 0)
        if is_paired:
            _select_rows(source, apart, memory, sizes, masks, True, operation)
        else:
            _select_rows(source, apart, memory, sizes, masks, False, operation)
        _select_columns(memory, target, out_apart, sizes, limits, is_paired, operation)
        if is_end:
            copy_elements(target, pointer_to(output, first * out_size), out_size)
            others = pointer_to(outputs, out_room if is_paired else 0)
            copy_elements(others, pointer_to(output, second * out_size), out_size)
        if rejects_nan:
            found = has_nan(pointer_to(output, first * out_size), out_size)
            if found or has_nan(pointer_to(output, second * out_size), out_size):
                return True
    return False


@kernel
def short_rows_max_pool(x: Row, output: Row, planes: RowTables, begin: int, end: int) -> bool:
    """Pool planes `begin` to `end` of flat `x` into flat `output`.

    Returns:
        Whether a NaN must be rejected; then `output` is incomplete.
    """
    return _pool(x, output, planes, begin, end, Larger())


@kernel
def short_rows_min_pool(x: Row, output: Row, planes: RowTables, begin: int, end: int) -> bool:
    """Pool like `short_rows_max_pool`, for the smallest elements."""
    return _pool(x, output, planes, begin, end, Smaller())


@part
def _select_rows(
    source: Pointer,
    apart: int,
    target: Pointer,
    sizes: RowSizes,
    masks: Pointer,
    is_paired: bool,
    operation: Operation,
) -> None:
    """Select at every position of a row, as if the stride were 1; `is_paired` is a constant."""
    step, pitch = sizes.row_step, sizes.vectors * LANES
    identity = identity_of(get(source, 0), operation)
    for vector in range(sizes.vectors):
        used = ahead(masks, vector * ROW_TAPS)
        start = ahead(source, vector * LANES - sizes.before)
        for row in range(sizes.height):
            elements = ahead(start, row * sizes.width)
            value = _load(elements, 0, apart, is_paired)
            best = pick_lanes(mask_at(used, 0), value, filled(identity, value))
            best = _better(elements, 1, step, apart, used, best, is_paired, operation)
            best = _better(elements, 2, step, apart, used, best, is_paired, operation)
            store_vector(target, row * pitch + vector * LANES, best)


@part
def _better(
    elements: Pointer,
    tap: int,
    step: int,
    apart: int,
    used: Pointer,
    best: Any,
    is_paired: bool,
    operation: Operation,
) -> Any:
    """Return the better lanes of a tap that is on elements in some lanes, and of `best`."""
    value = _load(elements, tap * step, apart, is_paired)
    is_new = both(is_better(value, best, operation), mask_at(used, tap))
    return pick_lanes(is_new, value, best)


@part
def _load(elements: Pointer, index: int, apart: int, is_paired: bool) -> Any:
    """Return a vector of a row, or of a row of two planes; `is_paired` is a constant."""
    if is_paired:
        return joined(load_8(elements, index), load_8(elements, index + apart))
    return load_16(elements, index)


@part
def _select_columns(
    source: Pointer,
    target: Pointer,
    apart: int,
    sizes: RowSizes,
    limits: Pointer,
    is_paired: bool,
    operation: Operation,
) -> None:
    """Select the outputs from rows of vectors."""
    outputs, vectors = sizes.outputs, sizes.vectors
    lanes = LANES // sizes.stride
    for output in range(outputs):
        first, count = get(limits, output), get(limits, outputs + output)
        for vector in range(vectors):
            rows = ahead(source, (first * vectors + vector) * LANES)
            step = sizes.column_step * vectors * LANES
            if count == 3:
                best = _select_column(rows, step, 3, operation)
            else:
                best = _select_column(rows, step, count, operation)
            place = ahead(target, output * sizes.out_row + vector * lanes)
            if sizes.stride == 1:
                _store(place, best, apart, is_paired)
            else:
                _store(place, every_other(best), apart, is_paired)


@part
def _select_column(rows: Pointer, step: int, count: int, operation: Operation) -> Any:
    """Return the vector that is selected from `count` vectors, `step` apart."""
    best = load_16(rows, 0)
    for tap in range(1, count):
        value = load_16(rows, tap * step)
        best = pick_lanes(is_better(value, best, operation), value, best)
    return best


@part
def _store(place: Pointer, outputs: Any, apart: int, is_paired: bool) -> None:
    if is_paired:
        store_vector(place, 0, lower_half(outputs))
        store_vector(place, apart, upper_half(outputs))
    else:
        store_vector(place, 0, outputs)
