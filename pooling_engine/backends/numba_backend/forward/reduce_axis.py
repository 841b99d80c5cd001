"""Reductions along one axis: of vectors that lie side by side, and of rows of single elements."""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.axes import SHORT_ROW, tap_range_of
from pooling_engine.backends.numba_backend.language.jit import part, routine, section
from pooling_engine.backends.numba_backend.language.operations import (
    Operation,
    combine,
    combine_in_any_order,
)
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    ahead,
    convert,
    get,
    put,
)

MANY_TAPS = 8  # windows with as many are reduced one by one, along their taps


@routine
def reduce_vectors(
    source: Pointer,
    target: Pointer,
    pitch: int,
    axis: AxisRow,
    ranges: Pointer,
    begin: int,
    end: int,
    length: int,
    operation: Operation,
) -> None:
    """Reduce vectors of `length` elements to outputs `begin` to `end`, `pitch` apart.

    With a pitch of stride times length, the vectors between the outputs are computed as well, so
    that one loop computes all.
    """
    output = begin
    while output < end:
        window = tap_range_of(ranges, axis.outputs, output)
        taps = ahead(source, (window.start + window.first * axis.dilation) * length)
        run = 1
        if pitch == axis.stride * length and axis.inside <= output < axis.inside_end:
            run = min(end, axis.inside_end) - output
        whole = ((run - 1) * axis.stride + 1) * length
        results = ahead(target, (output - begin) * pitch)
        count = window.stop - window.first
        _reduce_taps(taps, axis.dilation * length, count, results, whole, operation)
        output += run


@routine
def _reduce_taps(
    source: Pointer, step: int, count: int, target: Pointer, length: int, operation: Operation
) -> None:
    """Reduce `count` vectors of `length` elements, `step` apart, to one."""
    if count <= 0:
        for i in range(length):
            put(target, i, operation.identity)
        return
    if count == 1:
        for i in range(length):
            put(target, i, convert(get(source, i), target))
        return
    b = ahead(source, step)
    if count == 2:
        for i in range(length):
            first = convert(get(source, i), target)
            put(target, i, combine(convert(get(b, i), target), first, operation))
        return
    c = ahead(b, step)
    for i in range(length):
        first = convert(get(source, i), target)
        result = combine(convert(get(b, i), target), first, operation)
        put(target, i, combine(convert(get(c, i), target), result, operation))
    for tap in range(3, count - 1, 2):
        b = ahead(source, tap * step)
        c = ahead(b, step)
        for i in range(length):
            result = combine(convert(get(b, i), target), get(target, i), operation)
            put(target, i, combine(convert(get(c, i), target), result, operation))
    if count > 3 and count % 2 == 0:
        b = ahead(source, (count - 1) * step)
        for i in range(length):
            put(target, i, combine(convert(get(b, i), target), get(target, i), operation))


@routine
def reduce_rows(
    source: Pointer,
    pitch: int,
    target: Pointer,
    spare: Pointer,
    axis: AxisRow,
    ranges: Pointer,
    rows: int,
    operation: Operation,
) -> None:
    """Reduce rows of single elements, `pitch` apart, along the last axis.

    Args:
        spare: room for an intermediate result.
    """
    outputs, stride = axis.outputs, axis.stride
    inside, inside_end = axis.inside, axis.inside_end
    if inside < inside_end and outputs * stride == axis.size == pitch:
        # All rows as one; the outputs whose taps wrap around are overwritten below.
        length = (rows - 1) * outputs + inside_end - inside
        _slide(ahead(source, get(ranges, inside)), ahead(target, inside), length, axis, operation)
    elif outputs <= SHORT_ROW // 2 and inside_end - inside == outputs and pitch % stride == 0:
        # All rows as one, too, but with outputs between the rows, which are dropped.
        across = pitch // stride
        length = (rows - 1) * across + outputs
        _slide(ahead(source, get(ranges, 0)), spare, length, axis, operation)
        for row in range(rows):
            for output in range(outputs):
                put(target, row * outputs + output, get(spare, row * across + output))
        return
    elif inside < inside_end:
        for row in range(rows):
            taps = ahead(source, row * pitch + get(ranges, inside))
            results = ahead(target, row * outputs + inside)
            _slide(taps, results, inside_end - inside, axis, operation)
    _reduce_each(source, pitch, target, axis, ranges, 0, inside, rows, operation)
    _reduce_each(source, pitch, target, axis, ranges, inside_end, outputs, rows, operation)


@section
def _slide(
    source: Pointer, target: Pointer, length: int, axis: AxisRow, operation: Operation
) -> None:
    """Reduce windows whose taps are all on elements, in the loop for their taps and stride."""
    stride, taps, dilation = axis.stride, axis.taps, axis.dilation
    if dilation == 1 and stride == 2 and taps == 2:
        _slide_window(source, target, length, 2, 2, operation)
    elif dilation == 1 and stride == 2 and taps == 3:
        _slide_window(source, target, length, 2, 3, operation)
    elif dilation == 1 and stride == 1 and taps == 3:
        _slide_window(source, target, length, 1, 3, operation)
    elif dilation == 1 and stride == 1 and taps == 5:
        _slide_window(source, target, length, 1, 5, operation)
    elif dilation == 1 and stride == 4 and taps == 4:
        _slide_window(source, target, length, 4, 4, operation)
    elif stride == 1:
        _slide_taps(source, target, length, 1, taps, dilation, operation)
    elif stride == 2 and taps < 2 * MANY_TAPS:
        _slide_taps(source, target, length, 2, taps, dilation, operation)
    else:
        for i in range(length):
            window = ahead(source, i * stride)
            if taps < MANY_TAPS:
                put(target, i, _reduce_few(window, taps, dilation, target, operation))
            else:
                put(target, i, _reduce_many(window, taps, dilation, target, operation))


@part
def _slide_window(
    source: Pointer, target: Pointer, length: int, stride: int, taps: int, operation: Operation
) -> None:
    """Reduce windows of neighbouring taps; `stride` and `taps` are constants."""
    for i in range(length):
        result = convert(get(source, i * stride), target)
        for tap in range(1, taps):
            result = combine(convert(get(source, i * stride + tap), target), result, operation)
        put(target, i, result)


@part
def _slide_taps(
    source: Pointer,
    target: Pointer,
    length: int,
    stride: int,
    taps: int,
    dilation: int,
    operation: Operation,
) -> None:
    """Reduce any windows, tap by tap; `stride` is a constant."""
    for i in range(length):
        put(target, i, convert(get(source, i * stride), target))
    for tap in range(1, taps):
        further = ahead(source, tap * dilation)
        for i in range(length):
            value = convert(get(further, i * stride), target)
            put(target, i, combine(value, get(target, i), operation))


@part
def _reduce_few(
    source: Pointer, taps: int, dilation: int, target: Pointer, operation: Operation
) -> Element:
    """Reduce one window of a few taps, all on elements."""
    result = convert(get(source, 0), target)
    for tap in range(1, taps):
        result = combine(convert(get(source, tap * dilation), target), result, operation)
    return result


@routine
def _reduce_many(
    source: Pointer, taps: int, dilation: int, target: Pointer, operation: Operation
) -> Element:
    """Reduce one window of many taps, all on elements."""
    if dilation != 1:
        return _reduce_few(source, taps, dilation, target, operation)
    result = convert(get(source, 0), target)
    for tap in range(1, taps):
        result = combine_in_any_order(convert(get(source, tap), target), result, operation)
    return result


@part
def _reduce_each(
    source: Pointer,
    pitch: int,
    target: Pointer,
    axis: AxisRow,
    ranges: Pointer,
    begin: int,
    end: int,
    rows: int,
    operation: Operation,
) -> None:
    """Reduce outputs `begin` to `end` of all rows, each over its taps on elements."""
    for output in range(begin, end):
        window = tap_range_of(ranges, axis.outputs, output)
        count = window.stop - window.first
        taps = ahead(source, window.start + window.first * axis.dilation)
        for row in range(rows):
            own, result = ahead(taps, row * pitch), operation.identity
            if count >= MANY_TAPS:
                result = _reduce_many(own, count, axis.dilation, target, operation)
            elif count > 0:
                result = _reduce_few(own, count, axis.dilation, target, operation)
            put(target, row * axis.outputs + output, result)
