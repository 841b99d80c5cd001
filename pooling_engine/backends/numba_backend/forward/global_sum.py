"""AVERAGE and SUM of global windows: the sum of each plane, in float64.

Elements are dealt out to lanes, in blocks: `add_in_lanes` in the NumPy backend says how, and adds
in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.language.elements import averaged, loaded, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, part
from pooling_engine.backends.numba_backend.language.pointers import ahead, get, pointer_to, put
from pooling_engine.backends.rules import BLOCK, LANES


@part
def _add_block(source: Any, count: int, lanes: Any) -> None:
    """Up to `BLOCK` elements, the i-th to lane ``i % LANES``."""
    for lane in range(LANES):
        put(lanes, lane, 0.0)
    rows = count // LANES
    for row in range(rows):
        taps = ahead(source, row * LANES)
        for lane in range(LANES):
            put(lanes, lane, get(lanes, lane) + get(taps, lane))
    taps = ahead(source, rows * LANES)
    for lane in range(count - rows * LANES):
        put(lanes, lane, get(lanes, lane) + get(taps, lane))


@kernel
def plane_sums(
    x: Any, output: Any, factors: Any, size: int, divisor: float, empty: Any, is_brain: bool,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Sums, over the divisor, of planes `begin` to `end`, of `size` elements each.

    Args:
        factors: none; all sums have one divisor.
    """
    wide, narrowed = scratch_for(empty, BLOCK), np.empty(1, np.float32)
    of_block, of_plane = np.empty(LANES), np.empty(LANES)
    for plane in range(begin, end):
        of_plane[:] = 0
        for first in range(0, size, BLOCK):
            count = min(BLOCK, size - first)
            taps = pointer_to(x, plane * size + first)
            _add_block(
                loaded(taps, count, pointer_to(wide, 0), is_brain), count, pointer_to(of_block, 0)
            )
            for lane in range(LANES):
                of_plane[lane] += of_block[lane]
        half = LANES // 2
        while half:
            for lane in range(half):
                of_plane[lane] += of_plane[lane + half]
            half //= 2
        place = pointer_to(output, plane)
        averaged(pointer_to(of_plane, 0), place, divisor, 1, pointer_to(narrowed, 0), is_brain)
