"""The axes of a plan in compiled code: rows of tables as records, and the sizes of tiles."""

from __future__ import annotations

from typing import NamedTuple

from pooling_engine.backends.numba_backend.language.arguments import (
    AXIS_COLUMNS,
    UNCHANGED,
    AxisRow,
)
from pooling_engine.backends.numba_backend.language.jit import routine, section
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead, get

SHORT_ROW = 32  # elements; shorter rows are reduced together, with gaps between their outputs


class TapRange(NamedTuple):
    """The taps of one window that are on elements, along one axis.

    Attributes:
        start: position of the window's first tap, whether on an element or not.
        first: first tap on an element.
        stop: one after the last tap on an element.
    """

    start: int
    first: int
    stop: int


class TileSizes(NamedTuple):
    """Sizes that all tiles of a call share, in elements.

    Attributes:
        axes: number of axes.
        inner: elements side by side at one position.
        row: input at one position of the first axis.
        out_row: output at one position of the first axis.
        span: most positions of the first axis that the windows of a tile span.
        pitch: distance between rows once the first axis is reduced.
        scratch: largest intermediate result.
    """

    axes: int
    inner: int
    row: int
    out_row: int
    span: int
    pitch: int
    scratch: int


@section
def axis_at(axes: Pointer, number: int) -> AxisRow:
    """Return one axis of a plan."""
    row = ahead(axes, number * AXIS_COLUMNS)
    return AxisRow(
        get(row, 0),
        get(row, 1),
        get(row, 2),
        get(row, 3),
        get(row, 4),
        get(row, 5),
        get(row, 6),
        get(row, 7),
        get(row, 8),
    )


@section
def is_unchanged(axis: AxisRow) -> bool:
    """Return whether the outputs of a first axis are its elements."""
    return axis.ranges == UNCHANGED


@section
def extent_of(axis: AxisRow) -> int:
    """Return the number of positions that a window spans."""
    return (axis.taps - 1) * axis.dilation + 1


@section
def tap_range_of(ranges: Pointer, outputs: int, output: int) -> TapRange:
    """Return the tap range of one output.

    Args:
        ranges: tap ranges of the axis.
        outputs: number of outputs of the axis.
        output: one of them.
    """
    return TapRange(
        get(ranges, output), get(ranges, outputs + output), get(ranges, 2 * outputs + output)
    )


@routine
def sizes_of(axes: Pointer, count: int, inner: int, height: int) -> TileSizes:
    """Return the sizes of tiles with `height` outputs along the first of `count` axes."""
    row, out_row, largest = inner, inner, inner
    for a in range(1, count):
        axis = axis_at(axes, a)
        row, out_row = row * axis.size, out_row * axis.outputs
        largest *= max(axis.size, axis.outputs)
    first = axis_at(axes, 0)
    span = first.size
    if first.stride:
        span = min(first.size, (height - 1) * first.stride + extent_of(first))
    pitch = first.stride * row if first.stride == 2 and row <= SHORT_ROW else row
    return TileSizes(count, inner, row, out_row, span, pitch, height * max(pitch, largest))
