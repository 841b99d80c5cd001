"""AVERAGE and SUM of large windows with a stride of 1 along two axes, of float32.

As in `scan_sum.py`, windows are summed in float64, along the first axis first, and rounded once.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.large_sum_columns import (
    LANES,
    STEP,
    add_columns,
    scan_columns,
    widen_rows,
)
from pooling_engine.backends.numba_backend.forward.large_sum_rows import (
    add_rows,
    average_rows,
    copy_rows,
    divide,
)
from pooling_engine.backends.numba_backend.language.arguments import LargeDivisors, LargeSums
from pooling_engine.backends.numba_backend.language.jit import kernel, section
from pooling_engine.backends.numba_backend.language.pointers import Row, ahead, aligned, pointer_to
from pooling_engine.backends.numba_backend.language.transposes import transpose


@kernel
def large_sum_pool(
    x: Row, output: Row, windows: LargeSums, divisors: LargeDivisors, begin: int, end: int
) -> bool:
    """Pool tiles `begin` to `end` of flat `x` into flat `output`.

    Returns:
        False: the results are always complete.
    """
    sizes, divisor, inverse = windows.sizes, divisors.divisor, divisors.inverse
    height, width, outputs, out_row = sizes.height, sizes.width, sizes.outputs, sizes.out_row
    scans = windows.scans
    row_factors, column_factors = divisors.rows, divisors.columns
    # Vectors of a scan are aligned, and rows are followed by room for a whole vector.
    pitch = _row_of(width) if scans else sizes.pitch
    turned_pitch = _row_of(sizes.tile)
    span = min(height, sizes.tile + sizes.taps - 1)
    widened = np.zeros((span * pitch if scans else 0) + LANES)
    sums = np.zeros(_rounded(sizes.tile) * pitch + sizes.before + sizes.row_taps + 2 * LANES)
    turned = np.zeros((_rounded(width) * turned_pitch if scans else 0) + LANES)
    totals = np.zeros(max(sizes.tile * pitch, out_row * turned_pitch) + 2 * LANES)
    quotients = np.empty(
        (out_row * turned_pitch if scans else sizes.tile * pitch) + 2 * LANES, np.float32
    )
    suffixes = np.empty(STEP * max(sizes.taps, sizes.row_taps) + LANES)
    per_plane = -(-outputs // sizes.tile)
    for number in range(begin, end):
        plane, first = number // per_plane, number % per_plane * sizes.tile
        count, start = min(sizes.tile, outputs - first), first - sizes.above
        low, high = max(0, start), min(height, start + count - 1 + sizes.taps)
        source = pointer_to(x, (plane * height + low) * width)
        target = pointer_to(output, (plane * outputs + first) * out_row)
        columns, total = aligned(pointer_to(sums, 0)), aligned(pointer_to(totals, 0))
        by_row, by_column = pointer_to(row_factors, first), pointer_to(column_factors, 0)
        if scans:
            memory, rows = aligned(pointer_to(suffixes, 0)), aligned(pointer_to(widened, 0))
            lines, results = aligned(pointer_to(turned, 0)), aligned(pointer_to(quotients, 0))
            widen_rows(source, high - low, width, rows, pitch)
            scan_columns(rows, pitch, high - low, start - low, columns, count, sizes.taps, memory)
            transpose(columns, pitch, lines, turned_pitch, _rounded(count), _rounded(width))
            scan_columns(
                lines, turned_pitch, width, -sizes.before, total, out_row, sizes.row_taps, memory
            )
            divide(
                total, turned_pitch, results, turned_pitch, out_row, count, by_column, by_row,
                divisor, inverse,
            )  # fmt: skip
            transpose(results, turned_pitch, target, out_row, out_row, count)
        else:
            padded = ahead(columns, sizes.before)
            add_columns(source, width, high - low, start - low, padded, pitch, count, sizes.taps)
            results, length, row_taps = pointer_to(quotients, 0), count * pitch, sizes.row_taps
            in_doubt = inverse == 0
            if not in_doubt:
                in_doubt = average_rows(columns, length, results, row_taps, divisor, inverse)
            if in_doubt:
                add_rows(columns, length, total, row_taps)
                divide(
                    total, pitch, target, out_row, count, out_row, by_row, by_column, divisor,
                    inverse,
                )  # fmt: skip
            else:
                copy_rows(results, pitch, target, out_row, count, out_row)
    return False


@section
def _rounded(count: int) -> int:
    return -(-count // LANES) * LANES


@section
def _row_of(length: int) -> int:
    """Return the distance between rows of a scan."""
    return max(STEP, _rounded(length))
