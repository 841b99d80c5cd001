"""Gradients of MAX and MIN where channels are last and windows overlap.

Every element adds, in window order and in float64, the gradients of the outputs that select it: a
comparison and a sum for each of its windows, vectorised over all channels, where
`max_min_scatter.py` adds one element after the other. A tile is a run of positions along the
first axis of one plane of the *input*.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import GatherTables
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    Row,
    ahead,
    convert,
    get,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.rounding import divide_and_round


@part
def _selected(gradient: Pointer, index: Pointer, tap: int, i: int, total: Pointer) -> Element:
    """Return the gradient of an output in float64, or zero if its index is not that tap."""
    value = pick(get(index, i) == convert(tap, index), get(gradient, i), convert(0, gradient))
    return convert(value, total)


@routine
def _add_selected(
    gradient: Pointer,
    index: Pointer,
    places: Pointer,
    taps: Pointer,
    count: int,
    total: Pointer,
    length: int,
) -> None:
    """Sum vectors of `length` gradients at `count` places, where the index there is the tap."""
    for i in range(length):
        put(total, i, 0.0)
    for number in range(0, count - 1, 2):
        p, q = get(places, number), get(places, number + 1)
        a, b = get(taps, number), get(taps, number + 1)
        for i in range(length):
            partial = get(total, i) + _selected(ahead(gradient, p), ahead(index, p), a, i, total)
            put(total, i, partial + _selected(ahead(gradient, q), ahead(index, q), b, i, total))
    if count % 2:
        p, a = get(places, count - 1), get(taps, count - 1)
        for i in range(length):
            value = _selected(ahead(gradient, p), ahead(index, p), a, i, total)
            put(total, i, get(total, i) + value)


@routine
def _has_invalid_index(index: Pointer, legal: Pointer, limit: int, count: int) -> bool:
    """Return whether any index has a value that is not legal.

    Args:
        legal: for each value, whether it is legal; all below `limit` are, and the largest is.
    """
    limit_index, none, is_beyond = convert(limit, index), convert(-1, index), False
    for i in range(count):
        is_beyond |= (get(index, i) >= limit_index) & (get(index, i) != none)
    is_invalid = False
    if is_beyond:
        for i in range(count):
            is_invalid |= get(legal, get(index, i)) == 0
    return is_invalid


@kernel
def gather_gradients(
    dy: Row, indices: Row, dx: Row, tables: GatherTables, begin: int, end: int
) -> bool:
    """Compute tiles `begin` to `end` of flat `dx`.

    Returns:
        Whether an index is invalid; then `dx` is incomplete.
    """
    t, element = tables, tables.element
    ends, outputs, taps, tile_outputs = t.ends, t.outputs, t.taps, t.tile_outputs
    rest_ends, rest_outputs, rest_taps = t.rest_ends, t.rest_outputs, t.rest_taps
    row_classes, cell_classes, legal, limits = t.row_classes, t.cell_classes, t.legal, t.limits
    length, height, values = t.length, t.height, t.values
    size, per_plane = len(ends) - 1, len(tile_outputs) // 2
    rest, out_rest = len(rest_ends) - 1, len(cell_classes)
    out_row, most = out_rest * length, 0
    for tile in range(per_plane):
        most = max(most, tile_outputs[2 * tile + 1] - tile_outputs[2 * tile])
    places, place_taps = np.empty(values, np.int64), np.empty(values, np.int64)
    widened, totals = scratch_for(element.zero, most * out_row), np.empty(length)
    narrowed, is_invalid = np.empty(length, np.float32), False
    for tile in range(begin, end):
        plane, low = tile // per_plane, tile % per_plane * height
        o_low = tile_outputs[tile % per_plane * 2]
        o_high = tile_outputs[tile % per_plane * 2 + 1]
        at, count = (plane * len(row_classes) + o_low) * out_row, (o_high - o_low) * out_row
        gradient = load(pointer_to(dy, at), count, pointer_to(widened, 0), element)
        index = pointer_to(indices, at)
        for o in range(o_low, o_high):
            for i in range(out_rest):
                kind = row_classes[o] + cell_classes[i]
                own = ahead(index, ((o - o_low) * out_rest + i) * length)
                is_invalid |= _has_invalid_index(
                    own, pointer_to(legal, kind * values), limits[kind], length
                )
        total = pointer_to(totals, 0)
        for position in range(low, min(size, low + height)):
            for cell in range(rest):
                count = 0
                for a in range(ends[position], ends[position + 1]):
                    row = (outputs[a] - o_low) * out_row
                    for b in range(rest_ends[cell], rest_ends[cell + 1]):
                        places[count] = row + rest_outputs[b] * length
                        place_taps[count] = taps[a] + rest_taps[b]
                        count += 1
                _add_selected(
                    gradient, index, pointer_to(places, 0), pointer_to(place_taps, 0), count, total,
                    length,
                )  # fmt: skip
                target = pointer_to(dx, ((plane * size + position) * rest + cell) * length)
                divide_and_round(total, target, 1.0, length, pointer_to(narrowed, 0), element)
    return is_invalid
