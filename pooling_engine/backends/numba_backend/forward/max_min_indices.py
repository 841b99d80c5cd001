"""MAX and MIN with indices: beside each extreme goes the number of its tap in the window."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.candidates import NO_TAP, Extremes, Numbered
from pooling_engine.backends.numba_backend.forward.nans import has_nan, write_canonical_nans
from pooling_engine.backends.numba_backend.forward.reduce_tile import Tile, tile_at
from pooling_engine.backends.numba_backend.forward.select_axis import LANES
from pooling_engine.backends.numba_backend.forward.select_channels import (
    has_small_windows,
    select_channels,
)
from pooling_engine.backends.numba_backend.forward.select_tile import room_for, select_tile
from pooling_engine.backends.numba_backend.forward.select_wide import Passes, room_of_passes
from pooling_engine.backends.numba_backend.language.arguments import AXIS_COLUMNS, WindowTables
from pooling_engine.backends.numba_backend.language.axes import (
    TileSizes,
    axis_at,
    is_unchanged,
    sizes_of,
    tap_range_of,
)
from pooling_engine.backends.numba_backend.language.elements import scratch_for, target_for
from pooling_engine.backends.numba_backend.language.exact_elements import (
    load_exactly,
    store_exactly,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine, section
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
from pooling_engine.backends.numba_backend.language.selection import (
    Larger,
    LargerNumber,
    LargerOfNumbers,
    Operation,
    Smaller,
    SmallerNumber,
    SmallerOfNumbers,
    identity_of,
    selects_numbers,
)


@section
def _pool(
    x: Row,
    output: Row,
    indices: Row,
    windows: WindowTables,
    no_index: Element,
    begin: int,
    end: int,
    operation: Operation,
    plain: Operation,
) -> bool:
    axes, tap_ranges = pointer_to(windows.axes, 0), pointer_to(windows.tap_ranges, 0)
    height, element, rejects_nan = windows.height, windows.element, windows.rejects_nan
    sizes = sizes_of(axes, len(windows.axes) // AXIS_COLUMNS, windows.inner, height)
    first, room = axis_at(axes, 0), room_for(sizes, height)
    wide_room = room_of_passes(axes, sizes)
    scratch = scratch_for(element.zero, 2 * room + LANES)
    wide = scratch_for(element.zero, 2 * wide_room)
    scratch_taps = np.empty(2 * room + LANES, np.int32)
    wide_taps = np.empty(2 * wide_room, np.int32)
    widened = scratch_for(element.zero, sizes.span * sizes.row)
    results = scratch_for(element.zero, height * sizes.out_row)
    taps = np.empty(height * sizes.out_row, np.int32)
    is_small = wide_room == 0 and has_small_windows(sizes, axes)
    has_nans = False  # in the outputs of the tile before
    for number in range(begin, end):
        tile = tile_at(number, first, tap_ranges, height)
        count = (tile.input_end - tile.input_begin) * sizes.row
        source = pointer_to(x, (tile.plane * first.size + tile.input_begin) * sizes.row)
        rows = Extremes(load_exactly(source, count, pointer_to(widened, 0), element))
        where = (tile.plane * first.outputs + tile.begin) * sizes.out_row
        place = pointer_to(output, where)
        values = target_for(place, pointer_to(results, 0))
        target = Numbered(values, pointer_to(taps, 0))
        spare = Numbered(pointer_to(scratch, 0), pointer_to(scratch_taps, 0))
        passes = Passes(
            Numbered(pointer_to(wide, 0), pointer_to(wide_taps, 0)),
            Numbered(pointer_to(wide, wide_room), pointer_to(wide_taps, wide_room)),
        )
        out_count = (tile.end - tile.begin) * sizes.out_row
        if is_small:
            if has_nans or has_nan(rows.values, count):
                select_channels(rows.values, target, tile, sizes, axes, tap_ranges, operation)
                has_nans = has_nan(target.values, out_count)
            else:
                select_channels(rows.values, target, tile, sizes, axes, tap_ranges, plain)
        else:
            select_tile(rows, target, spare, passes, tile, sizes, room, axes, tap_ranges, operation)
        if wide_room and not selects_numbers(operation):
            _number_infinities(target, out_count, tile, sizes, axes, tap_ranges, operation)
        if rejects_nan and has_nan(values, out_count):
            return True
        if selects_numbers(operation):
            _drop_taps_of_nans(target, out_count)
            write_canonical_nans(values, out_count)
        store_exactly(values, place, out_count, element)
        _write_indices(target.taps, pointer_to(indices, where), out_count, no_index)
    return False


@routine
def _number_infinities(
    target: Numbered,
    count: int,
    tile: Tile,
    sizes: TileSizes,
    axes: Pointer,
    tap_ranges: Pointer,
    operation: Operation,
) -> None:
    """Set the tap of outputs that equal the padding of wide windows.

    All elements of such a window are that infinity, so the first one is selected.
    """
    identity = identity_of(get(target.values, 0), operation)
    found = False
    for i in range(count):
        found |= get(target.values, i) == identity
    if not found:
        return
    for i in range(count):
        if get(target.values, i) == identity:
            put(target.taps, i, _first_tap(i // sizes.inner, tile, sizes, axes, tap_ranges))


@routine
def _first_tap(
    cell: int, tile: Tile, sizes: TileSizes, axes: Pointer, tap_ranges: Pointer
) -> np.int32:
    """Return the number of the first tap on an element of the window of an output of a tile."""
    tap, weight = 0, 1
    for a in range(sizes.axes - 1, -1, -1):
        axis = axis_at(axes, a)
        output = tile.begin + cell if a == 0 else cell % axis.outputs
        cell //= axis.outputs
        if not is_unchanged(axis):
            window = tap_range_of(ahead(tap_ranges, axis.ranges), axis.outputs, output)
            if window.first >= window.stop:
                return np.int32(NO_TAP)
            tap += window.first * weight
            weight *= axis.taps
    return np.int32(tap)


@part
def _drop_taps_of_nans(target: Numbered, count: int) -> None:
    for i in range(count):
        value = get(target.values, i)
        put(target.taps, i, pick(value == value, get(target.taps, i), np.int32(NO_TAP)))


@part
def _write_indices(taps: Pointer, indices: Pointer, count: int, no_index: Element) -> None:
    """Convert the numbers of `count` taps to indices."""
    for i in range(count):
        tap = get(taps, i)
        put(indices, i, pick(tap >= NO_TAP, no_index, convert(tap, indices)))


@kernel
def max_pool_indices(
    x: Row,
    output: Row,
    indices: Row,
    windows: WindowTables,
    no_index: Element,
    begin: int,
    end: int,
) -> bool:
    """Pool tiles `begin` to `end` of flat `x` into flat `output` and window `indices`.

    Args:
        no_index: index of a window without elements. As a constant, it makes the loop that writes
            the indices slower (Zen 4, AVX-512).

    Returns:
        Whether a NaN must be rejected; then the results are incomplete.
    """
    return _pool(x, output, indices, windows, no_index, begin, end, Larger(), LargerOfNumbers())


@kernel
def min_pool_indices(
    x: Row,
    output: Row,
    indices: Row,
    windows: WindowTables,
    no_index: Element,
    begin: int,
    end: int,
) -> bool:
    """Pool like `max_pool_indices`, for the smallest elements."""
    return _pool(x, output, indices, windows, no_index, begin, end, Smaller(), SmallerOfNumbers())


@kernel
def max_number_pool_indices(
    x: Row,
    output: Row,
    indices: Row,
    windows: WindowTables,
    no_index: Element,
    begin: int,
    end: int,
) -> bool:
    """Pool like `max_pool_indices`, ignoring NaNs."""
    return _pool(
        x, output, indices, windows, no_index, begin, end, LargerNumber(), LargerOfNumbers()
    )


@kernel
def min_number_pool_indices(
    x: Row,
    output: Row,
    indices: Row,
    windows: WindowTables,
    no_index: Element,
    begin: int,
    end: int,
) -> bool:
    """Pool like `min_pool_indices`, ignoring NaNs."""
    return _pool(
        x, output, indices, windows, no_index, begin, end, SmallerNumber(), SmallerOfNumbers()
    )
