"""16-bit floats as signed integers in the order of their values; other elements as they are.

Integers of 16 bits need neither a conversion to float32 nor its memory. In their order, -0.0 is
below 0.0, and NaNs are beyond the infinities.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pooling_engine.backends.numba_backend.language.arguments import ElementType
from pooling_engine.backends.numba_backend.language.elements import narrow_float16, uint32_of
from pooling_engine.backends.numba_backend.language.jit import implements, part
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, Row, get, put


def _with_order(result: Any, given: Any) -> Any:
    """Return an intrinsic that inverts the lower bits of negative numbers."""

    @intrinsic
    def converted(typing: Any, value: Any) -> Any:
        def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            (bits,) = arguments
            sign = builder.ashr(bits, ir.Constant(bits.type, 15))
            return builder.xor(bits, builder.and_(sign, ir.Constant(bits.type, 0x7FFF)))

        return result(given), build

    return converted


_integer_of = _with_order(types.int16, types.uint16)
_bits_of = _with_order(types.uint16, types.int16)


class Nans(NamedTuple):
    """NaNs of 16 bits that are all alike, as integers beyond both infinities.

    Attributes:
        bits: their bits, or 0 if there are none.
        integer: what they are compared as.
        selected: bits of an output that is a NaN.
    """

    bits: Any
    integer: Any
    selected: Any


def load_ordered(source: Pointer, count: int, scratch: Pointer, nans: Nans) -> Any:
    """Return a pointer to `count` elements in the type that they are ordered in.

    Returns:
        `scratch`, which has room for as many int16, for 16-bit elements; else `source`.
    """


@implements(load_ordered)
def _load_ordered(source: Any, count: Any, scratch: Any, nans: Any) -> Any:
    if source.dtype != types.uint16:
        return lambda source, count, scratch, nans: source

    def converted(source: Any, count: Any, scratch: Any, nans: Any) -> Any:
        _order(source, scratch, count, nans)
        return scratch

    return converted


@part
def _order(source: Pointer, target: Pointer, count: int, nans: Nans) -> None:
    if nans.bits == 0:
        for i in range(count):
            put(target, i, _integer_of(get(source, i)))
        return
    for i in range(count):
        bits = get(source, i)
        put(target, i, pick(bits == nans.bits, nans.integer, _integer_of(bits)))


def store_ordered(target: Pointer, output: Pointer, count: int, nans: Nans) -> None:
    """Convert `count` integers in scratch to the elements of `output`; others are there."""


@implements(store_ordered)
def _store_ordered(target: Any, output: Any, count: Any, nans: Any) -> Any:
    if output.dtype != types.uint16:
        return lambda target, output, count, nans: None
    return lambda target, output, count, nans: _restore(target, output, count, nans)


@part
def _restore(source: Pointer, target: Pointer, count: int, nans: Nans) -> None:
    if nans.bits == 0:
        for i in range(count):
            put(target, i, _bits_of(get(source, i)))
        return
    for i in range(count):
        value = get(source, i)
        put(target, i, pick(value == nans.integer, nans.selected, _bits_of(value)))


def only_nan(values: Pointer, count: int, infinity: Element) -> Any:
    """Return the bits of the NaNs if elements have 16 bits and their NaNs are alike, else 0."""


@implements(only_nan)
def _only_nan_of(values: Any, count: Any, infinity: Any) -> Any:
    if values.dtype != types.uint16:
        return lambda values, count, infinity: np.uint16(0)
    return lambda values, count, infinity: _only_nan(values, count, infinity)


@part
def _only_nan(values: Pointer, count: int, infinity: Element) -> Element:
    none, every = np.uint16(0), np.uint16(0xFFFF)
    some_bits, all_bits = none, every  # of the NaNs; equal if they are alike
    for i in range(count):
        bits = get(values, i)
        found = np.uint16(bits & np.uint16(0x7FFF)) > infinity
        some_bits = np.uint16(some_bits | pick(found, bits, none))
        all_bits = np.uint16(all_bits & pick(found, bits, every))
    return some_bits if some_bits == all_bits else none


def ordered_scratch(row: Row, count: int, scratch: Any) -> Any:
    """Allocate `count` int16 if the elements of `row` have 16 bits; else return `scratch`."""


@implements(ordered_scratch)
def _ordered_scratch(row: Any, count: Any, scratch: Any) -> Any:
    if row.dtype != types.uint16:
        return lambda row, count, scratch: scratch
    return lambda row, count, scratch: np.empty(count, np.int16)


def ordered_number(value: Element, row: Row, element: ElementType) -> Any:
    """Return a number, not a NaN, in the type that the elements of `row` are ordered in."""


@implements(ordered_number)
def _ordered_number(value: Any, row: Any, element: Any) -> Any:
    if row.dtype != types.uint16:
        return lambda value, row, element: value

    def integer(value: Any, row: Any, element: Any) -> Any:
        upper = np.uint16(uint32_of(value) >> np.uint32(16))
        return _integer_of(upper if element.is_bfloat16 else narrow_float16(value))

    return integer
