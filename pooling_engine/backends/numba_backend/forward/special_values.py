"""NaN and signed-zero tests: with such inputs, max and min depend on the order of the taps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from pooling_engine.backends.numba_backend.language.elements import uint32_of, uint64_of
from pooling_engine.backends.numba_backend.language.jit import implements, part
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, get


def is_negative_zero(value: Element) -> Any:
    """Return whether an element is -0.0."""


@implements(is_negative_zero)
def _is_negative_zero(value: Any) -> Any:
    if value == types.float32:
        return lambda value: uint32_of(value) == np.uint32(0x80000000)
    return lambda value: uint64_of(value) == np.uint64(0x8000000000000000)


@part
def has_negative_zero(values: Pointer, count: int) -> bool:
    """Return whether any element is -0.0."""
    found = False
    for i in range(count):
        found |= is_negative_zero(get(values, i))
    return found


@part
def has_zero(values: Pointer, count: int) -> bool:
    """Return whether any element is zero."""
    found = False
    for i in range(count):
        found |= get(values, i) == 0
    return found


@part
def has_nan(values: Pointer, count: int) -> bool:
    """Return whether any element is a NaN."""
    found = False
    for i in range(count):
        found |= get(values, i) != get(values, i)
    return found
