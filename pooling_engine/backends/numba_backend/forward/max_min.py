"""MAX and MIN without indices.

Plain comparisons do not define what a NaN does to an extreme, nor which of two zeros is taken. A
tile with a NaN, or with zeros of both signs and an output of zero, is selected by comparisons that
do (`../language/selection.py`); so are wide windows. Plain comparisons are those of integers for
16-bit floats (`../language/ordered.py`), whose NaNs leave no doubt if they are all alike.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.candidates import Extremes
from pooling_engine.backends.numba_backend.forward.nans import has_nan, write_canonical_nans
from pooling_engine.backends.numba_backend.forward.reduce_tile import reduce_tile, tile_at
from pooling_engine.backends.numba_backend.forward.select_axis import LANES
from pooling_engine.backends.numba_backend.forward.select_tile import room_for, select_tile
from pooling_engine.backends.numba_backend.forward.select_wide import Passes, room_of_passes
from pooling_engine.backends.numba_backend.forward.special_values import (
    has_nan_element,
    has_zero,
    infinity_of,
    special_values,
)
from pooling_engine.backends.numba_backend.language.arguments import AXIS_COLUMNS, WindowTables
from pooling_engine.backends.numba_backend.language.axes import axis_at, sizes_of
from pooling_engine.backends.numba_backend.language.elements import scratch_for, target_for
from pooling_engine.backends.numba_backend.language.exact_elements import (
    load_exactly,
    store_exactly,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, section
from pooling_engine.backends.numba_backend.language.operations import Larger as PlainLarger
from pooling_engine.backends.numba_backend.language.operations import Operation as PlainOperation
from pooling_engine.backends.numba_backend.language.operations import Smaller as PlainSmaller
from pooling_engine.backends.numba_backend.language.ordered import (
    Nans,
    load_ordered,
    only_nan,
    ordered_number,
    ordered_scratch,
    store_ordered,
)
from pooling_engine.backends.numba_backend.language.pointers import Row, pointer_to
from pooling_engine.backends.numba_backend.language.selection import (
    Larger,
    LargerNumber,
    Operation,
    Smaller,
    SmallerNumber,
    is_larger,
    selects_numbers,
)


@section
def pool_tiles(
    x: Row,
    output: Row,
    windows: WindowTables,
    begin: int,
    end: int,
    operation: Operation,
    plain: PlainOperation,
) -> tuple[bool, int]:
    """Pool tiles `begin` to `end`.

    Returns:
        Whether a NaN must be rejected; then `output` is incomplete. And the number of tiles that
        were computed twice; kernels drop it, and the compiler what counts them.
    """
    axes, tap_ranges = pointer_to(windows.axes, 0), pointer_to(windows.tap_ranges, 0)
    height, element, rejects_nan = windows.height, windows.element, windows.rejects_nan
    sizes = sizes_of(axes, len(windows.axes) // AXIS_COLUMNS, windows.inner, height)
    first, room = axis_at(axes, 0), room_for(sizes, height)
    wide_room = room_of_passes(axes, sizes)
    scratch = scratch_for(element.zero, 2 * max(room, sizes.scratch) + LANES)
    ordered_memory = ordered_scratch(x, 2 * sizes.scratch, scratch)
    wide = scratch_for(element.zero, 2 * wide_room)
    widened = scratch_for(element.zero, sizes.span * sizes.row)
    results = scratch_for(element.zero, height * sizes.out_row)
    ordered = ordered_scratch(x, sizes.span * sizes.row, widened)
    ordered_results = ordered_scratch(x, height * sizes.out_row, results)
    is_expected = wide_room > 0  # that the tile is in doubt; wide windows have one way only
    has_zeros, repeated = False, 0
    ignores_nans = selects_numbers(operation)
    canonical = np.uint16(0x7FC0) if element.is_bfloat16 else np.uint16(0x7E00)
    last = np.int16(0x7FFF) if is_larger(operation) != ignores_nans else np.int16(-0x8000)
    for number in range(begin, end):
        tile = tile_at(number, first, tap_ranges, height)
        count = (tile.input_end - tile.input_begin) * sizes.row
        source = pointer_to(x, (tile.plane * first.size + tile.input_begin) * sizes.row)
        place = pointer_to(output, (tile.plane * first.outputs + tile.begin) * sizes.out_row)
        out_count = (tile.end - tile.begin) * sizes.out_row
        in_doubt, has_both_zeros, is_repeated = is_expected, False, False
        if has_zeros and not is_expected:  # like the tile before, probably: one pass finds all
            in_doubt, has_both_zeros = special_values(source, count, element)
        elif not is_expected:
            in_doubt = has_nan_element(source, count, element)
        nan = np.uint16(0)
        if in_doubt and not is_expected and not rejects_nan:
            nan = only_nan(source, count, infinity_of(element))
        if not in_doubt or nan != 0:
            nans = Nans(nan, last, canonical if ignores_nans else nan)
            numbers = load_ordered(source, count, pointer_to(ordered, 0), nans)
            extremes = target_for(place, pointer_to(ordered_results, 0))
            memory, is_known = pointer_to(ordered_memory, 0), has_zeros
            reduce_tile(numbers, extremes, memory, tile, sizes, axes, tap_ranges, plain)
            has_zeros = has_zero(extremes, out_count)
            if has_zeros and not is_known:
                has_both_zeros = special_values(source, count, element)[1]
            is_repeated = has_zeros and has_both_zeros
            repeated += is_repeated
            if not is_repeated:
                store_ordered(extremes, place, out_count, nans)
                continue
        rows = Extremes(load_exactly(source, count, pointer_to(widened, 0), element))
        target = target_for(place, pointer_to(results, 0))
        spare = Extremes(pointer_to(scratch, 0))
        passes = Passes(Extremes(pointer_to(wide, 0)), Extremes(pointer_to(wide, wide_room)))
        select_tile(
            rows, Extremes(target), spare, passes, tile, sizes, room, axes, tap_ranges, operation
        )
        if wide_room == 0:  # the next tile is probably like this one
            is_expected = is_repeated or has_nan(target, out_count)
            is_expected = is_expected or special_values(target, out_count, element)[1]
        if rejects_nan and has_nan(target, out_count):
            return True, repeated
        if selects_numbers(operation):
            write_canonical_nans(target, out_count)
        store_exactly(target, place, out_count, element)
    return False, repeated


@kernel
def max_pool(x: Row, output: Row, windows: WindowTables, begin: int, end: int) -> bool:
    """Pool tiles `begin` to `end` of flat `x` into flat `output`.

    Returns:
        Whether a NaN must be rejected; then `output` is incomplete.
    """
    return pool_tiles(
        x,
        output,
        windows,
        begin,
        end,
        Larger(),
        PlainLarger(ordered_number(windows.identity, x, windows.element)),
    )[0]


@kernel
def min_pool(x: Row, output: Row, windows: WindowTables, begin: int, end: int) -> bool:
    """Pool like `max_pool`, for the smallest elements."""
    return pool_tiles(
        x,
        output,
        windows,
        begin,
        end,
        Smaller(),
        PlainSmaller(ordered_number(windows.identity, x, windows.element)),
    )[0]


@kernel
def max_number_pool(x: Row, output: Row, windows: WindowTables, begin: int, end: int) -> bool:
    """Pool like `max_pool`, ignoring NaNs."""
    plain = PlainLarger(ordered_number(windows.identity, x, windows.element))
    return pool_tiles(x, output, windows, begin, end, LargerNumber(), plain)[0]


@kernel
def min_number_pool(x: Row, output: Row, windows: WindowTables, begin: int, end: int) -> bool:
    """Pool like `min_pool`, ignoring NaNs."""
    plain = PlainSmaller(ordered_number(windows.identity, x, windows.element))
    return pool_tiles(x, output, windows, begin, end, SmallerNumber(), plain)[0]
