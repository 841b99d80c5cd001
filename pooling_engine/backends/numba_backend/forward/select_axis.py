"""Folds that keep the number of the tap beside its element: of vectors, and along rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_axis import LONG
from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.operations import (
    Operation,
    combine_in_any_order,
    is_better,
    pick,
)
from pooling_engine.backends.numba_backend.language.pointers import ahead, get, put
from pooling_engine.backends.numba_backend.tables.axes import DILATION, KERNEL, STRIDE

NONE = 1 << 30  # the number where no tap is on an element; there are at most 65,535 taps


@part
def _put_none(values: Any, numbers: Any, length: int, empty: Any) -> None:
    for i in range(length):
        put(values, i, empty)
        put(numbers, i, np.int32(NONE))


@part
def _number(source: Any, step: int, values: Any, numbers: Any, first: int, weight: int,
    length: int, count: int, is_begun: bool, operation: Operation,
) -> None:  # fmt: skip
    """`count` vectors, `step` apart, of the first axis; `count` and `is_begun` are constants.

    Args:
        first: the number of the first tap along the axis.
        weight: of the axis in the number of a tap.
        is_begun: whether values and numbers hold the extremes of earlier taps.
    """
    for i in range(length):
        held, at = get(source, i), np.int32(first * weight)
        if is_begun:
            is_new = is_better(held, get(values, i), operation)
            held = pick(is_new, held, get(values, i))
            at = pick(is_new, at, get(numbers, i))
        for tap in range(1, count):
            value = get(source, i + tap * step)
            is_new = is_better(value, held, operation)
            held = pick(is_new, value, held)
            at = pick(is_new, np.int32((first + tap) * weight), at)
        put(values, i, held)
        put(numbers, i, at)


@routine
def number_taps(
    source: Any, step: int, count: int, values: Any, numbers: Any, first: int, weight: int,
    length: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """One output of the first axis: `count` vectors of `length` elements, `step` apart."""
    if count <= 0:
        _put_none(values, numbers, length, empty)
        return
    if count == 1:
        _number(source, step, values, numbers, first, weight, length, 1, False, operation)
    elif count == 2:
        _number(source, step, values, numbers, first, weight, length, 2, False, operation)
    else:
        _number(source, step, values, numbers, first, weight, length, 3, False, operation)
    for tap in range(3, count):
        taps = ahead(source, tap * step)
        _number(taps, step, values, numbers, first + tap, weight, length, 1, True, operation)


@part
def _is_chosen(value: Any, number: Any, held: Any, at: Any, operation: Operation) -> Any:
    """Whether an element is chosen over the one held, whose number is `at`."""
    return is_better(value, held, operation) | ((value == held) & (number < at))


@part
def _choose_window(
    source: Any, tags: Any, step: int, values: Any, numbers: Any, first: int, weight: int,
    length: int, stride: int, count: int, is_begun: bool, operation: Operation,
) -> None:  # fmt: skip
    """Outputs of a later axis: elements `stride` apart, their `count` taps `step` apart.

    The stride, the count and `is_begun` are constants; the others are as in `_number`.
    """
    for i in range(length):
        held = get(source, i * stride)
        at = np.int32(get(tags, i * stride) + np.int32(first * weight))
        if is_begun:
            before, number = get(values, i), get(numbers, i)
            is_new = _is_chosen(held, at, before, number, operation)
            held, at = pick(is_new, held, before), pick(is_new, at, number)
        for tap in range(1, count):
            value = get(source, i * stride + tap * step)
            number = get(tags, i * stride + tap * step)
            number = np.int32(number + np.int32((first + tap) * weight))
            is_new = _is_chosen(value, number, held, at, operation)
            held, at = pick(is_new, value, held), pick(is_new, number, at)
        put(values, i, held)
        put(numbers, i, at)


@routine
def choose_taps(
    source: Any, tags: Any, step: int, count: int, values: Any, numbers: Any, first: int,
    weight: int, length: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Outputs of a later axis side by side: `count` vectors of `length` elements, `step` apart."""
    if count <= 0:
        _put_none(values, numbers, length, empty)
        return
    if count == 1:
        _choose_window(
            source, tags, step, values, numbers, first, weight, length, 1, 1, False, operation
        )
    elif count == 2:
        _choose_window(
            source, tags, step, values, numbers, first, weight, length, 1, 2, False, operation
        )
    else:
        _choose_window(
            source, tags, step, values, numbers, first, weight, length, 1, 3, False, operation
        )
    for tap in range(3, count):
        _choose_window(
            ahead(source, tap * step), ahead(tags, tap * step), step, values, numbers, first + tap,
            weight, length, 1, 1, True, operation,
        )  # fmt: skip


@part
def _choose_few(
    source: Any, tags: Any, step: int, count: int, values: Any, numbers: Any, first: int,
    weight: int, operation: Operation,
) -> None:  # fmt: skip
    """One output of a few taps."""
    held, at = get(source, 0), np.int32(get(tags, 0) + np.int32(first * weight))
    for tap in range(1, count):
        value = get(source, tap * step)
        number = np.int32(get(tags, tap * step) + np.int32((first + tap) * weight))
        is_new = _is_chosen(value, number, held, at, operation)
        held, at = pick(is_new, value, held), pick(is_new, number, at)
    put(values, 0, held)
    put(numbers, 0, at)


@routine
def _choose_many(
    source: Any, tags: Any, step: int, count: int, value: Any, number: Any, first: int,
    weight: int, operation: Operation,
) -> None:  # fmt: skip
    """One output of many taps, `step` apart: its extreme, then the lowest number that has it."""
    best = get(source, 0)
    if step == 1:
        for tap in range(1, count):
            best = combine_in_any_order(get(source, tap), best, operation)
    else:
        for tap in range(1, count):
            best = combine_in_any_order(get(source, tap * step), best, operation)
    lowest = np.int32(NONE)
    for tap in range(count):
        tag = np.int32(get(tags, tap * step) + np.int32((first + tap) * weight))
        lowest = min(lowest, pick(get(source, tap * step) == best, tag, np.int32(NONE)))
    put(number, 0, lowest)
    for tap in range(count):  # zeros of both signs are equal: the one that has the number
        if get(tags, tap * step) + (first + tap) * weight == lowest:
            put(value, 0, get(source, tap * step))
            return


@part
def choose_run(
    source: Any, tags: Any, axis: Any, values: Any, numbers: Any, length: int, weight: int,
    operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Single elements whose taps are all on elements, by the loop that fits the window."""
    count, stride, step = get(axis, KERNEL), get(axis, STRIDE), get(axis, DILATION)
    if stride == 2 and count == 2:
        _choose_window(
            source, tags, step, values, numbers, 0, weight, length, 2, 2, False, operation
        )
    elif stride == 2 and count == 3:
        _choose_window(
            source, tags, step, values, numbers, 0, weight, length, 2, 3, False, operation
        )
    elif stride == 4 and count == 4:
        _choose_window(
            source, tags, step, values, numbers, 0, weight, length, 4, 4, False, operation
        )
    elif stride == 1 and count < LONG:
        choose_taps(source, tags, step, count, values, numbers, 0, weight, length, operation, empty)
    else:
        for i in range(length):
            choose_one(
                ahead(source, i * stride), ahead(tags, i * stride), step, count, ahead(values, i),
                ahead(numbers, i), 0, weight, operation,
            )  # fmt: skip


@part
def choose_one(
    source: Any, tags: Any, step: int, count: int, values: Any, numbers: Any, first: int,
    weight: int, operation: Operation,
) -> None:  # fmt: skip
    """One output of any number of taps."""
    if count < LONG:
        _choose_few(source, tags, step, count, values, numbers, first, weight, operation)
    else:
        _choose_many(source, tags, step, count, values, numbers, first, weight, operation)
