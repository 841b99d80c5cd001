"""Selection along one axis: of vectors that lie side by side, and of rows of single elements.

Taps are compared in their order, so that the first of equal ones is selected. Axes are reduced
from the last to the first, which makes that the first in row-major order.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.forward.candidates import (
    NO_TAP,
    Candidates,
    copy,
    further,
    number_at,
    put_candidate,
)
from pooling_engine.backends.numba_backend.forward.select_window import MANY_TAPS, select_one
from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.axes import SHORT_ROW, tap_range_of
from pooling_engine.backends.numba_backend.language.jit import part, routine, section
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import Pointer, get
from pooling_engine.backends.numba_backend.language.selection import (
    Operation,
    identity_of,
    is_better,
)

LANES = 16  # of the widest vectors of float32


@part
def select(
    source: Candidates,
    step: int,
    stride: int,
    target: Candidates,
    first: int,
    weight: int,
    length: int,
    count: int,
    is_begun: bool,
    operation: Operation,
) -> None:
    """Select `length` outputs, `stride` apart, from taps that are `step` apart.

    `stride`, `count` and `is_begun` are constants.

    Args:
        first: number of the first of these taps along the axis.
        weight: weight of the axis in the number of a tap.
        count: number of these taps.
        is_begun: whether `target` has the extremes of earlier taps.
    """
    for i in range(length):
        best, best_tap = (
            get(source.values, i * stride),
            number_at(source, i * stride, first * weight),
        )
        if is_begun:
            before, tap_before = get(target.values, i), number_at(target, i, 0)
            is_new = is_better(best, before, operation)
            best, best_tap = pick(is_new, best, before), pick(is_new, best_tap, tap_before)
        for number in range(1, count):
            at = i * stride + number * step
            value, tap = get(source.values, at), number_at(source, at, (first + number) * weight)
            is_new = is_better(value, best, operation)
            best, best_tap = pick(is_new, value, best), pick(is_new, tap, best_tap)
        put_candidate(target, i, best, best_tap)


@routine
def _select_taps(
    source: Candidates,
    step: int,
    stride: int,
    count: int,
    target: Candidates,
    first: int,
    weight: int,
    length: int,
    operation: Operation,
) -> None:
    """Select outputs from any number of taps; arguments as in `select`."""
    if stride == 2:
        _select_any(source, step, 2, count, target, first, weight, length, operation)
    else:
        _select_any(source, step, 1, count, target, first, weight, length, operation)


@part
def _select_any(
    source: Candidates,
    step: int,
    stride: int,
    count: int,
    target: Candidates,
    first: int,
    weight: int,
    length: int,
    operation: Operation,
) -> None:
    if count <= 0:
        for i in range(length):
            put_candidate(
                target, i, identity_of(get(source.values, 0), operation), np.int32(NO_TAP)
            )
        return
    if count == 1:
        select(source, step, stride, target, first, weight, length, 1, False, operation)
    elif count == 2:
        select(source, step, stride, target, first, weight, length, 2, False, operation)
    else:
        select(source, step, stride, target, first, weight, length, 3, False, operation)
    for tap in range(3, count - 1, 2):
        taps = further(source, tap * step)
        select(taps, step, stride, target, first + tap, weight, length, 2, True, operation)
    if count > 3 and count % 2 == 0:
        taps, tap = further(source, (count - 1) * step), first + count - 1
        select(taps, step, stride, target, tap, weight, length, 1, True, operation)


@routine
def select_vectors(
    source: Candidates,
    target: Candidates,
    axis: AxisRow,
    ranges: Pointer,
    begin: int,
    end: int,
    length: int,
    weight: int,
    has_slack: bool,
    operation: Operation,
) -> None:
    """Select outputs `begin` to `end` from vectors of `length` candidates, one at each position.

    Args:
        has_slack: whether `LANES` more candidates can be read after the last one.
        source: candidates at position 0.
        target: candidates at output `begin`.
        weight: weight of the axis in the number of a tap.
    """
    output = begin
    rounded = (length + LANES - 1) // LANES * LANES
    # A short vector is written with what follows it, which is written again later.
    last_rounded = end - -(-rounded // length) if has_slack and length < 4 * LANES else begin - 1
    while output < end:
        window = tap_range_of(ranges, axis.outputs, output)
        run = 1
        if axis.stride == 1 and axis.inside <= output < axis.inside_end:
            run = min(end, axis.inside_end) - output  # neighbours, selected as one
        taps = further(source, (window.start + window.first * axis.dilation) * length)
        results = further(target, (output - begin) * length)
        step, count = axis.dilation * length, window.stop - window.first
        width = rounded if run == 1 and output <= last_rounded else run * length
        _select_taps(taps, step, 1, count, results, window.first, weight, width, operation)
        output += run


@routine
def select_rows(
    source: Candidates,
    target: Candidates,
    axis: AxisRow,
    ranges: Pointer,
    rows: int,
    spare: Candidates,
    operation: Operation,
) -> None:
    """Select along the last axis from rows of single elements.

    Args:
        spare: room for an output at every position.
    """
    size, outputs, begin, end = axis.size, axis.outputs, axis.inside, axis.inside_end
    is_one_row = outputs * axis.stride == size
    if begin < end <= SHORT_ROW // 2 and size % axis.stride == 0 and not is_one_row:
        # All rows as one, with outputs between the rows, which are dropped.
        across = size // axis.stride
        length = (rows - 1) * across + end - begin
        _slide(further(source, get(ranges, begin)), axis, spare, length, operation)
        for row in range(rows):
            copy(further(spare, row * across), further(target, row * outputs + begin), end - begin)
    elif begin < end:
        length = (rows - 1) * outputs + end - begin if is_one_row else end - begin
        for row in range(1 if is_one_row else rows):
            taps = further(source, row * size + get(ranges, begin))
            _slide(taps, axis, further(target, row * outputs + begin), length, operation)
    for output in range(outputs):
        if begin <= output < end:
            continue
        window = tap_range_of(ranges, outputs, output)
        first, count = window.first, window.stop - window.first
        for row in range(rows):
            taps = further(source, row * size + window.start + first * axis.dilation)
            results = further(target, row * outputs + output)
            if count > 0:
                select_one(taps, axis.dilation, count, results, first, 1, operation)
            else:
                _select_taps(taps, 1, 1, 0, results, 0, 1, 1, operation)


@section
def _slide(
    source: Candidates, axis: AxisRow, target: Candidates, length: int, operation: Operation
) -> None:
    """Select outputs whose taps are all on elements, in the loop for their taps and stride."""
    taps, stride, step = axis.taps, axis.stride, axis.dilation
    if step == 1 and stride == 2 and taps == 2:
        select(source, 1, 2, target, 0, 1, length, 2, False, operation)
    elif step == 1 and stride == 2 and taps == 3:
        select(source, 1, 2, target, 0, 1, length, 3, False, operation)
    elif step == 1 and stride == 1 and taps == 3:
        select(source, 1, 1, target, 0, 1, length, 3, False, operation)
    elif step == 1 and stride == 1 and taps == 5:
        select(source, 1, 1, target, 0, 1, length, 5, False, operation)
    elif step == 1 and stride == 4 and taps == 4:
        select(source, 1, 4, target, 0, 1, length, 4, False, operation)
    elif stride == 1 or (stride == 2 and taps < 2 * MANY_TAPS):
        _select_taps(source, step, stride, taps, target, 0, 1, length, operation)
    else:
        for i in range(length):
            window, output = further(source, i * stride), further(target, i)
            select_one(window, step, taps, output, 0, 1, operation)
