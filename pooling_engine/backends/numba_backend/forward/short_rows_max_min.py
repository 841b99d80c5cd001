"""MAX and MIN of small planes: vectors of neighbouring elements, whatever rows they are in.

A group of planes is pooled as one row of elements. Windows are selected along the last axis first,
at every position; then rows are selected along the first axis, in vectors that hold outputs; and
the lanes with outputs are stored. So the first of equal elements is selected
(`../language/selection.py`). Masks exclude taps that are in the padding.

Comparisons that leave NaNs open are faster. If a group has a NaN, comparisons that follow all
rules compute it, and the next group too.
"""

from __future__ import annotations

from typing import Any

from pooling_engine.backends.numba_backend.forward.nans import has_nan
from pooling_engine.backends.numba_backend.forward.short_rows import copy_elements, is_near_edge
from pooling_engine.backends.numba_backend.language.arguments import (
    ROW_TAPS,
    FlatSizes,
    FlatTables,
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
    LargerOfNumbers,
    Operation,
    Smaller,
    SmallerOfNumbers,
    identity_of,
    is_better,
)
from pooling_engine.backends.numba_backend.language.vectors import (
    both,
    either_has_nan,
    filled,
    is_any,
    load_16,
    mask_at,
    no_lanes,
    pick_lanes,
    store_chosen,
    store_vector,
)

LANES = 16


@section
def _pool(
    x: Row,
    output: Row,
    groups: FlatTables,
    begin: int,
    end: int,
    exact: Operation,
    plain: Operation,
) -> bool:
    sizes, rejects_nan = groups.sizes, groups.rejects_nan
    size, out_size, margin, above = sizes.size, sizes.out_size, sizes.margin, sizes.above
    row_masks, column_masks = pointer_to(groups.row_masks, 0), pointer_to(groups.column_masks, 0)
    places = pointer_to(groups.places, 0)
    inputs = scratch_for(x[0], size + 2 * margin)
    outputs = scratch_for(x[0], out_size + LANES)
    selected = scratch_for(x[0], above + size + 2 * margin)
    stop = min(end * out_size, len(output))
    is_exact = False
    for group in range(begin, end):
        source, first = pointer_to(x, group * size), group * out_size
        if is_near_edge(group, size, margin, len(x)):
            copy_elements(source, pointer_to(inputs, margin), min(size, len(x) - group * size))
            source = pointer_to(inputs, margin)
        # Vectors store beyond a group: what follows is written again, except at the end.
        is_end = first + out_size + LANES > stop
        target = pointer_to(outputs, 0) if is_end else pointer_to(output, first)
        memory = pointer_to(selected, above)
        if not is_exact:
            is_exact = _select_rows(source, memory, sizes, row_masks, plain)
            if not is_exact:
                _select_columns(memory, target, sizes, places, column_masks, plain)
            else:
                _select_rows(source, memory, sizes, row_masks, exact)
                _select_columns(memory, target, sizes, places, column_masks, exact)
        else:
            is_exact = _select_rows(source, memory, sizes, row_masks, exact)
            _select_columns(memory, target, sizes, places, column_masks, exact)
        count = min(out_size, stop - first)
        if is_end:
            copy_elements(target, pointer_to(output, first), count)
        if rejects_nan and has_nan(target, count):
            return True
    return False


@kernel
def short_rows_max_pool(x: Row, output: Row, groups: FlatTables, begin: int, end: int) -> bool:
    """Pool groups `begin` to `end` of planes of flat `x` into flat `output`.

    Returns:
        Whether a NaN must be rejected; then `output` is incomplete.
    """
    return _pool(x, output, groups, begin, end, Larger(), LargerOfNumbers())


@kernel
def short_rows_min_pool(x: Row, output: Row, groups: FlatTables, begin: int, end: int) -> bool:
    """Pool like `short_rows_max_pool`, for the smallest elements."""
    return _pool(x, output, groups, begin, end, Smaller(), SmallerOfNumbers())


@part
def _select_rows(
    source: Pointer, target: Pointer, sizes: FlatSizes, masks: Pointer, operation: Operation
) -> bool:
    """Select along rows at every position; return whether there is a NaN."""
    step, start = sizes.row_step, ahead(source, -sizes.before)
    identity = identity_of(get(source, 0), operation)
    nans = no_lanes(load_16(source, 0))
    for vector in range(sizes.vectors):
        elements, used = ahead(start, vector * LANES), ahead(masks, vector * ROW_TAPS)
        first, last = load_16(elements, 0), load_16(elements, 2 * step)
        best = pick_lanes(mask_at(used, 0), first, filled(identity, first))
        best = _better(load_16(elements, step), best, mask_at(used, 1), operation)
        best = _better(last, best, mask_at(used, 2), operation)
        nans = either_has_nan(nans, first, last)
        store_vector(target, vector * LANES, best)
    return is_any(nans)


@part
def _select_columns(
    source: Pointer,
    target: Pointer,
    sizes: FlatSizes,
    places: Pointer,
    masks: Pointer,
    operation: Operation,
) -> None:
    """Select the outputs from those of rows, and store them side by side."""
    if sizes.taps == 3:
        _select_taps(source, target, sizes, places, masks, 3, operation)
    else:
        _select_taps(source, target, sizes, places, masks, sizes.taps, operation)


@part
def _select_taps(
    source: Pointer,
    target: Pointer,
    sizes: FlatSizes,
    places: Pointer,
    masks: Pointer,
    taps: int,
    operation: Operation,
) -> None:
    step = sizes.column_step
    identity = identity_of(get(source, 0), operation)
    for vector in range(sizes.out_vectors):
        elements = ahead(source, get(places, 2 * vector))
        used = ahead(masks, vector * (taps + 1))
        value = load_16(elements, 0)
        best = pick_lanes(mask_at(used, 0), value, filled(identity, value))
        for tap in range(1, taps):
            best = _better(load_16(elements, tap * step), best, mask_at(used, tap), operation)
        store_chosen(target, get(places, 2 * vector + 1), mask_at(used, taps), best)


@part
def _better(value: Any, best: Any, used: Any, operation: Operation) -> Any:
    """Return the better lanes of a tap that is on elements in some lanes, and of `best`."""
    return pick_lanes(both(is_better(value, best, operation), used), value, best)
