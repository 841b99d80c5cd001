"""Gradients of MAX and MIN where channels are last and windows lie over each other.

Every element collects, in window order and in float64, the gradients of those outputs that name
it: a comparison and a sum for each of its windows, which vectors do for all channels at once, where
`scatter` adds one element after the other. A slab is a run of positions along the first axis of
one plane of the *input*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.language.elements import averaged, loaded, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import (
    ahead,
    get,
    lift,
    pointer_to,
    put,
)


@part
def _chosen(gradient: Any, index: Any, tap: int, i: int, total: Any) -> Any:
    """The gradient of an output in float64, or zero if its index is not that tap."""
    value = pick(get(index, i) == lift(tap, index), get(gradient, i), lift(0, gradient))
    return lift(value, total)


@routine
def _add_all(
    gradient: Any, index: Any, places: Any, taps: Any, count: int, total: Any, length: int
) -> None:
    """The sums of vectors of `length` gradients at `count` places, where the index is the tap."""
    for i in range(length):
        put(total, i, 0.0)
    for place in range(0, count - 1, 2):
        p, q = get(places, place), get(places, place + 1)
        a, b = get(taps, place), get(taps, place + 1)
        for i in range(length):
            held = get(total, i) + _chosen(ahead(gradient, p), ahead(index, p), a, i, total)
            put(total, i, held + _chosen(ahead(gradient, q), ahead(index, q), b, i, total))
    if count % 2:
        p, a = get(places, count - 1), get(taps, count - 1)
        for i in range(length):
            held = _chosen(ahead(gradient, p), ahead(index, p), a, i, total)
            put(total, i, get(total, i) + held)


@routine
def _is_forged(index: Any, legal: Any, limit: int, count: int) -> bool:
    """Whether any index has a value that is not legal.

    Args:
        legal: for each value, whether it is; all below `limit` are, and the top one.
    """
    least, none, is_beyond = lift(limit, index), lift(-1, index), False
    for i in range(count):
        is_beyond |= (get(index, i) >= least) & (get(index, i) != none)
    is_forged = False
    if is_beyond:
        for i in range(count):
            is_forged |= get(legal, get(index, i)) == 0
    return is_forged


@kernel
def gather(
    dy: Any, indices: Any, dx: Any, ends: Any, reached: Any, taps: Any, rest_ends: Any,
    rest_reached: Any, rest_taps: Any, reach: Any, rows: Any, classes: Any, legal: Any,
    limits: Any, values: int, length: int, height: int, empty: Any, is_brain: bool, begin: int,
    end: int,
) -> bool:  # fmt: skip
    """Computes slabs `begin` to `end` of flat `dx`; the arguments are those of `Gathering`.

    Returns:
        Whether an index is forged; then the gradient is not whole.
    """
    size, outputs, bands = len(ends) - 1, len(rows), len(reach) // 2
    rest, out_rest = len(rest_ends) - 1, len(classes)
    out_row, most = out_rest * length, 0
    for band in range(bands):
        most = max(most, reach[2 * band + 1] - reach[2 * band])
    places, tags = np.empty(values, np.int64), np.empty(values, np.int64)
    wide, totals = scratch_for(empty, most * out_row), np.empty(length)
    narrowed, is_forged = np.empty(length, np.float32), False
    for slab in range(begin, end):
        plane, low = slab // bands, slab % bands * height
        o_low, o_high = reach[slab % bands * 2], reach[slab % bands * 2 + 1]
        at = (plane * outputs + o_low) * out_row
        gradient = loaded(
            pointer_to(dy, at), (o_high - o_low) * out_row, pointer_to(wide, 0), is_brain
        )
        index = pointer_to(indices, at)
        for o in range(o_low, o_high):
            for i in range(out_rest):
                kind = rows[o] + classes[i]
                is_forged |= _is_forged(
                    ahead(index, ((o - o_low) * out_rest + i) * length),
                    pointer_to(legal, kind * values), limits[kind], length,
                )  # fmt: skip
        total = pointer_to(totals, 0)
        for position in range(low, min(size, low + height)):
            for cell in range(rest):
                count = 0
                for place in range(ends[position], ends[position + 1]):
                    own = (reached[place] - o_low) * out_row
                    for other in range(rest_ends[cell], rest_ends[cell + 1]):
                        places[count] = own + rest_reached[other] * length
                        tags[count] = taps[place] + rest_taps[other]
                        count += 1
                _add_all(
                    gradient, index, pointer_to(places, 0), pointer_to(tags, 0), count, total,
                    length,
                )  # fmt: skip
                at = ((plane * size + position) * rest + cell) * length
                averaged(total, pointer_to(dx, at), 1.0, length, pointer_to(narrowed, 0), is_brain)
    return is_forged
