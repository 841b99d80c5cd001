"""AVERAGE and SUM: sums in float64, divided."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_tile import reduce_tile, tile_at
from pooling_engine.backends.numba_backend.language.arguments import (
    AXIS_COLUMNS,
    Divisors,
    WindowTables,
)
from pooling_engine.backends.numba_backend.language.axes import axis_at, sizes_of
from pooling_engine.backends.numba_backend.language.division import divide_by_factors
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel
from pooling_engine.backends.numba_backend.language.operations import Sum
from pooling_engine.backends.numba_backend.language.pointers import Row, pointer_to
from pooling_engine.backends.numba_backend.language.rounding import divide_and_round


@kernel
def sum_pool(
    x: Row, output: Row, windows: WindowTables, divisors: Divisors, begin: int, end: int
) -> bool:
    """Pool tiles `begin` to `end` of flat `x` into flat `output`.

    Returns:
        False: the results are always complete.
    """
    axes, tap_ranges = pointer_to(windows.axes, 0), pointer_to(windows.tap_ranges, 0)
    height, element, factors = windows.height, windows.element, divisors.factors
    sizes = sizes_of(axes, len(windows.axes) // AXIS_COLUMNS, windows.inner, height)
    first = axis_at(axes, 0)
    most = height * sizes.out_row
    scratch, sums, quotients = np.empty(2 * sizes.scratch), np.empty(most), np.empty(most)
    widened = scratch_for(element.zero, sizes.span * sizes.row)
    narrowed = np.empty(most, np.float32)
    for number in range(begin, end):
        tile = tile_at(number, first, tap_ranges, height)
        count = (tile.input_end - tile.input_begin) * sizes.row
        source = pointer_to(x, (tile.plane * first.size + tile.input_begin) * sizes.row)
        rows, total = load(source, count, pointer_to(widened, 0), element), pointer_to(sums, 0)
        reduce_tile(rows, total, pointer_to(scratch, 0), tile, sizes, axes, tap_ranges, Sum(0.0))
        place = pointer_to(output, (tile.plane * first.outputs + tile.begin) * sizes.out_row)
        out_count, spare = (tile.end - tile.begin) * sizes.out_row, pointer_to(narrowed, 0)
        if len(factors):
            quotient, divisor_factors = pointer_to(quotients, 0), pointer_to(factors, 0)
            divide_by_factors(total, quotient, divisor_factors, tile.begin, out_count, axes, sizes)
            divide_and_round(quotient, place, 1.0, out_count, spare, element)
        else:
            divide_and_round(total, place, divisors.divisor, out_count, spare, element)
    return False
