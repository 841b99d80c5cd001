"""MAX and MIN of large windows with a stride of 1, along two axes, the last axis first.

The earlier taps are always the second operand of a comparison. So the first of equal elements is
selected, and plain comparisons leave only NaNs open: tiles with one are compared by the rules.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.forward.large_columns import (
    FEW_TAPS,
    select_columns,
    select_few,
)
from pooling_engine.backends.numba_backend.forward.large_rows import LANES, select_rows
from pooling_engine.backends.numba_backend.forward.nans import has_nan
from pooling_engine.backends.numba_backend.language.arguments import LargeSizes, LargeTables
from pooling_engine.backends.numba_backend.language.elements import scratch_for, target_for
from pooling_engine.backends.numba_backend.language.exact_elements import (
    load_exactly,
    store_exactly,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, part, section
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    Row,
    ahead,
    aligned,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.selection import (
    Larger,
    LargerOfNumbers,
    Operation,
    Smaller,
    SmallerOfNumbers,
)


@section
def _pool(
    x: Row,
    output: Row,
    windows: LargeTables,
    begin: int,
    end: int,
    operation: Operation,
    of_numbers: Operation,
) -> bool:
    sizes, group, room = windows.sizes, windows.group, windows.room
    element, rejects_nan = windows.element, windows.rejects_nan
    height, width, outputs, out_row = sizes.height, sizes.width, sizes.outputs, sizes.out_row
    identity = windows.identity
    padded, blocks = scratch_for(identity, room + LANES), scratch_for(identity, 2 * room + LANES)
    padded[:] = identity
    span = sizes.tile + sizes.taps - 1  # rows of the windows of a tile, with padding
    selected = scratch_for(identity, span * sizes.pitch + 2 * LANES)
    suffixes = scratch_for(identity, 2 * LANES * sizes.taps + LANES)
    widened = scratch_for(identity, min(height, span) * width)
    results = scratch_for(identity, sizes.tile * out_row)
    per_plane = -(-outputs // sizes.tile)
    for number in range(begin, end):
        plane, first = number // per_plane, number % per_plane * sizes.tile
        last = min(outputs, first + sizes.tile)
        start = first - sizes.above  # of the first window
        low, high = max(0, start), min(height, last - 1 - sizes.above + sizes.taps)
        count, out_count = (high - low) * width, (last - first) * out_row
        source = pointer_to(x, (plane * height + low) * width)
        rows = load_exactly(source, count, pointer_to(widened, 0), element)
        place = pointer_to(output, (plane * outputs + first) * out_row)
        target = target_for(place, pointer_to(results, 0))
        memory, columns = aligned(pointer_to(blocks, 0)), aligned(pointer_to(selected, 0))
        pads, spare = aligned(pointer_to(padded, 0)), aligned(pointer_to(suffixes, 0))
        if has_nan(rows, count):
            _select_tile(
                rows, low - start, high - low, columns, pads, memory, target, last - first, spare,
                sizes, group, room, identity, operation,
            )  # fmt: skip
            if rejects_nan and has_nan(target, out_count):
                return True
        else:
            _select_tile(
                rows, low - start, high - low, columns, pads, memory, target, last - first, spare,
                sizes, group, room, identity, of_numbers,
            )  # fmt: skip
        store_exactly(target, place, out_count, element)
    return False


@kernel
def large_max_pool(x: Row, output: Row, windows: LargeTables, begin: int, end: int) -> bool:
    """Pool tiles `begin` to `end` of flat `x` into flat `output`.

    Returns:
        Whether a NaN must be rejected; then `output` is incomplete.
    """
    return _pool(x, output, windows, begin, end, Larger(), LargerOfNumbers())


@kernel
def large_min_pool(x: Row, output: Row, windows: LargeTables, begin: int, end: int) -> bool:
    """Pool like `large_max_pool`, for the smallest elements."""
    return _pool(x, output, windows, begin, end, Smaller(), SmallerOfNumbers())


@section
def _select_tile(
    rows: Pointer,
    above: int,
    count: int,
    columns: Pointer,
    padded: Pointer,
    memory: Pointer,
    target: Pointer,
    outputs: int,
    suffixes: Pointer,
    sizes: LargeSizes,
    group: int,
    room: int,
    identity: Element,
    operation: Operation,
) -> None:
    """Select the outputs of a tile from `count` rows, of which the first window begins `above`."""
    selected = ahead(columns, above * sizes.pitch)
    select_rows(rows, count, selected, padded, memory, sizes, group, room, operation)
    if sizes.taps == FEW_TAPS:
        below = outputs + FEW_TAPS - 1 - count - above
        _fill(columns, above * sizes.pitch, identity)
        _fill(ahead(selected, count * sizes.pitch), below * sizes.pitch, identity)
        select_few(columns, target, outputs, sizes, operation)
    else:
        select_columns(
            selected, count, -above, target, outputs, suffixes, sizes, identity, operation
        )


@part
def _fill(target: Pointer, count: int, value: Element) -> None:
    for i in range(count):
        put(target, i, value)
