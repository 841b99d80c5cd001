"""AVERAGE and SUM of small planes with short rows of float32, in full vectors.

As in `average_sum.py`, windows are summed in float64, along the first axis first, and each quotient
is rounded once. Padding is a zero that is added: it changes no sum but -0.0, which no output is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.forward.short_rows import copy_elements, is_near_edge
from pooling_engine.backends.numba_backend.language.arguments import (
    RowDivisors,
    RowSizes,
    RowTables,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, part
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    Row,
    ahead,
    get,
    pointer_to,
)
from pooling_engine.backends.numba_backend.language.vectors import (
    every_other,
    filled,
    has_nan_lane,
    load_8,
    load_16,
    mask_at,
    pick_lanes,
    quotient_by_inverse,
    quotient_of,
    rounded,
    store_vector,
    sum_of,
    widened,
    with_canonical_nans,
)

LANES = 8


@kernel
def short_rows_sum_pool(
    x: Row, output: Row, planes: RowTables, divisors: RowDivisors, begin: int, end: int
) -> bool:
    """Pool planes `begin` to `end` of flat `x` into flat `output`.

    Returns:
        False: the results are always complete.
    """
    sizes, pitch, divisor_step = planes.sizes, divisors.pitch, divisors.step
    size, out_size, margin = sizes.size, sizes.out_size, sizes.margin
    masks, limits = pointer_to(planes.masks, 0), pointer_to(planes.limits, 0)
    each, inverses = pointer_to(divisors.divisors, 0), pointer_to(divisors.inverses, 0)
    inputs, outputs = (
        np.empty(size + 2 * margin, np.float32),
        np.empty(out_size + LANES, np.float32),
    )
    sums = np.zeros(sizes.outputs * pitch)
    for plane in range(begin, end):
        source = pointer_to(x, plane * size)
        if is_near_edge(plane, size, margin, len(x)):
            copy_elements(source, pointer_to(inputs, margin), size)
            source = pointer_to(inputs, margin)
        # Vectors are longer than rows: what follows is written again, except at the end.
        is_end = (end - 1 - plane) * out_size < LANES
        place = pointer_to(output, plane * out_size)
        target = pointer_to(outputs, 0) if is_end else place
        columns = pointer_to(sums, 0)
        _add_columns(source, columns, pitch, sizes, limits, masks)
        if sizes.stride == 1:
            _average_rows(columns, target, pitch, sizes, each, inverses, divisor_step, 1)
        else:
            _average_rows(columns, target, pitch, sizes, each, inverses, divisor_step, 2)
        if is_end:
            copy_elements(target, place, out_size)
    return False


@part
def _add_columns(
    source: Pointer, target: Pointer, pitch: int, sizes: RowSizes, limits: Pointer, masks: Pointer
) -> None:
    """Write the sums at every position of a row, for each output along the first axis."""
    width, outputs, step = sizes.width, sizes.outputs, sizes.column_step * sizes.width
    for output in range(outputs):
        rows, count = ahead(source, get(limits, output) * width), get(limits, outputs + output)
        sums = ahead(target, output * pitch + sizes.before)
        for first in range(0, width, LANES):
            column = ahead(rows, first)
            total = _add_column(column, step, 3) if count == 3 else _add_column(column, step, count)
            if first + LANES > width:  # the next row follows
                total = pick_lanes(mask_at(masks, 0), total, filled(0.0, total))
            store_vector(sums, first, total)


@part
def _add_column(rows: Pointer, step: int, count: int) -> Any:
    """Return the sum of `count` vectors, `step` apart."""
    total = widened(load_8(rows, 0))
    for tap in range(1, count):
        total = sum_of(total, widened(load_8(rows, tap * step)))
    return total


@part
def _average_rows(
    source: Pointer,
    target: Pointer,
    pitch: int,
    sizes: RowSizes,
    divisors: Pointer,
    inverses: Pointer,
    divisor_step: int,
    stride: int,
) -> None:
    """Add along rows and divide; `stride` is a constant."""
    step = sizes.row_step
    for output in range(sizes.outputs):
        results = ahead(target, output * sizes.out_row)
        for first in range(0, sizes.out_row, LANES):
            sums = ahead(source, output * pitch + first * stride)
            total = _load(sums, 0, stride)
            total = sum_of(total, _load(sums, step, stride))
            total = sum_of(total, _load(sums, 2 * step, stride))
            divisor = load_8(divisors, output * divisor_step + first)
            inverse = load_8(inverses, output * divisor_step + first)
            average = rounded(quotient_by_inverse(total, divisor, inverse))
            if has_nan_lane(average):  # an infinity or a NaN
                average = with_canonical_nans(rounded(quotient_of(total, divisor)))
            store_vector(results, first, average)


@part
def _load(sums: Pointer, index: int, stride: int) -> Any:
    """Return the sums of neighbouring outputs; `stride` is a constant."""
    if stride == 1:
        return load_8(sums, index)
    return every_other(load_16(sums, index))
