"""Elements that are selected, not computed: every bit is kept, also that of a signalling NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from pooling_engine.backends.numba_backend.language.arguments import ElementType
from pooling_engine.backends.numba_backend.language.elements import (
    float32_of,
    narrow_float16,
    uint32_of,
    widen_float16,
)
from pooling_engine.backends.numba_backend.language.jit import implements, part
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, get, put

_SIGN, _REST = np.uint32(0x8000), np.uint32(0x7FFF)


@part
def _exactly_widened(bits: Element) -> Element:
    """Convert float16 to float32; the bits of a NaN become the upper bits of one."""
    wide = np.uint32(bits)
    nan = ((wide & _SIGN) << np.uint32(16)) | np.uint32(0x7F800000)
    nan |= (wide & np.uint32(0x3FF)) << np.uint32(13)
    return float32_of(nan) if (wide & _REST) > np.uint32(0x7C00) else widen_float16(bits)


@part
def _exactly_narrowed(value: Element) -> Element:
    """Convert float32 from `_exactly_widened` to float16."""
    wide = uint32_of(value)
    nan = ((wide >> np.uint32(16)) & _SIGN) | np.uint32(0x7C00)
    nan |= (wide >> np.uint32(13)) & np.uint32(0x3FF)
    return narrow_float16(value) if value == value else np.uint16(nan)


def load_exactly(source: Pointer, count: int, scratch: Pointer, element: ElementType) -> Any:
    """Return a pointer to elements in the type that they are compared in; see `load`."""


@implements(load_exactly)
def _load_exactly(source: Any, count: Any, scratch: Any, element: Any) -> Any:
    if source.dtype != types.uint16:
        return lambda source, count, scratch, element: source

    def widened(source: Any, count: Any, scratch: Any, element: Any) -> Any:
        if element.is_bfloat16:
            for i in range(count):
                put(scratch, i, float32_of(np.uint32(get(source, i)) << np.uint32(16)))
        elif _widen(source, scratch, count):
            for i in range(count):
                put(scratch, i, _exactly_widened(get(source, i)))
        return scratch

    return widened


@part
def _widen(source: Pointer, target: Pointer, count: int) -> bool:
    """Convert float16 to float32, and return whether an element is a signalling NaN.

    The processor makes it a quiet one, and keeps the bits of all others.
    """
    found = False
    for i in range(count):
        bits = get(source, i)
        found |= bool(np.uint16((bits & np.uint16(0x7FFF)) - np.uint16(0x7C01)) < np.uint16(0x1FF))
        put(target, i, widen_float16(bits))
    return found


def store_exactly(target: Pointer, output: Pointer, count: int, element: ElementType) -> None:
    """Convert `count` selected elements in `target_for(output, ...)` to those of `output`."""


@implements(store_exactly)
def _store_exactly(target: Any, output: Any, count: Any, element: Any) -> Any:
    if output.dtype != types.uint16:
        return lambda target, output, count, element: None

    def narrowed(target: Any, output: Any, count: Any, element: Any) -> None:
        if element.is_bfloat16:
            for i in range(count):
                put(output, i, np.uint16(uint32_of(get(target, i)) >> np.uint32(16)))
        elif _narrow(target, output, count):
            for i in range(count):
                put(output, i, _exactly_narrowed(get(target, i)))

    return narrowed


@part
def _narrow(values: Pointer, target: Pointer, count: int) -> bool:
    """Convert float32 to float16, and return whether a value is a signalling NaN."""
    found = False
    for i in range(count):
        value = get(values, i)
        rest = np.uint32((uint32_of(value) & np.uint32(0x7FFFFFFF)) - np.uint32(0x7F800001))
        found |= bool(rest < np.uint32(0x3FFFFF))
        put(target, i, narrow_float16(value))
    return found
