"""Selection along one axis: extremes, and beside each the number of its tap in the window."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_axis import MANY_TAPS
from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.jit import part, routine, section
from pooling_engine.backends.numba_backend.language.operations import (
    Operation,
    combine_in_any_order,
    is_better,
    pick,
)
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    ahead,
    get,
    put,
)

NO_TAP = 1 << 30  # number of the tap if none is on an element; there are at most 65,535 taps


class Selected(NamedTuple):
    """Pointers to extremes, and to the numbers of their taps."""

    values: Pointer
    taps: Pointer


@part
def selected_ahead(selected: Selected, count: int) -> Selected:
    """Return the pointers `count` elements further on."""
    return Selected(ahead(selected.values, count), ahead(selected.taps, count))


@part
def _put(target: Selected, index: int, value: Element, tap: np.int32) -> None:
    put(target.values, index, value)
    put(target.taps, index, tap)


@part
def _put_none(target: Selected, length: int, operation: Operation) -> None:
    for i in range(length):
        _put(target, i, operation.identity, np.int32(NO_TAP))


@part
def _select_elements(
    source: Pointer,
    step: int,
    target: Selected,
    first: int,
    weight: int,
    length: int,
    count: int,
    is_begun: bool,
    operation: Operation,
) -> None:
    """Select from `count` vectors of elements, `step` apart; `count` and `is_begun` are constants.

    Args:
        first: number of the first of these taps along the axis.
        weight: weight of the axis in the number of a tap.
        is_begun: whether `target` has the extremes of earlier taps.
    """
    for i in range(length):
        best, best_tap = get(source, i), np.int32(first * weight)
        if is_begun:
            is_new = is_better(best, get(target.values, i), operation)
            best = pick(is_new, best, get(target.values, i))
            best_tap = pick(is_new, best_tap, get(target.taps, i))
        for tap in range(1, count):
            value = get(source, i + tap * step)
            is_new = is_better(value, best, operation)
            best = pick(is_new, value, best)
            best_tap = pick(is_new, np.int32((first + tap) * weight), best_tap)
        _put(target, i, best, best_tap)


@routine
def select_from_elements(
    source: Pointer,
    step: int,
    count: int,
    target: Selected,
    first: int,
    weight: int,
    length: int,
    operation: Operation,
) -> None:
    """Select one output of the first axis from `count` vectors of `length` elements.

    Args:
        step: distance between the vectors.
        first: number of the first of these taps along the axis.
        weight: weight of the axis in the number of a tap.
    """
    if count <= 0:
        _put_none(target, length, operation)
        return
    if count == 1:
        _select_elements(source, step, target, first, weight, length, 1, False, operation)
    elif count == 2:
        _select_elements(source, step, target, first, weight, length, 2, False, operation)
    else:
        _select_elements(source, step, target, first, weight, length, 3, False, operation)
    for tap in range(3, count):
        taps = ahead(source, tap * step)
        _select_elements(taps, step, target, first + tap, weight, length, 1, True, operation)


@part
def _is_selected(
    value: Element, tap: np.int32, best: Element, best_tap: np.int32, operation: Operation
) -> bool:
    """Return whether an element is selected over the best so far."""
    return is_better(value, best, operation) | ((value == best) & (tap < best_tap))


@section
def _tap_at(source: Selected, index: int, number: int, weight: int) -> np.int32:
    """Return the number of the tap of an element, if it is tap `number` along this axis."""
    # As a `part`, it made LLVM peel the first iteration off the loops that call it: rows of 64
    # channels took 1.4 times as long.
    return np.int32(get(source.taps, index) + np.int32(number * weight))


@part
def _select_window(
    source: Selected,
    step: int,
    target: Selected,
    first: int,
    weight: int,
    length: int,
    stride: int,
    count: int,
    is_begun: bool,
    operation: Operation,
) -> None:
    """Select outputs of a later axis, whose `count` taps are `step` apart.

    The stride, the count and `is_begun` are constants; other arguments as in `_select_elements`.
    """
    for i in range(length):
        best, best_tap = get(source.values, i * stride), _tap_at(source, i * stride, first, weight)
        if is_begun:
            before, tap_before = get(target.values, i), get(target.taps, i)
            is_new = _is_selected(best, best_tap, before, tap_before, operation)
            best, best_tap = pick(is_new, best, before), pick(is_new, best_tap, tap_before)
        for number in range(1, count):
            at = i * stride + number * step
            value, tap = get(source.values, at), _tap_at(source, at, first + number, weight)
            is_new = _is_selected(value, tap, best, best_tap, operation)
            best, best_tap = pick(is_new, value, best), pick(is_new, tap, best_tap)
        _put(target, i, best, best_tap)


@routine
def select_vectors(
    source: Selected,
    step: int,
    count: int,
    target: Selected,
    first: int,
    weight: int,
    length: int,
    operation: Operation,
) -> None:
    """Select neighbouring outputs of a later axis from `count` vectors of `length` elements.

    Args:
        step: distance between the vectors.
        first: number of the first of these taps along the axis.
        weight: weight of the axis in the number of a tap.
    """
    if count <= 0:
        _put_none(target, length, operation)
        return
    if count == 1:
        _select_window(source, step, target, first, weight, length, 1, 1, False, operation)
    elif count == 2:
        _select_window(source, step, target, first, weight, length, 1, 2, False, operation)
    else:
        _select_window(source, step, target, first, weight, length, 1, 3, False, operation)
    for tap in range(3, count):
        taps = selected_ahead(source, tap * step)
        _select_window(taps, step, target, first + tap, weight, length, 1, 1, True, operation)


@part
def _select_few(
    source: Selected,
    step: int,
    count: int,
    target: Selected,
    first: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select one output of a few taps."""
    best, best_tap = get(source.values, 0), _tap_at(source, 0, first, weight)
    for number in range(1, count):
        value = get(source.values, number * step)
        tap = _tap_at(source, number * step, first + number, weight)
        is_new = _is_selected(value, tap, best, best_tap, operation)
        best, best_tap = pick(is_new, value, best), pick(is_new, tap, best_tap)
    _put(target, 0, best, best_tap)


@routine
def _select_many(
    source: Selected,
    step: int,
    count: int,
    target: Selected,
    first: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select one output of many taps: its extreme, then the lowest number of a tap with it."""
    best = get(source.values, 0)
    if step == 1:
        for number in range(1, count):
            best = combine_in_any_order(get(source.values, number), best, operation)
    else:
        for number in range(1, count):
            best = combine_in_any_order(get(source.values, number * step), best, operation)
    lowest = np.int32(NO_TAP)
    for number in range(count):
        tap = _tap_at(source, number * step, first + number, weight)
        is_best = get(source.values, number * step) == best
        lowest = min(lowest, pick(is_best, tap, np.int32(NO_TAP)))
    put(target.taps, 0, lowest)
    for number in range(count):  # zeros of both signs are equal: take the one of that tap
        if get(source.taps, number * step) + (first + number) * weight == lowest:
            put(target.values, 0, get(source.values, number * step))
            return


@part
def select_run(
    source: Selected,
    axis: AxisRow,
    target: Selected,
    length: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select single outputs whose taps are all on elements, in the loop for the window."""
    taps, stride, step = axis.taps, axis.stride, axis.dilation
    if stride == 2 and taps == 2:
        _select_window(source, step, target, 0, weight, length, 2, 2, False, operation)
    elif stride == 2 and taps == 3:
        _select_window(source, step, target, 0, weight, length, 2, 3, False, operation)
    elif stride == 4 and taps == 4:
        _select_window(source, step, target, 0, weight, length, 4, 4, False, operation)
    elif stride == 1 and taps < MANY_TAPS:
        select_vectors(source, step, taps, target, 0, weight, length, operation)
    else:
        for i in range(length):
            window, output = selected_ahead(source, i * stride), selected_ahead(target, i)
            select_one(window, step, taps, output, 0, weight, operation)


@part
def select_one(
    source: Selected,
    step: int,
    count: int,
    target: Selected,
    first: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select one output of any number of taps."""
    if count < MANY_TAPS:
        _select_few(source, step, count, target, first, weight, operation)
    else:
        _select_many(source, step, count, target, first, weight, operation)
