"""Selection of one tile (outputs along the first axis of one plane), the last axis first.

With that order, the first of equal elements along each axis is the first in row-major order.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.forward.candidates import (
    Candidates,
    Extremes,
    further,
)
from pooling_engine.backends.numba_backend.forward.reduce_tile import Tile
from pooling_engine.backends.numba_backend.forward.select_axis import select_rows, select_vectors
from pooling_engine.backends.numba_backend.forward.select_wide import (
    Passes,
    select_wide_rows,
    select_wide_vectors,
)
from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.axes import TileSizes, axis_at, is_unchanged
from pooling_engine.backends.numba_backend.language.jit import routine, section
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead
from pooling_engine.backends.numba_backend.language.selection import Operation


@section
def room_for(sizes: TileSizes, height: int) -> int:
    """Return the largest number of candidates between two axes."""
    return sizes.span * (sizes.scratch // height)


@routine
def select_tile(
    rows: Extremes,
    target: Candidates,
    spare: Candidates,
    passes: Passes,
    tile: Tile,
    sizes: TileSizes,
    room: int,
    axes: Pointer,
    tap_ranges: Pointer,
    operation: Operation,
) -> None:
    """Select the outputs of a tile from its input rows, from `input_begin` on.

    Args:
        spare: room for two intermediate results.
        passes: room for the passes over wide windows.
        room: room for each intermediate result.
    """
    first, number = axis_at(axes, 0), sizes.axes - 1
    is_last = is_unchanged(first) and number == 1
    axis, inner = axis_at(axes, number), sizes.inner
    outer = (tile.input_end - tile.input_begin) * (sizes.row // (axis.size * inner))
    ranges = ahead(tap_ranges, axis.ranges)
    source = target if is_last else spare
    if inner > 1:
        _select_blocks(rows, source, axis, ranges, outer, inner, 1, passes, operation)
    elif axis.is_wide:
        select_wide_rows(rows, source, axis, ranges, outer, passes, operation)
    else:
        select_rows(rows, source, axis, ranges, outer, further(spare, room), operation)
    weight = 1
    for a in range(number - 1, 0, -1):
        inner, weight = inner * axis.outputs, weight * axis.taps
        axis = axis_at(axes, a)
        outer //= axis.size
        ranges = ahead(tap_ranges, axis.ranges)
        is_last = is_unchanged(first) and a == 1
        result = target if is_last else further(spare, (number - a) % 2 * room)
        _select_blocks(source, result, axis, ranges, outer, inner, weight, passes, operation)
        source = result
    if is_unchanged(first):
        return
    inner, weight = inner * axis.outputs, weight * axis.taps
    begin, end, low = tile.begin, tile.end, tile.input_begin
    if first.is_wide:
        select_wide_vectors(
            source, target, first, tap_ranges, begin, end, low, tile.input_end,
            inner, weight, passes, operation,
        )  # fmt: skip
    else:
        origin = further(source, -low * inner)
        select_vectors(
            origin, target, first, tap_ranges, begin, end, inner, weight, True, operation
        )


@routine
def _select_blocks(
    source: Candidates,
    target: Candidates,
    axis: AxisRow,
    ranges: Pointer,
    blocks: int,
    inner: int,
    weight: int,
    passes: Passes,
    operation: Operation,
) -> None:
    """Select from blocks of (size, inner) into as many of (outputs, inner)."""
    outputs = axis.outputs
    for block in range(blocks):
        taps = further(source, block * axis.size * inner)
        results = further(target, block * outputs * inner)
        if axis.is_wide:
            select_wide_vectors(
                taps, results, axis, ranges, 0, outputs, 0, axis.size,
                inner, weight, passes, operation,
            )  # fmt: skip
        else:
            select_vectors(taps, results, axis, ranges, 0, outputs, inner, weight, False, operation)
