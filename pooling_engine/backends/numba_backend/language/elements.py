"""Elements and the types that kernels compute them in.

float16 and bfloat16 arrive as arrays of uint16, a type that no tensor has, and are computed in
float32; `ElementType.is_bfloat16` tells them apart. Other elements are computed in their own type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pooling_engine.backends.numba_backend.language.arguments import ElementType
from pooling_engine.backends.numba_backend.language.jit import implements, part
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    get,
    put,
)


def _bit_cast(target: Any, source: Any, to: Any) -> Any:
    """Return an intrinsic that reads the bits of one type as another."""

    @intrinsic
    def cast(typing: Any, value: Any) -> Any:
        def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return builder.bitcast(arguments[0], to)

        return target(source), build

    return cast


float32_of = _bit_cast(types.float32, types.uint32, ir.FloatType())
uint32_of = _bit_cast(types.uint32, types.float32, ir.IntType(32))
uint64_of = _bit_cast(types.uint64, types.float64, ir.IntType(64))


@intrinsic
def widen_float16(typing: Any, bits: Any) -> Any:
    """Convert float16 to float32, exactly."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def narrow_float16(typing: Any, value: Any) -> Any:
    """Convert float32 to float16, rounded to the nearest."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), build


@part
def _widen_bfloat16(bits: Element) -> Element:
    return float32_of(np.uint32(bits) << np.uint32(16))


@part
def _narrow_bfloat16(value: Element) -> Element:
    bits = uint32_of(value)
    upper = bits >> np.uint32(16)
    rounded = np.uint16((bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16))
    quiet = np.uint16((upper & np.uint32(0x8000)) | np.uint32(0x7FC0))
    return rounded if value == value else quiet


@part
def _widen(bits: Pointer, target: Pointer, count: int, element: ElementType) -> None:
    """Convert 16-bit floats to float32."""
    if element.is_bfloat16:
        for i in range(count):
            put(target, i, _widen_bfloat16(get(bits, i)))
    else:
        for i in range(count):
            put(target, i, widen_float16(get(bits, i)))


@part
def narrow(values: Pointer, bits: Pointer, count: int, element: ElementType) -> None:
    """Convert float32 to 16-bit floats, rounded to the nearest."""
    if element.is_bfloat16:
        for i in range(count):
            put(bits, i, _narrow_bfloat16(get(values, i)))
    else:
        for i in range(count):
            put(bits, i, narrow_float16(get(values, i)))


def scratch_for(value: Element, count: int) -> Any:
    """Allocate an uninitialised array of `count` elements of the type of `value`."""


@implements(scratch_for)
def _scratch_for(value: Any, count: Any) -> Any:
    dtype = value
    return lambda value, count: np.empty(count, dtype)


def load(source: Pointer, count: int, scratch: Pointer, element: ElementType) -> Any:
    """Return a pointer to `count` elements in the type that they are computed in.

    Args:
        source: the elements as they are in the tensor.
        count: number of elements.
        scratch: room for `count` float32, used for 16-bit elements only.
        element: type of the elements.

    Returns:
        `scratch` for 16-bit elements, else `source`.
    """


@implements(load)
def _load(source: Any, count: Any, scratch: Any, element: Any) -> Any:
    if source.dtype != types.uint16:
        return lambda source, count, scratch, element: source

    def widened(source: Any, count: Any, scratch: Any, element: Any) -> Any:
        _widen(source, scratch, count, element)
        return scratch

    return widened


def target_for(output: Pointer, scratch: Pointer) -> Any:
    """Return where to compute results for `output`: there, or in scratch for 16-bit elements."""


@implements(target_for)
def _target_for(output: Any, scratch: Any) -> Any:
    if output.dtype != types.uint16:
        return lambda output, scratch: output
    return lambda output, scratch: scratch


def store(target: Pointer, output: Pointer, count: int, element: ElementType) -> None:
    """Convert `count` results in `target_for(output, ...)` to the elements of `output`."""


@implements(store)
def _store(target: Any, output: Any, count: Any, element: Any) -> Any:
    if output.dtype != types.uint16:
        return lambda target, output, count, element: None
    return lambda target, output, count, element: narrow(target, output, count, element)
