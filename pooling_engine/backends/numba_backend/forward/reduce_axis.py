"""Folds of one axis: of vectors that lie side by side, and along rows of single elements."""

from __future__ import annotations

from typing import Any

from pooling_engine.backends.numba_backend.language.jit import part, routine, section
from pooling_engine.backends.numba_backend.language.operations import (
    Operation,
    combine,
    combine_in_any_order,
)
from pooling_engine.backends.numba_backend.language.pointers import ahead, get, lift, put
from pooling_engine.backends.numba_backend.tables.axes import (
    DILATION,
    HIGH,
    KERNEL,
    LOW,
    OUTPUTS,
    SIZE,
    STRIDE,
)

LONG = 8  # taps; windows of so many are folded one by one, along the taps
SHORT = 32  # elements; rows up to this are folded as one, at the cost of some between the outputs


@routine
def fold_vectors(
    source: Any, target: Any, pitch: int, axis: Any, table: Any, low: int, high: int, length: int,
    operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Outputs `low` to `high` of vectors of `length` elements, `pitch` apart in the target.

    With a pitch of stride times length, the vectors between the outputs are computed as well,
    so that all are one loop.
    """
    outputs, stride, dilation = get(axis, OUTPUTS), get(axis, STRIDE), get(axis, DILATION)
    o = low
    while o < high:
        start, first, stop = get(table, o), get(table, outputs + o), get(table, 2 * outputs + o)
        taps = ahead(source, (start + first * dilation) * length)
        run = 1
        if pitch == stride * length and get(axis, LOW) <= o < get(axis, HIGH):
            run = min(high, get(axis, HIGH)) - o
        whole, out = ((run - 1) * stride + 1) * length, ahead(target, (o - low) * pitch)
        _fold_taps(taps, dilation * length, stop - first, out, whole, operation, empty)
        o += run


@routine
def _fold_taps(
    source: Any, step: int, count: int, target: Any, length: int, operation: Operation, empty: Any
) -> None:
    """`count` vectors of `length` elements, `step` apart, into one."""
    if count <= 0:
        for i in range(length):
            put(target, i, empty)
        return
    if count == 1:
        for i in range(length):
            put(target, i, lift(get(source, i), target))
        return
    b = ahead(source, step)
    if count == 2:
        for i in range(length):
            put(
                target, i, combine(lift(get(b, i), target), lift(get(source, i), target), operation)
            )
        return
    c = ahead(b, step)
    for i in range(length):
        held = combine(lift(get(b, i), target), lift(get(source, i), target), operation)
        put(target, i, combine(lift(get(c, i), target), held, operation))
    for tap in range(3, count - 1, 2):
        b = ahead(source, tap * step)
        c = ahead(b, step)
        for i in range(length):
            held = combine(lift(get(b, i), target), get(target, i), operation)
            put(target, i, combine(lift(get(c, i), target), held, operation))
    if count > 3 and count % 2 == 0:
        b = ahead(source, (count - 1) * step)
        for i in range(length):
            put(target, i, combine(lift(get(b, i), target), get(target, i), operation))


@routine
def fold_rows(
    source: Any, pitch: int, target: Any, spare: Any, axis: Any, table: Any, rows: int,
    operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Rows of single elements, `pitch` apart, folded along their own axis."""
    size, outputs, count = get(axis, SIZE), get(axis, OUTPUTS), get(axis, KERNEL)
    stride, dilation, low, high = (
        get(axis, STRIDE),
        get(axis, DILATION),
        get(axis, LOW),
        get(axis, HIGH),
    )
    if low < high and outputs * stride == size == pitch:
        # All rows as one; the outputs whose taps wrap around are written anew below.
        length = (rows - 1) * outputs + high - low
        taps, inside = ahead(source, get(table, low)), ahead(target, low)
        _slide(taps, inside, length, stride, count, dilation, operation)
    elif outputs <= SHORT // 2 and low == 0 and high == outputs and pitch % stride == 0:
        # As one as well, but there are outputs between the rows, which are left behind.
        across = pitch // stride
        length = (rows - 1) * across + outputs
        _slide(ahead(source, get(table, 0)), spare, length, stride, count, dilation, operation)
        for row in range(rows):
            for o in range(outputs):
                put(target, row * outputs + o, get(spare, row * across + o))
        return
    elif low < high:
        for row in range(rows):
            taps = ahead(source, row * pitch + get(table, low))
            inside = ahead(target, row * outputs + low)
            _slide(taps, inside, high - low, stride, count, dilation, operation)
    _fold_each(source, pitch, target, table, outputs, 0, low, dilation, rows, operation, empty)
    _fold_each(
        source, pitch, target, table, outputs, high, outputs, dilation, rows, operation, empty
    )


@section
def _slide(
    taps: Any, target: Any, length: int, stride: int, count: int, dilation: int,
    operation: Operation,
) -> None:  # fmt: skip
    """Outputs whose taps are all on elements, by the loop that fits the window."""
    if dilation == 1 and stride == 2 and count == 2:
        _slide_window(taps, target, length, 2, 2, operation)
    elif dilation == 1 and stride == 2 and count == 3:
        _slide_window(taps, target, length, 2, 3, operation)
    elif dilation == 1 and stride == 1 and count == 3:
        _slide_window(taps, target, length, 1, 3, operation)
    elif dilation == 1 and stride == 1 and count == 5:
        _slide_window(taps, target, length, 1, 5, operation)
    elif dilation == 1 and stride == 4 and count == 4:
        _slide_window(taps, target, length, 4, 4, operation)
    elif stride == 1:
        _slide_taps(taps, target, length, 1, count, dilation, operation)
    elif stride == 2 and count < 2 * LONG:
        _slide_taps(taps, target, length, 2, count, dilation, operation)
    else:
        for i in range(length):
            window = ahead(taps, i * stride)
            if count < LONG:
                put(target, i, _fold_few(window, count, dilation, target, operation))
            else:
                put(target, i, _fold_many(window, count, dilation, target, operation))


@part
def _slide_window(
    source: Any, target: Any, length: int, stride: int, count: int, operation: Operation
) -> None:
    """Windows of neighbouring taps; `stride` and `count` are constants."""
    for i in range(length):
        held = lift(get(source, i * stride), target)
        for tap in range(1, count):
            held = combine(lift(get(source, i * stride + tap), target), held, operation)
        put(target, i, held)


@part
def _slide_taps(
    source: Any, target: Any, length: int, stride: int, count: int, dilation: int,
    operation: Operation,
) -> None:  # fmt: skip
    """Any windows, tap by tap; `stride` is a constant."""
    for i in range(length):
        put(target, i, lift(get(source, i * stride), target))
    for tap in range(1, count):
        taps = ahead(source, tap * dilation)
        for i in range(length):
            put(target, i, combine(lift(get(taps, i * stride), target), get(target, i), operation))


@part
def _fold_few(source: Any, count: int, dilation: int, target: Any, operation: Operation) -> Any:
    """One window of a few taps, all on elements."""
    held = lift(get(source, 0), target)
    for tap in range(1, count):
        held = combine(lift(get(source, tap * dilation), target), held, operation)
    return held


@routine
def _fold_many(source: Any, count: int, dilation: int, target: Any, operation: Operation) -> Any:
    """One window of many taps, all on elements."""
    if dilation != 1:
        return _fold_few(source, count, dilation, target, operation)
    held = lift(get(source, 0), target)
    for tap in range(1, count):
        held = combine_in_any_order(lift(get(source, tap), target), held, operation)
    return held


@part
def _fold_each(
    source: Any, pitch: int, target: Any, table: Any, outputs: int, low: int, high: int,
    dilation: int, rows: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Outputs `low` to `high` of all rows, each over the taps that it has on elements."""
    for o in range(low, high):
        start, first, stop = get(table, o), get(table, outputs + o), get(table, 2 * outputs + o)
        count, taps = stop - first, ahead(source, start + first * dilation)
        for row in range(rows):
            window, held = ahead(taps, row * pitch), empty
            if count >= LONG:
                held = _fold_many(window, count, dilation, target, operation)
            elif count > 0:
                held = _fold_few(window, count, dilation, target, operation)
            put(target, row * outputs + o, held)
