"""NaNs and zeros of both signs among elements: with them, extremes depend on the order of taps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from pooling_engine.backends.numba_backend.language.elements import uint32_of, uint64_of
from pooling_engine.backends.numba_backend.language.jit import implements, part
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, get


def bits_of(value: Element) -> Any:
    """Return the bits of an element."""


@implements(bits_of)
def _bits_of(value: Any) -> Any:
    if value == types.float32:
        return lambda value: uint32_of(value)
    return lambda value: uint64_of(value)


def sign_of(value: Element) -> Any:
    """Return the bits of -0.0 in the type of an element."""


@implements(sign_of)
def _sign_of(value: Any) -> Any:
    if value == types.float32:
        return lambda value: np.uint32(0x80000000)
    return lambda value: np.uint64(0x8000000000000000)


@part
def special_values(values: Pointer, count: int) -> tuple[bool, bool]:
    """Return whether elements have a NaN, and whether they have zeros of both signs."""
    has_nan, has_positive, has_negative = False, False, False
    for i in range(count):
        value = get(values, i)
        bits = bits_of(value)
        has_nan |= value != value
        has_positive |= bits == 0
        has_negative |= bits == sign_of(value)
    return has_nan, has_positive & has_negative


@part
def has_zero(values: Pointer, count: int) -> bool:
    """Return whether any element is zero."""
    found = False
    for i in range(count):
        found |= get(values, i) == 0
    return found
