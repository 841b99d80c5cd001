"""One slab: outputs along the first axis of one plane, folded one spatial axis after the other.

`operations.py` says what folding is. Values are lifted to the element type of the target, and
of each output the taps are taken in their order, axis by axis, as the NumPy backend does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pooling_engine.backends.numba_backend.forward.reduce_axis import SHORT, fold_rows, fold_vectors
from pooling_engine.backends.numba_backend.language.jit import routine, section
from pooling_engine.backends.numba_backend.language.operations import Operation
from pooling_engine.backends.numba_backend.language.pointers import ahead, get
from pooling_engine.backends.numba_backend.tables.axes import (
    COLUMNS,
    DILATION,
    KERNEL,
    LEFT,
    OUTPUTS,
    SIZE,
    STRIDE,
    TABLE,
)


class Slab(NamedTuple):
    """Where one slab is.

    Attributes:
        plane: its plane.
        low: its first output along the first axis.
        high: the one after its last.
        begin: the first element along the first axis that its windows span.
        end: the one after the last.
    """

    plane: int
    low: int
    high: int
    begin: int
    end: int


class Sizes(NamedTuple):
    """What all slabs of a call have in common, in elements.

    Attributes:
        axes: how many axes there are.
        row: the input at one position of the first axis.
        out_row: the output there.
        span: the most positions of the first axis that one slab spans.
        pitch: how far apart the rows are once the first axis is folded.
        scratch: the largest intermediate result.
    """

    axes: int
    row: int
    out_row: int
    span: int
    pitch: int
    scratch: int


@section
def axis_at(axes: Any, number: int) -> Any:
    """A pointer to the row of `Geometry.axes` for that axis."""
    return ahead(axes, number * COLUMNS)


@routine
def sizes_of(axes: Any, count: int, inner: int, height: int) -> Sizes:
    """The sizes of the slabs of `height` outputs, for `count` axes."""
    row, out_row, largest = inner, inner, inner
    for a in range(1, count):
        size, outputs = get(axis_at(axes, a), SIZE), get(axis_at(axes, a), OUTPUTS)
        row, out_row, largest = row * size, out_row * outputs, largest * max(size, outputs)
    stride, extent = get(axes, STRIDE), (get(axes, KERNEL) - 1) * get(axes, DILATION) + 1
    span = min(get(axes, SIZE), (height - 1) * stride + extent) if stride else get(axes, SIZE)
    pitch = stride * row if stride == 2 and row <= SHORT else row
    return Sizes(count, row, out_row, span, pitch, height * max(pitch, largest))


@section
def slab_at(number: int, axes: Any, tables: Any, height: int) -> Slab:
    """The slab of that number: those of a plane follow one another."""
    size, outputs = get(axes, SIZE), get(axes, OUTPUTS)
    bands = -(-outputs // height)
    low = number % bands * height
    high = min(outputs, low + height)
    extent = (get(axes, KERNEL) - 1) * get(axes, DILATION) + 1
    first, last = low, high - 1  # where their windows start, if the axis is left as it is
    if not is_left(axes):
        first, last = get(tables, first), get(tables, last)
    begin = min(size, max(0, first))
    end = max(begin, min(size, last + extent))
    return Slab(number // bands, low, high, begin, end)


@section
def fold_slab(
    rows: Any, target: Any, scratch: Any, slab: Slab, sizes: Sizes, axes: Any, tables: Any,
    operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Folds the rows of a slab, from its `begin`, into its outputs.

    Args:
        scratch: room for two intermediate results.
    """
    row = sizes.row
    if is_left(axes):
        _fold_rest(
            rows, row, target, scratch, slab.high - slab.low, sizes, axes, tables, operation, empty
        )
        return
    origin = ahead(rows, -slab.begin * row)
    fold_vectors(
        origin, scratch, sizes.pitch, axes, tables, slab.low, slab.high, row, operation, empty
    )
    _fold_rest(
        scratch, sizes.pitch, target, scratch, slab.high - slab.low, sizes, axes, tables,
        operation, empty,
    )  # fmt: skip


@routine
def _fold_rest(
    rows: Any, pitch: int, target: Any, scratch: Any, outer: int, sizes: Sizes, axes: Any,
    tables: Any, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Folds all axes but the first; the rows are `pitch` apart, and may be in scratch."""
    axis = axis_at(axes, 1)
    rest, table = sizes.row // get(axis, SIZE), ahead(tables, get(axis, TABLE))
    source = target if sizes.axes == 2 else ahead(scratch, sizes.scratch)
    spare = ahead(scratch, sizes.scratch)
    _fold_axis(rows, pitch, source, spare, axis, table, outer, rest, operation, empty)
    for a in range(2, sizes.axes):
        outer, pitch = outer * get(axis, OUTPUTS), rest
        axis = axis_at(axes, a)
        rest //= get(axis, SIZE)
        spare = ahead(scratch, (a % 2) * sizes.scratch)
        folded = target if a == sizes.axes - 1 else spare
        table = ahead(tables, get(axis, TABLE))
        _fold_axis(source, pitch, folded, spare, axis, table, outer, rest, operation, empty)
        source = folded


@section
def is_left(axis: Any) -> bool:
    """Whether a first axis is left as it is."""
    return get(axis, TABLE) == LEFT


@section
def _fold_axis(
    source: Any, pitch: int, target: Any, spare: Any, axis: Any, table: Any, outer: int,
    inner: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """`outer` blocks of (size, inner), `pitch` apart, to as many of (outputs, inner)."""
    outputs = get(axis, OUTPUTS)
    if inner == 1:
        fold_rows(source, pitch, target, spare, axis, table, outer, operation, empty)
        return
    for block in range(outer):
        taps, out = ahead(source, block * pitch), ahead(target, block * outputs * inner)
        fold_vectors(taps, out, inner, axis, table, 0, outputs, inner, operation, empty)
