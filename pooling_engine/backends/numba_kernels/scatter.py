"""Gradients of MAX and MIN: each goes to the selected element of its window.

Sums are float64 and in window order, as everywhere; where no windows overlap there are none. A slab
here is a run of positions along the first axis of one plane of the *input*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_kernels.elements import loaded, rounded, scratch_for
from pooling_engine.backends.numba_kernels.jit import kernel
from pooling_engine.backends.numba_kernels.pointers import get, pointer_to, put


@kernel
def scatter(
    dy: Any, indices: Any, dx: Any, starts: Any, reach: Any, cells: Any, offsets: Any, size: int,
    row: int, height: int, none: int, empty: Any, is_brain: bool, begin: int, end: int,
) -> None:  # fmt: skip
    """Computes slabs `begin` to `end` of flat `dx`.

    Args:
        starts: the position of the first tap of each output along the first axis.
        reach: of each slab of a plane, the first output that reaches it and the one after the
            last; one after the other.
        cells: within what one output of the first axis gives, where the window of each begins,
            counted in elements from the first row of the window.
        offsets: how far each tap of a window is from its first, in elements.
        size: the positions along the first axis of the input.
        row: the elements of the input at each.
        height: the positions of a slab, or less at a plane's end.
        none: the index of a window without a tap on an element.
    """
    outputs, out_row, bands = len(starts), len(cells), len(reach) // 2
    totals, narrowed = np.empty(height * row, np.float64), np.empty(height * row, np.float32)
    wide = scratch_for(empty, out_row)
    total = pointer_to(totals, 0)
    for slab in range(begin, end):
        plane, low = slab // bands, slab % bands * height
        count = (min(size, low + height) - low) * row
        for i in range(count):
            put(total, i, 0.0)
        for o in range(reach[slab % bands * 2], reach[slab % bands * 2 + 1]):
            at, first = (plane * outputs + o) * out_row, (starts[o] - low) * row
            gradient = loaded(pointer_to(dy, at), out_row, pointer_to(wide, 0), is_brain)
            index, origin = pointer_to(indices, at), pointer_to(cells, 0)
            for i in range(out_row):
                tap = get(index, i)
                if tap != none:
                    cell = first + get(origin, i) + offsets[tap]
                    if 0 <= cell < count:
                        put(total, cell, get(total, cell) + get(gradient, i))
        place = pointer_to(dx, (plane * size + low) * row)
        rounded(total, place, count, pointer_to(narrowed, 0), is_brain)
