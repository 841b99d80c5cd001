"""MAX and MIN with indices: beside each extreme goes the number of its tap in the window.

Of equal elements, the one with the lower tap number is selected, axis by axis; this also decides
between zeros of both signs. NaNs are left to the NumPy backend, as in `max_min.py`.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_tile import Tile, tile_at
from pooling_engine.backends.numba_backend.forward.select_axis import (
    NO_TAP,
    Selected,
    select_from_elements,
    select_one,
    select_run,
    select_vectors,
    selected_ahead,
)
from pooling_engine.backends.numba_backend.forward.special_values import has_nan
from pooling_engine.backends.numba_backend.language.arguments import (
    AXIS_COLUMNS,
    AxisRow,
    WindowTables,
)
from pooling_engine.backends.numba_backend.language.axes import (
    axis_at,
    is_unchanged,
    sizes_of,
    tap_range_of,
)
from pooling_engine.backends.numba_backend.language.elements import (
    load,
    scratch_for,
    store,
    target_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.operations import (
    Larger,
    Operation,
    Smaller,
    pick,
)
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


@routine
def _select_axis(
    source: Selected,
    pitch: int,
    axis: AxisRow,
    ranges: Pointer,
    target: Selected,
    outer: int,
    inner: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select from `outer` blocks of (size, inner), `pitch` apart, into as many of (outputs, inner).

    Args:
        weight: weight of the axis in the number of a tap.
    """
    outputs, begin, end = axis.outputs, axis.inside, axis.inside_end
    if inner > 1:
        end = begin
    elif begin < end:
        is_one_row = outputs * axis.stride == axis.size == pitch
        length = (outer - 1) * outputs + end - begin if is_one_row else end - begin
        for block in range(1 if is_one_row else outer):
            taps = selected_ahead(source, block * pitch + get(ranges, begin))
            results = selected_ahead(target, block * outputs + begin)
            select_run(taps, axis, results, length, weight, operation)
    for block in range(outer):
        for output in range(outputs):
            if begin <= output < end:
                continue
            window = tap_range_of(ranges, outputs, output)
            first, count = window.first, window.stop - window.first
            at = block * pitch + (window.start + first * axis.dilation) * inner
            taps = selected_ahead(source, at)
            results = selected_ahead(target, (block * outputs + output) * inner)
            if inner == 1 and count > 0:
                select_one(taps, axis.dilation, count, results, first, weight, operation)
            else:
                step = axis.dilation * inner
                select_vectors(taps, step, count, results, first, weight, inner, operation)


@part
def _select_first_axis(
    rows: Pointer,
    tile: Tile,
    first: AxisRow,
    ranges: Pointer,
    target: Selected,
    length: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select along the first axis, from the input rows of a tile.

    Args:
        rows: rows of `length` elements, from `tile.input_begin` on.
        weight: weight of the axis in the number of a tap.
    """
    output = tile.begin
    while output < tile.end:
        start, tap, stop, run = output, 0, 1, tile.end - output
        if not is_unchanged(first):
            window = tap_range_of(ranges, first.outputs, output)
            start, tap, stop, run = window.start, window.first, window.stop, 1
            if first.stride == 1 and first.inside <= output < first.inside_end:
                run = min(tile.end, first.inside_end) - output  # neighbours, selected as one
        taps = ahead(rows, (start - tile.input_begin + tap * first.dilation) * length)
        step = first.dilation * length
        selected = selected_ahead(target, (output - tile.begin) * length)
        select_from_elements(taps, step, stop - tap, selected, tap, weight, run * length, operation)
        output += run


@routine
def _select(
    x: Row,
    output: Row,
    indices: Row,
    windows: WindowTables,
    no_index: Element,
    begin: int,
    end: int,
    operation: Operation,
) -> bool:
    axes, tap_ranges = pointer_to(windows.axes, 0), pointer_to(windows.tap_ranges, 0)
    height, element = windows.height, windows.element
    sizes = sizes_of(axes, len(windows.axes) // AXIS_COLUMNS, windows.inner, height)
    first = axis_at(axes, 0)
    widened = scratch_for(element.zero, sizes.span * sizes.row)
    scratch = scratch_for(element.zero, 2 * sizes.scratch)
    scratch_taps = np.empty(2 * sizes.scratch, np.int32)
    results = scratch_for(element.zero, height * sizes.out_row)
    window_taps = 1
    for a in range(sizes.axes):
        window_taps *= axis_at(axes, a).taps
    for number in range(begin, end):
        tile = tile_at(number, first, tap_ranges, height)
        count = (tile.input_end - tile.input_begin) * sizes.row
        out_count = (tile.end - tile.begin) * sizes.out_row
        place = pointer_to(x, (tile.plane * first.size + tile.input_begin) * sizes.row)
        rows = load(place, count, pointer_to(widened, 0), element)
        if has_nan(rows, count):
            return True
        where = (tile.plane * first.outputs + tile.begin) * sizes.out_row
        target = target_for(pointer_to(output, where), pointer_to(results, 0))
        source = Selected(pointer_to(scratch, 0), pointer_to(scratch_taps, 0))
        weight, rest, outer = window_taps // first.taps, sizes.row, tile.end - tile.begin
        _select_first_axis(rows, tile, first, tap_ranges, source, rest, weight, operation)
        for a in range(1, sizes.axes):
            axis, pitch = axis_at(axes, a), rest
            weight //= axis.taps
            rest //= axis.size
            half = (a % 2) * sizes.scratch
            values = target if a == sizes.axes - 1 else pointer_to(scratch, half)
            selected = Selected(values, pointer_to(scratch_taps, half))
            ranges = ahead(tap_ranges, axis.ranges)
            _select_axis(source, pitch, axis, ranges, selected, outer, rest, weight, operation)
            source = selected
            outer *= axis.outputs
        store(target, pointer_to(output, where), out_count, element)
        _write_indices(source.taps, pointer_to(indices, where), out_count, no_index)
    return False


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
        Whether there is a NaN; then the results are incomplete.
    """
    return _select(x, output, indices, windows, no_index, begin, end, Larger(windows.identity))


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
    return _select(x, output, indices, windows, no_index, begin, end, Smaller(windows.identity))
