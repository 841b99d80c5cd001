"""Averages along the last axis of common windows: summed, divided and rounded in one loop.

The results are those of `reduce_rows` and `divide_and_round`; one loop keeps the sums in registers.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_axis import reduce_vectors
from pooling_engine.backends.numba_backend.forward.reduce_tile import tile_at
from pooling_engine.backends.numba_backend.language.arguments import (
    AxisRow,
    Divisors,
    WindowTables,
)
from pooling_engine.backends.numba_backend.language.axes import (
    SHORT_ROW,
    axis_at,
    sizes_of,
    tap_range_of,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.operations import Sum
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    ahead,
    convert,
    get,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.rounding import canonical

# Taps and strides along the last axis for which `_slide` has a loop.
AVERAGED_WINDOWS = ((3, 1), (5, 1), (3, 2))


@kernel
def average_pool(
    x: Row, output: Row, windows: WindowTables, divisors: Divisors, begin: int, end: int
) -> bool:
    """Pool tiles `begin` to `end` of flat float32 `x` into flat `output`, along two axes.

    Returns:
        False: the results are always complete.
    """
    axes, tap_ranges = pointer_to(windows.axes, 0), pointer_to(windows.tap_ranges, 0)
    height, factors, row_factors = windows.height, divisors.factors, divisors.rows
    sizes = sizes_of(axes, 2, 1, height)
    first, last = axis_at(axes, 0), axis_at(axes, 1)
    scratch, column = np.empty(sizes.scratch), np.empty(height)
    spare = np.empty(sizes.scratch, np.float32)
    for number in range(begin, end):
        tile = tile_at(number, first, tap_ranges, height)
        sums = pointer_to(scratch, 0)
        origin = pointer_to(x, tile.plane * first.size * sizes.row)
        reduce_vectors(
            origin, sums, sizes.pitch, first, tap_ranges, tile.begin, tile.end, sizes.row, Sum(0.0)
        )
        begin_row = tile.begin
        while begin_row < tile.end:
            end_row, divisor = tile.end, divisors.divisor
            if len(factors):
                divisor = row_factors[begin_row]
                end_row = begin_row + 1
                while end_row < tile.end and row_factors[end_row] == divisor:
                    end_row += 1
            _average_rows(
                ahead(sums, (begin_row - tile.begin) * sizes.pitch),
                sizes.pitch,
                pointer_to(output, (tile.plane * first.outputs + begin_row) * sizes.out_row),
                pointer_to(spare, 0),
                pointer_to(column, 0),
                last,
                ahead(tap_ranges, last.ranges),
                end_row - begin_row,
                divisor,
                pointer_to(factors, len(factors) and len(factors) - last.outputs),
                len(factors) > 0,
            )
            begin_row = end_row
    return False


@routine
def _average_rows(
    source: Pointer,
    pitch: int,
    target: Pointer,
    spare: Pointer,
    column: Pointer,
    axis: AxisRow,
    ranges: Pointer,
    rows: int,
    divisor: float,
    factors: Pointer,
    has_factors: bool,
) -> None:
    """Average rows of float64, `pitch` apart, along the last axis.

    Args:
        source: the rows.
        pitch: distance between them.
        target: the averages.
        spare: room for as many float32 as all rows have.
        column: room for `rows` float64.
        axis: the last axis.
        ranges: its tap ranges.
        rows: number of rows.
        divisor: divisor of all outputs, or their common factor.
        factors: for each output of a row, the other factor of its divisor.
        has_factors: whether they apply.
    """
    outputs, stride = axis.outputs, axis.stride
    inside, inside_end = axis.inside, axis.inside_end
    common = divisor * get(factors, inside) if has_factors else divisor
    first = ahead(source, get(ranges, inside))
    if outputs * stride == axis.size == pitch:
        # All rows as one; the outputs whose taps wrap around are overwritten below.
        length = (rows - 1) * outputs + inside_end - inside
        _slide(first, ahead(target, inside), length, axis, common)
    elif outputs <= SHORT_ROW // 2 and inside_end - inside == outputs and pitch % stride == 0:
        # All rows as one, too, but with outputs between the rows, which are dropped.
        across = pitch // stride
        _slide(first, spare, (rows - 1) * across + outputs, axis, common)
        for row in range(rows):
            for output in range(outputs):
                put(target, row * outputs + output, get(spare, row * across + output))
    else:
        for row in range(rows):
            results = ahead(target, row * outputs + inside)
            _slide(ahead(first, row * pitch), results, inside_end - inside, axis, common)
    for border in range(2):
        begin, end = (inside_end, outputs) if border else (0, inside)
        for output in range(begin, end):
            window = tap_range_of(ranges, outputs, output)
            taps = ahead(source, window.start + window.first)
            own = divisor * get(factors, output) if has_factors else divisor
            results = ahead(target, output)
            _average_column(
                taps, pitch, results, column, window.stop - window.first, axis, rows, own
            )


@part
def _slide(source: Pointer, target: Pointer, length: int, axis: AxisRow, divisor: float) -> None:
    """Average windows whose taps are all on elements."""
    if axis.stride == 2:
        _slide_window(source, target, length, 2, 3, divisor)
    elif axis.taps == 3:
        _slide_window(source, target, length, 1, 3, divisor)
    else:
        _slide_window(source, target, length, 1, 5, divisor)


@part
def _slide_window(
    source: Pointer, target: Pointer, length: int, stride: int, taps: int, divisor: float
) -> None:
    """Average windows of neighbouring taps; `stride` and `taps` are constants."""
    nan, zero = convert(np.nan, target), convert(0.0, target)
    for i in range(length):
        total = get(source, i * stride)
        for tap in range(1, taps):
            total = get(source, i * stride + tap) + total
        put(target, i, canonical(convert(total / divisor, target), nan, zero))


@part
def _average_column(
    source: Pointer,
    pitch: int,
    target: Pointer,
    column: Pointer,
    taps: int,
    axis: AxisRow,
    rows: int,
    divisor: float,
) -> None:
    """Average the windows of one output of all rows."""
    nan, zero = convert(np.nan, target), convert(0.0, target)
    for row in range(rows):
        total = 0.0
        for tap in range(taps):
            total = get(source, row * pitch + tap) + total
        put(column, row, total)
    for row in range(rows):
        put(column, row, get(column, row) / divisor)
    for row in range(rows):
        average = canonical(convert(get(column, row), target), nan, zero)
        put(target, row * axis.outputs, average)
