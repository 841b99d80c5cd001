"""Selection from one window, whose taps lie along one axis."""

from __future__ import annotations

from pooling_engine.backends.numba_backend.forward.candidates import (
    Candidates,
    has_numbers,
    number_at,
    put_candidate,
)
from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, ahead, get
from pooling_engine.backends.numba_backend.language.selection import (
    Operation,
    better_number,
    identity_of,
    is_better,
    selects_numbers,
)

MANY_TAPS = 8  # windows with as many are selected along their taps, in vectors
_BLOCK = 64  # taps that are searched at a time


@part
def select_one(
    source: Candidates,
    step: int,
    count: int,
    target: Candidates,
    first: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select one output from `count` taps, at least one, that are `step` apart.

    Args:
        first: number of the first of these taps along the axis.
        weight: weight of the axis in the number of a tap.
    """
    if count < MANY_TAPS:
        best, best_tap = get(source.values, 0), number_at(source, 0, first * weight)
        for number in range(1, count):
            value = get(source.values, number * step)
            tap = number_at(source, number * step, (first + number) * weight)
            is_new = is_better(value, best, operation)
            best, best_tap = pick(is_new, value, best), pick(is_new, tap, best_tap)
        put_candidate(target, 0, best, best_tap)
    elif step == 1:
        _select_neighbours(source, count, target, first, weight, operation)
    else:
        _select_apart(source, step, count, target, first, weight, operation)


@routine
def _select_neighbours(
    source: Candidates,
    count: int,
    target: Candidates,
    first: int,
    weight: int,
    operation: Operation,
) -> None:
    _select_many(source, 1, count, target, first, weight, operation)


@routine
def _select_apart(
    source: Candidates,
    step: int,
    count: int,
    target: Candidates,
    first: int,
    weight: int,
    operation: Operation,
) -> None:
    _select_many(source, step, count, target, first, weight, operation)


@part
def _select_many(
    source: Candidates,
    step: int,
    count: int,
    target: Candidates,
    first: int,
    weight: int,
    operation: Operation,
) -> None:
    """Select one output of many taps: compute the extreme in any order, then find its first tap."""
    values = source.values
    identity = identity_of(get(values, 0), operation)
    has_nan = _has(values, step, count, identity, True)
    is_nan_selected = has_nan and not selects_numbers(operation)
    best = identity
    if not has_nan:
        for number in range(count):
            best = better_number(get(values, number * step), best, operation)
    elif selects_numbers(operation):
        for number in range(count):
            value = get(values, number * step)
            best = better_number(pick(value == value, value, identity), best, operation)
    # An element with the value of `best` has its bits as well, unless it is a zero.
    is_known = not is_nan_selected and best != 0 and best != identity
    if is_known and not has_numbers(target):
        put_candidate(target, 0, best, 0)
        return
    number = 0
    while number + _BLOCK <= count and not _has(
        ahead(values, number * step), step, _BLOCK, best, is_nan_selected
    ):
        number += _BLOCK
    while number < count and not _has(ahead(values, number * step), step, 1, best, is_nan_selected):
        number += 1
    if number == count:  # NaNs only, none of which is selected over another
        number = 0
    tap = number_at(source, number * step, (first + number) * weight)
    put_candidate(target, 0, get(values, number * step), tap)


@part
def _has(values: Pointer, step: int, count: int, best: Element, is_nan: bool) -> bool:
    """Return whether an element is `best`, or a NaN."""
    found = False
    for number in range(count):
        value = get(values, number * step)
        found |= (value != value) if is_nan else (value == best)
    return found
