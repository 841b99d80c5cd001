"""NaNs and zeros of both signs among elements: with them, extremes depend on the order of taps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from pooling_engine.backends.numba_backend.language.arguments import ElementType
from pooling_engine.backends.numba_backend.language.elements import uint32_of, uint64_of
from pooling_engine.backends.numba_backend.language.jit import implements, part, section
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, get


def bits_of(value: Element) -> Any:
    """Return the bits of an element."""


@implements(bits_of)
def _bits_of(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: value
    if value == types.float32:
        return lambda value: uint32_of(value)
    return lambda value: uint64_of(value)


def sign_of(value: Element) -> Any:
    """Return the bits of -0.0 in the type of an element."""


@implements(sign_of)
def _sign_of(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: np.uint16(0x8000)
    if value == types.float32:
        return lambda value: np.uint32(0x80000000)
    return lambda value: np.uint64(0x8000000000000000)


def is_nan(value: Element, infinity: Element) -> bool:
    """Return whether an element is a NaN; `infinity` is that of 16-bit floats."""
    raise NotImplementedError


@implements(is_nan)
def _is_nan(value: Any, infinity: Any) -> Any:
    if value == types.uint16:
        return lambda value, infinity: np.uint16(value & np.uint16(0x7FFF)) > infinity
    return lambda value, infinity: value != value


def is_zero(value: Element) -> bool:
    """Return whether a number is a zero; an int16 is one of `../language/ordered.py`."""
    raise NotImplementedError


@implements(is_zero)
def _is_zero(value: Any) -> Any:
    if value == types.int16:
        return lambda value: (value == 0) | (value == -1)
    return lambda value: value == 0


@section
def infinity_of(element: ElementType) -> Element:
    """Return the bits of the infinity of a type of 16-bit floats."""
    return np.uint16(0x7F80) if element.is_bfloat16 else np.uint16(0x7C00)


@part
def special_values(values: Pointer, count: int, element: ElementType) -> tuple[bool, bool]:
    """Return whether elements have a NaN, and whether they have zeros of both signs."""
    has_nan, has_positive, has_negative = False, False, False
    infinity = infinity_of(element)
    for i in range(count):
        value = get(values, i)
        bits = bits_of(value)
        has_nan |= is_nan(value, infinity)
        has_positive |= bits == 0
        has_negative |= bits == sign_of(value)
    return has_nan, has_positive & has_negative


@part
def has_nan_element(values: Pointer, count: int, element: ElementType) -> bool:
    """Return whether any element is a NaN."""
    infinity = infinity_of(element)
    found = False
    for i in range(count):
        found |= is_nan(get(values, i), infinity)
    return found


@part
def has_zero(values: Pointer, count: int) -> bool:
    """Return whether any number is zero."""
    found = False
    for i in range(count):
        found |= is_zero(get(values, i))
    return found
