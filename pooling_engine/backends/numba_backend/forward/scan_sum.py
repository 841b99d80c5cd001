"""AVERAGE and SUM of large windows: sums in float64 by scans, divided."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_axis import reduce_rows, reduce_vectors
from pooling_engine.backends.numba_backend.forward.reduce_tile import Tile, tile_at
from pooling_engine.backends.numba_backend.forward.scan_axis import scan_rows, scan_vectors
from pooling_engine.backends.numba_backend.language.arguments import (
    AXIS_COLUMNS,
    AxisRow,
    Divisors,
    ScanTables,
)
from pooling_engine.backends.numba_backend.language.axes import (
    TileSizes,
    axis_at,
    is_unchanged,
    sizes_of,
)
from pooling_engine.backends.numba_backend.language.division import divide_by_factors
from pooling_engine.backends.numba_backend.language.elements import load, scratch_for
from pooling_engine.backends.numba_backend.language.jit import kernel, routine, section
from pooling_engine.backends.numba_backend.language.operations import Sum
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    ahead,
    get,
    pointer_to,
)
from pooling_engine.backends.numba_backend.language.rounding import divide_and_round


@kernel
def scan_sum_pool(
    x: Row, output: Row, scans: ScanTables, divisors: Divisors, begin: int, end: int
) -> bool:
    """Pool tiles `begin` to `end` of flat `x` into flat `output`.

    Returns:
        False: the results are always complete.
    """
    axes, tap_ranges = pointer_to(scans.axes, 0), pointer_to(scans.tap_ranges, 0)
    flags = pointer_to(scans.is_scanned, 0)
    height, element, factors, group = scans.height, scans.element, divisors.factors, scans.group
    sizes = sizes_of(axes, len(scans.axes) // AXIS_COLUMNS, scans.inner, height)
    first = axis_at(axes, 0)
    most = height * sizes.out_row
    scratch, sums, quotients = np.empty(2 * sizes.scratch), np.empty(most), np.empty(most)
    widened = scratch_for(element.zero, sizes.span * sizes.row)
    narrowed = np.empty(most, np.float32)
    suffixes, vectors = np.empty(scans.suffixes), np.empty(scans.vectors)
    for number in range(begin, end):
        tile = tile_at(number, first, tap_ranges, height)
        count = (tile.input_end - tile.input_begin) * sizes.row
        source = pointer_to(x, (tile.plane * first.size + tile.input_begin) * sizes.row)
        rows, total = load(source, count, pointer_to(widened, 0), element), pointer_to(sums, 0)
        _scan_tile(
            rows,
            total,
            pointer_to(scratch, 0),
            tile,
            sizes,
            axes,
            tap_ranges,
            flags,
            group,
            scans.vectors - scans.columns - scans.sums,
            scans.columns,
            pointer_to(suffixes, 0),
            pointer_to(vectors, 0),
        )
        place = pointer_to(output, (tile.plane * first.outputs + tile.begin) * sizes.out_row)
        out_count, spare = (tile.end - tile.begin) * sizes.out_row, pointer_to(narrowed, 0)
        if len(factors):
            quotient, divisor_factors = pointer_to(quotients, 0), pointer_to(factors, 0)
            divide_by_factors(total, quotient, divisor_factors, tile.begin, out_count, axes, sizes)
            divide_and_round(quotient, place, 1.0, out_count, spare, element)
        else:
            divide_and_round(total, place, divisors.divisor, out_count, spare, element)
    return False


@routine
def _scan_tile(
    rows: Pointer,
    target: Pointer,
    scratch: Pointer,
    tile: Tile,
    sizes: TileSizes,
    axes: Pointer,
    tap_ranges: Pointer,
    flags: Pointer,
    group: int,
    column_place: int,
    column_elements: int,
    suffixes: Pointer,
    vectors: Pointer,
) -> None:
    """Sum the input rows of a tile, from `input_begin` on, to its outputs.

    Args:
        scratch: room for two intermediate results.
        flags: for each axis, whether it is scanned; otherwise windows are summed tap by tap.
        group: rows that are transposed together.
        column_place: where they are in `vectors`.
        column_elements: elements that they have at most.
        suffixes: room for the suffixes of a scan.
        vectors: room for a vector, and for the elements and outputs of transposed rows.
    """
    row, first, outer = sizes.row, axis_at(axes, 0), tile.end - tile.begin
    columns = ahead(vectors, column_place)
    sums = ahead(columns, column_elements)
    if is_unchanged(first):  # the other axis is the only one
        axis = axis_at(axes, 1)
        ranges = ahead(tap_ranges, axis.ranges)
        _scan_axis(
            rows, row, target, axis, ranges, outer, sizes.inner, group, columns, sums, suffixes,
            vectors,
        )  # fmt: skip
        return
    origin = ahead(rows, -tile.input_begin * row)
    if get(flags, 0):
        before = -get(tap_ranges, 0)
        scan_vectors(origin, scratch, first, before, tile.begin, tile.end, row, suffixes, vectors)
    else:
        reduce_vectors(origin, scratch, row, first, tap_ranges, tile.begin, tile.end, row, Sum(0.0))
    source, inner = scratch, row
    for a in range(1, sizes.axes):
        pitch, axis = inner, axis_at(axes, a)
        inner //= axis.size
        spare = ahead(scratch, (a % 2) * sizes.scratch)
        result = target if a == sizes.axes - 1 else spare
        ranges = ahead(tap_ranges, axis.ranges)
        if get(flags, a):
            _scan_axis(
                source, pitch, result, axis, ranges, outer, inner, group, columns, sums, suffixes,
                vectors,
            )  # fmt: skip
        elif inner == 1:
            reduce_rows(source, pitch, result, spare, axis, ranges, outer, Sum(0.0))
        else:
            for block in range(outer):
                taps = ahead(source, block * pitch)
                results = ahead(result, block * axis.outputs * inner)
                reduce_vectors(taps, results, inner, axis, ranges, 0, axis.outputs, inner, Sum(0.0))
        source, outer = result, outer * axis.outputs


@section
def _scan_axis(
    source: Pointer,
    pitch: int,
    target: Pointer,
    axis: AxisRow,
    ranges: Pointer,
    outer: int,
    inner: int,
    group: int,
    columns: Pointer,
    sums: Pointer,
    suffixes: Pointer,
    vector: Pointer,
) -> None:
    """Scan `outer` blocks of (size, inner), `pitch` apart, to as many of (outputs, inner)."""
    before = -get(ranges, 0)
    if inner == 1:
        scan_rows(
            source, pitch, target, axis, before, outer, group, columns, sums, suffixes, vector
        )
        return
    for block in range(outer):
        taps, results = ahead(source, block * pitch), ahead(target, block * axis.outputs * inner)
        scan_vectors(taps, results, axis, before, 0, axis.outputs, inner, suffixes, vector)
