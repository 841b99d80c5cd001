"""Sums in float64 as elements of the output: divided, rounded once, in canonical form.

A sum is never -0.0, and has one bit pattern for NaN: the canonical form of zeros and NaNs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from pooling_engine.backends.numba_backend.language.arguments import ElementType
from pooling_engine.backends.numba_backend.language.division import divide_by, is_exact_inverse
from pooling_engine.backends.numba_backend.language.elements import float32_of, narrow, uint32_of
from pooling_engine.backends.numba_backend.language.jit import implements, part
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    convert,
    get,
    put,
)


@part
def _float32_to_odd(value: float) -> Element:
    """Round to float32 towards zero, and set the last bit if anything was cut off.

    Rounded again, to 16 bits, the result equals the value rounded to 16 bits once.
    """
    nearest = np.float32(value)
    back = np.float64(nearest)
    is_inexact = np.uint32((back != value) & (value == value))
    is_beyond = np.uint32(abs(back) > abs(value))
    return float32_of((uint32_of(nearest) - (is_inexact & is_beyond)) | is_inexact)


@part
def _round_to_16_bits(
    sums: Pointer, output: Pointer, count: int, scratch: Pointer, element: ElementType
) -> None:
    for i in range(count):
        put(scratch, i, _float32_to_odd(get(sums, i)))
    narrow(scratch, output, count, element)


@part
def _canonical_bits(value: Element, element: ElementType) -> Element:
    """Return the bits of a 16-bit float in canonical form."""
    infinity, nan = (0x7F80, 0x7FC0) if element.is_bfloat16 else (0x7C00, 0x7E00)
    bits = np.int32(value)
    magnitude = bits & 0x7FFF
    unsigned_zero = bits if magnitude else 0
    return np.uint16(nan if magnitude > infinity else unsigned_zero)


@part
def canonical(value: Element, nan: Element, zero: Element) -> Element:
    """Return a float in canonical form, from the NaN and the zero of its type."""
    value = value + zero  # -0.0 becomes 0.0
    return value if value == value else nan


def copy_canonical(values: Pointer, target: Pointer, count: int, element: ElementType) -> None:
    """Copy gradients in canonical form."""


@implements(copy_canonical)
def _copy_canonical(values: Any, target: Any, count: Any, element: Any) -> Any:
    if target.dtype == types.uint16:

        def copy_16_bits(values: Any, target: Any, count: Any, element: Any) -> None:
            for i in range(count):
                put(target, i, _canonical_bits(get(values, i), element))

        return copy_16_bits

    def copy_floats(values: Any, target: Any, count: Any, element: Any) -> None:
        nan, zero = convert(np.nan, target), convert(0.0, target)
        for i in range(count):
            put(target, i, canonical(get(values, i), nan, zero))

    return copy_floats


def divide_and_round(
    sums: Pointer,
    output: Pointer,
    divisor: float,
    count: int,
    scratch: Pointer,
    element: ElementType,
) -> None:
    """Divide float64 sums and round each quotient once, to the element type of the output.

    Args:
        sums: `count` sums; overwritten.
        output: the quotients, in canonical form.
        divisor: divisor of all sums.
        count: number of sums.
        scratch: room for `count` float32, used for 16-bit elements only.
        element: type of the elements.
    """


@implements(divide_and_round)
def _divide_and_round(
    sums: Any, output: Any, divisor: Any, count: Any, scratch: Any, element: Any
) -> Any:
    if output.dtype == types.uint16:

        def to_16_bits(
            sums: Any, output: Any, divisor: Any, count: Any, scratch: Any, element: Any
        ) -> None:
            divide_by(sums, sums, divisor, count)
            _round_to_16_bits(sums, output, count, scratch, element)
            copy_canonical(output, output, count, element)

        return to_16_bits

    def to_floats(
        sums: Any, output: Any, divisor: Any, count: Any, scratch: Any, element: Any
    ) -> None:
        nan, zero, inverse = convert(np.nan, output), convert(0.0, output), 1 / divisor
        if is_exact_inverse(divisor):
            for i in range(count):
                value = convert(get(sums, i) * inverse, output)
                put(output, i, canonical(value, nan, zero))
        else:
            for i in range(count):
                value = convert(get(sums, i) / divisor, output)
                put(output, i, canonical(value, nan, zero))

    return to_floats
