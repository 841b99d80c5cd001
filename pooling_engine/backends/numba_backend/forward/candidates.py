"""Extremes in scratch or in the output, with or without the numbers of their taps.

The same loops select both: without numbers, the compiler drops all that computes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.language.jit import implements, part
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    ahead,
    get,
    put,
)

NO_TAP = 1 << 30  # number of the tap if none is on an element; windows have fewer taps


class Extremes(NamedTuple):
    """Pointer to extremes, or to elements of the input."""

    values: Pointer


class Numbered(NamedTuple):
    """Pointers to extremes, and to the numbers of their taps."""

    values: Pointer
    taps: Pointer


Candidates = Extremes | Numbered


def further(candidates: Candidates, count: int) -> Any:
    """Return the candidates `count` further on."""


@implements(further)
def _further(candidates: Any, count: Any) -> Any:
    if candidates.instance_class is Extremes:
        return lambda candidates, count: Extremes(ahead(candidates.values, count))
    return lambda candidates, count: Numbered(
        ahead(candidates.values, count), ahead(candidates.taps, count)
    )


def number_at(candidates: Candidates, index: int, number: int) -> Any:
    """Return the number of a candidate's tap, which is tap `number` along a further axis."""


@implements(number_at)
def _number_at(candidates: Any, index: Any, number: Any) -> Any:
    if candidates.instance_class is Extremes:
        return lambda candidates, index, number: np.int32(number)
    return lambda candidates, index, number: np.int32(
        get(candidates.taps, index) + np.int32(number)
    )


def put_candidate(target: Candidates, index: int, value: Element, tap: Element) -> None:
    """Write one extreme and the number of its tap."""


@implements(put_candidate)
def _put_candidate(target: Any, index: Any, value: Any, tap: Any) -> Any:
    if target.instance_class is Extremes:
        return lambda target, index, value, tap: put(target.values, index, value)

    def both(target: Any, index: Any, value: Any, tap: Any) -> None:
        put(target.values, index, value)
        put(target.taps, index, tap)

    return both


def has_numbers(candidates: Candidates) -> bool:
    """Return whether the candidates have numbers."""
    raise NotImplementedError


@implements(has_numbers)
def _has_numbers(candidates: Any) -> Any:
    if candidates.instance_class is Numbered:
        return lambda candidates: True
    return lambda candidates: False


@part
def copy(source: Candidates, target: Candidates, count: int) -> None:
    """Copy candidates to memory that does not overlap theirs."""
    for i in range(count):
        put_candidate(target, i, get(source.values, i), number_at(source, i, 0))


def of_kind(candidates: Candidates, memory: Candidates) -> Any:
    """Return memory for candidates of the kind of others: with numbers, or without."""


@implements(of_kind)
def _of_kind(candidates: Any, memory: Any) -> Any:
    if candidates.instance_class is Extremes:
        return lambda candidates, memory: Extremes(memory.values)
    return lambda candidates, memory: memory
