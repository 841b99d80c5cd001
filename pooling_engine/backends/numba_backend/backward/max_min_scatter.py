"""Gradients of MAX and MIN: each goes to the selected element of its window.

Sums are float64 and in window order, as everywhere; where no windows overlap there are none. Every
index is checked before it is used. A slab here is a run of positions along the first axis of one
plane of the *input*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.language.elements import (
    averaged,
    loaded,
    scratch_for,
    stored,
    target_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, routine
from pooling_engine.backends.numba_backend.language.pointers import get, lift, pointer_to, put
from pooling_engine.backends.numba_backend.tables.index_targets import FORGED


@routine
def _add_row(
    gradient: Any, index: Any, target: Any, first: int, count: int, cells: Any, classes: Any,
    offsets: Any, outputs: int,
) -> bool:  # fmt: skip
    """Adds the gradients of the outputs at one position of the first axis to their elements.

    Args:
        first: where the first row of their windows begins, counted from the target.
        count: the elements of the target; windows may reach others, which are left out.

    Returns:
        Whether an index names no tap on an element of its window.
    """
    is_forged, nan = False, lift(np.nan, target)
    for i in range(outputs):
        offset = get(offsets, get(classes, i) + get(index, i))
        cell = first + get(cells, i) + offset
        if 0 <= cell < count:
            total = get(target, cell) + lift(get(gradient, i), target)
            put(target, cell, total if total == total else nan)
        elif offset == FORGED:
            is_forged = True
    return is_forged


@kernel
def scatter(
    dy: Any, indices: Any, dx: Any, starts: Any, reach: Any, rows: Any, cells: Any, classes: Any,
    offsets: Any, size: int, row: int, height: int, overlaps: bool, empty: Any, is_brain: bool,
    begin: int, end: int,
) -> bool:  # fmt: skip
    """Computes slabs `begin` to `end` of flat `dx`; the arguments are those of `Targets`.

    Returns:
        Whether an index is forged; then the gradient is not whole.
    """
    outputs, out_row, bands = len(starts), len(cells), len(reach) // 2
    totals = np.empty(height * row if overlaps else 0, np.float64)
    narrowed, wide = np.empty(height * row, np.float32), scratch_for(empty, out_row)
    result = scratch_for(empty, height * row)
    is_forged = False
    for slab in range(begin, end):
        plane, low = slab // bands, slab % bands * height
        count = (min(size, low + height) - low) * row
        place = pointer_to(dx, (plane * size + low) * row)
        total, target = pointer_to(totals, 0), target_for(place, pointer_to(result, 0))
        if overlaps:
            for i in range(count):
                put(total, i, 0.0)
        else:
            for i in range(count):
                put(target, i, empty)
        for o in range(reach[slab % bands * 2], reach[slab % bands * 2 + 1]):
            at, first = (plane * outputs + o) * out_row, (starts[o] - low) * row
            gradient = loaded(pointer_to(dy, at), out_row, pointer_to(wide, 0), is_brain)
            index, own = pointer_to(indices, at), pointer_to(offsets, rows[o])
            if overlaps:
                is_forged |= _add_row(
                    gradient, index, total, first, count, pointer_to(cells, 0),
                    pointer_to(classes, 0), own, out_row,
                )  # fmt: skip
            else:
                is_forged |= _add_row(
                    gradient, index, target, first, count, pointer_to(cells, 0),
                    pointer_to(classes, 0), own, out_row,
                )  # fmt: skip
        if overlaps:
            averaged(total, place, 1.0, count, pointer_to(narrowed, 0), is_brain)
        else:
            stored(target, place, count, is_brain)
    return is_forged
