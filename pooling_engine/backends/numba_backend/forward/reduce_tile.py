"""Reduction of one tile: outputs along the first axis of one plane, one spatial axis at a time.

Elements are converted to the type of the target. The taps of an output are reduced in their order,
axis by axis, as the NumPy backend reduces them.
"""

from __future__ import annotations

from typing import NamedTuple

from pooling_engine.backends.numba_backend.forward.reduce_axis import (
    reduce_rows,
    reduce_vectors,
)
from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.axes import (
    TileSizes,
    axis_at,
    extent_of,
    is_unchanged,
)
from pooling_engine.backends.numba_backend.language.jit import routine, section
from pooling_engine.backends.numba_backend.language.operations import Operation
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead, get


class Tile(NamedTuple):
    """One tile.

    Attributes:
        plane: its plane.
        begin: its first output along the first axis.
        end: one after its last.
        input_begin: first position of the first axis that its windows span.
        input_end: one after the last.
    """

    plane: int
    begin: int
    end: int
    input_begin: int
    input_end: int


@section
def tile_at(number: int, first: AxisRow, ranges: Pointer, height: int) -> Tile:
    """Return a tile by its number: the tiles of a plane follow one another.

    Args:
        number: number of the tile.
        first: the first axis.
        ranges: its tap ranges.
        height: outputs of a tile along the first axis.
    """
    per_plane = -(-first.outputs // height)
    begin = number % per_plane * height
    end = min(first.outputs, begin + height)
    start, last_start = begin, end - 1  # where their windows start along an UNCHANGED axis
    if not is_unchanged(first):
        start, last_start = get(ranges, start), get(ranges, last_start)
    input_begin = min(first.size, max(0, start))
    input_end = max(input_begin, min(first.size, last_start + extent_of(first)))
    return Tile(number // per_plane, begin, end, input_begin, input_end)


@section
def reduce_tile(
    rows: Pointer,
    target: Pointer,
    scratch: Pointer,
    tile: Tile,
    sizes: TileSizes,
    axes: Pointer,
    tap_ranges: Pointer,
    operation: Operation,
) -> None:
    """Reduce the input rows of a tile, from `input_begin` on, to its outputs.

    Args:
        scratch: room for two intermediate results.
    """
    row, first = sizes.row, axis_at(axes, 0)
    outputs = tile.end - tile.begin
    if is_unchanged(first):
        _reduce_rest(rows, row, target, scratch, outputs, sizes, axes, tap_ranges, operation)
        return
    origin = ahead(rows, -tile.input_begin * row)
    reduce_vectors(
        origin, scratch, sizes.pitch, first, tap_ranges, tile.begin, tile.end, row, operation
    )
    _reduce_rest(scratch, sizes.pitch, target, scratch, outputs, sizes, axes, tap_ranges, operation)


@routine
def _reduce_rest(
    rows: Pointer,
    pitch: int,
    target: Pointer,
    scratch: Pointer,
    outer: int,
    sizes: TileSizes,
    axes: Pointer,
    tap_ranges: Pointer,
    operation: Operation,
) -> None:
    """Reduce all axes but the first; the rows are `pitch` apart, and may be in scratch."""
    axis = axis_at(axes, 1)
    inner, ranges = sizes.row // axis.size, ahead(tap_ranges, axis.ranges)
    source = target if sizes.axes == 2 else ahead(scratch, sizes.scratch)
    spare = ahead(scratch, sizes.scratch)
    _reduce_axis(rows, pitch, source, spare, axis, ranges, outer, inner, operation)
    for a in range(2, sizes.axes):
        outer, pitch = outer * axis.outputs, inner
        axis = axis_at(axes, a)
        inner //= axis.size
        spare = ahead(scratch, (a % 2) * sizes.scratch)
        result = target if a == sizes.axes - 1 else spare
        ranges = ahead(tap_ranges, axis.ranges)
        _reduce_axis(source, pitch, result, spare, axis, ranges, outer, inner, operation)
        source = result


@section
def _reduce_axis(
    source: Pointer,
    pitch: int,
    target: Pointer,
    spare: Pointer,
    axis: AxisRow,
    ranges: Pointer,
    outer: int,
    inner: int,
    operation: Operation,
) -> None:
    """Reduce `outer` blocks of (size, inner), `pitch` apart, to as many of (outputs, inner)."""
    if inner == 1:
        reduce_rows(source, pitch, target, spare, axis, ranges, outer, operation)
        return
    for block in range(outer):
        taps, results = ahead(source, block * pitch), ahead(target, block * axis.outputs * inner)
        reduce_vectors(taps, results, inner, axis, ranges, 0, axis.outputs, inner, operation)
