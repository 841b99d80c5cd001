"""MAX and MIN without indices.

These comparisons do not define what a NaN does to an extreme, nor which of two zeros is taken. So
the kernels look for NaNs in all elements, and for negative zeros in tiles with an output of zero.
If they find one, they stop, and the NumPy backend computes the call.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.forward.reduce_tile import reduce_tile, tile_at
from pooling_engine.backends.numba_backend.forward.special_values import (
    has_nan,
    has_negative_zero,
    has_zero,
)
from pooling_engine.backends.numba_backend.language.arguments import AXIS_COLUMNS, WindowTables
from pooling_engine.backends.numba_backend.language.axes import axis_at, sizes_of
from pooling_engine.backends.numba_backend.language.elements import (
    load,
    scratch_for,
    store,
    target_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, section
from pooling_engine.backends.numba_backend.language.operations import Larger, Operation, Smaller
from pooling_engine.backends.numba_backend.language.pointers import Row, pointer_to


@section
def _pool(
    x: Row, output: Row, windows: WindowTables, begin: int, end: int, operation: Operation
) -> bool:
    axes, tap_ranges = pointer_to(windows.axes, 0), pointer_to(windows.tap_ranges, 0)
    height, element = windows.height, windows.element
    sizes = sizes_of(axes, len(windows.axes) // AXIS_COLUMNS, windows.inner, height)
    first = axis_at(axes, 0)
    scratch = scratch_for(element.zero, 2 * sizes.scratch)
    widened = scratch_for(element.zero, sizes.span * sizes.row)
    results = scratch_for(element.zero, height * sizes.out_row)
    for number in range(begin, end):
        tile = tile_at(number, first, tap_ranges, height)
        count = (tile.input_end - tile.input_begin) * sizes.row
        source = pointer_to(x, (tile.plane * first.size + tile.input_begin) * sizes.row)
        rows = load(source, count, pointer_to(widened, 0), element)
        if has_nan(rows, count):
            return True
        place = pointer_to(output, (tile.plane * first.outputs + tile.begin) * sizes.out_row)
        target = target_for(place, pointer_to(results, 0))
        reduce_tile(rows, target, pointer_to(scratch, 0), tile, sizes, axes, tap_ranges, operation)
        out_count = (tile.end - tile.begin) * sizes.out_row
        if has_zero(target, out_count) and has_negative_zero(rows, count):
            return True
        store(target, place, out_count, element)
    return False


@kernel
def max_pool(x: Row, output: Row, windows: WindowTables, begin: int, end: int) -> bool:
    """Pool tiles `begin` to `end` of flat `x` into flat `output`.

    Returns:
        Whether the result depends on the order of the taps; then `output` is incomplete.
    """
    return _pool(x, output, windows, begin, end, Larger(windows.identity))


@kernel
def min_pool(x: Row, output: Row, windows: WindowTables, begin: int, end: int) -> bool:
    """Pool like `max_pool`, for the smallest elements."""
    return _pool(x, output, windows, begin, end, Smaller(windows.identity))
