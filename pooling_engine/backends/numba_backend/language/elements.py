"""Element types: what a kernel computes in, and how 16-bit floats get there and back.

float16 and bfloat16 arrive as arrays of uint16, a type that no tensor has, and are computed in
float32; the flag `is_brain` says which of the two they are. Every other type is its own.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from pooling_engine.backends.numba_backend.language.jit import part
from pooling_engine.backends.numba_backend.language.pointers import get, lift, put

implements = partial(overload, inline="always", strict=False)


def _bit_cast(target: Any, source: Any, to: Any) -> Any:
    """An intrinsic that reads the bits of one type as another."""

    @intrinsic
    def cast(typing: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], to)

        return target(source), build

    return cast


float32_of = _bit_cast(types.float32, types.uint32, ir.FloatType())
uint32_of = _bit_cast(types.uint32, types.float32, ir.IntType(32))
uint64_of = _bit_cast(types.uint64, types.float64, ir.IntType(64))


@intrinsic
def _widen_half(typing: Any, bits: Any) -> Any:
    """float16 to float32, exactly."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def _narrow_half(typing: Any, value: Any) -> Any:
    """float32 to float16, to the nearest."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), build


@part
def _widen_brain(bits: Any) -> Any:
    return float32_of(np.uint32(bits) << np.uint32(16))


@part
def _narrow_brain(value: Any) -> Any:
    bits = uint32_of(value)
    upper = bits >> np.uint32(16)
    rounded = np.uint16((bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16))
    quiet = np.uint16((upper & np.uint32(0x8000)) | np.uint32(0x7FC0))
    return rounded if value == value else quiet


@part
def widen(bits: Any, wide: Any, count: int, is_brain: bool) -> None:
    """16-bit floats as float32."""
    if is_brain:
        for i in range(count):
            put(wide, i, _widen_brain(get(bits, i)))
    else:
        for i in range(count):
            put(wide, i, _widen_half(get(bits, i)))


@part
def narrow(wide: Any, bits: Any, count: int, is_brain: bool) -> None:
    """float32 as 16-bit floats, to the nearest."""
    if is_brain:
        for i in range(count):
            put(bits, i, _narrow_brain(get(wide, i)))
    else:
        for i in range(count):
            put(bits, i, _narrow_half(get(wide, i)))


def scratch_for(value: Any, count: int) -> Any:
    """An uninitialised array of `count` elements of the type of `value`."""


@implements(scratch_for)
def _scratch_for(value: Any, count: Any) -> Any:
    dtype = value
    return lambda value, count: np.empty(count, dtype)


def loaded(source: Any, count: int, scratch: Any, is_brain: bool) -> Any:
    """`count` elements in the type that they are computed in: where they are, or in scratch."""


@implements(loaded)
def _loaded(source: Any, count: Any, scratch: Any, is_brain: Any) -> Any:
    if source.dtype != types.uint16:
        return lambda source, count, scratch, is_brain: source

    def widened(source: Any, count: Any, scratch: Any, is_brain: Any) -> Any:
        widen(source, scratch, count, is_brain)
        return scratch

    return widened


def target_for(output: Any, scratch: Any) -> Any:
    """Where to compute what belongs into `output`: there, or in scratch if types differ."""


@implements(target_for)
def _target_for(output: Any, scratch: Any) -> Any:
    if output.dtype != types.uint16:
        return lambda output, scratch: output
    return lambda output, scratch: scratch


def stored(scratch: Any, output: Any, count: int, is_brain: bool) -> None:
    """Puts what was computed in scratch into `output`, unless it is there already."""


@implements(stored)
def _stored(scratch: Any, output: Any, count: Any, is_brain: Any) -> Any:
    if output.dtype != types.uint16:
        return lambda scratch, output, count, is_brain: None
    return lambda scratch, output, count, is_brain: narrow(scratch, output, count, is_brain)


@part
def _float32_to_odd(value: Any) -> Any:
    """Rounded towards zero, and with a last bit of 1 where anything was cut off.

    Rounded again, to 16 bits, that gives what rounding once would have given.
    """
    nearest = np.float32(value)
    back = np.float64(nearest)
    is_inexact = np.uint32((back != value) & (value == value))
    is_beyond = np.uint32(abs(back) > abs(value))
    return float32_of((uint32_of(nearest) - (is_inexact & is_beyond)) | is_inexact)


def rounded(values: Any, output: Any, count: int, scratch: Any, is_brain: bool) -> None:
    """float64 sums in the type of the output, rounded once.

    Args:
        scratch: room for `count` float32, used where the output has 16 bits.
    """


@implements(rounded)
def _rounded(values: Any, output: Any, count: Any, scratch: Any, is_brain: Any) -> Any:
    if output.dtype != types.uint16:

        def cast(values: Any, output: Any, count: Any, scratch: Any, is_brain: Any) -> None:
            for i in range(count):
                put(output, i, lift(get(values, i), output))

        return cast

    def twice(values: Any, output: Any, count: Any, scratch: Any, is_brain: Any) -> None:
        for i in range(count):
            put(scratch, i, _float32_to_odd(get(values, i)))
        narrow(scratch, output, count, is_brain)

    return twice


@part
def _canonical_half(value: Any, is_brain: bool) -> Any:
    """The bits of a 16-bit float, zeros and NaNs in one form."""
    infinity, nan = (0x7F80, 0x7FC0) if is_brain else (0x7C00, 0x7E00)
    bits = np.int32(value)
    magnitude = bits & 0x7FFF
    unsigned_zero = bits if magnitude else 0
    return np.uint16(nan if magnitude > infinity else unsigned_zero)


@part
def _canonical_float(value: Any, nan: Any, zero: Any) -> Any:
    value = value + zero  # -0.0 becomes 0.0
    return value if value == value else nan


def canonical(values: Any, target: Any, count: int, is_brain: bool) -> None:
    """Copies gradients; zeros and NaNs get one form, as sums of them have."""


@implements(canonical)
def _canonical(values: Any, target: Any, count: Any, is_brain: Any) -> Any:
    if target.dtype == types.uint16:

        def halves(values: Any, target: Any, count: Any, is_brain: Any) -> None:
            for i in range(count):
                put(target, i, _canonical_half(get(values, i), is_brain))

        return halves

    def floats(values: Any, target: Any, count: Any, is_brain: Any) -> None:
        nan, zero = lift(np.nan, target), lift(0.0, target)
        for i in range(count):
            put(target, i, _canonical_float(get(values, i), nan, zero))

    return floats


@part
def is_exact_inverse(divisor: Any) -> Any:
    """Whether multiplying by ``1 / divisor`` is dividing: whether it is a power of two."""
    mantissa, _ = math.frexp(divisor)
    return abs(mantissa) == 0.5 and math.isfinite(1 / divisor)


@part
def divide_by(totals: Any, quotients: Any, divisor: float, count: int) -> None:
    """Divides all sums by one divisor, into float64; in place, if that is where they are."""
    inverse = 1 / divisor
    if is_exact_inverse(divisor):
        for i in range(count):
            put(quotients, i, lift(get(totals, i), quotients) * inverse)
    else:
        for i in range(count):
            put(quotients, i, lift(get(totals, i), quotients) / divisor)


def averaged(
    totals: Any, output: Any, divisor: float, count: int, scratch: Any, is_brain: bool
) -> None:
    """float64 sums over a divisor in the output's type, rounded once; zeros and NaNs of one form.

    Args:
        totals: may be written to.
        scratch: room for `count` float32.
    """


@implements(averaged)
def _averaged(
    totals: Any, output: Any, divisor: Any, count: Any, scratch: Any, is_brain: Any
) -> Any:
    if output.dtype == types.uint16:

        def halves(
            totals: Any, output: Any, divisor: Any, count: Any, scratch: Any, is_brain: Any
        ) -> None:
            divide_by(totals, totals, divisor, count)
            rounded(totals, output, count, scratch, is_brain)
            canonical(output, output, count, is_brain)

        return halves

    def floats(
        totals: Any, output: Any, divisor: Any, count: Any, scratch: Any, is_brain: Any
    ) -> None:
        nan, zero, inverse = lift(np.nan, output), lift(0.0, output), 1 / divisor
        if is_exact_inverse(divisor):
            for i in range(count):
                value = lift(get(totals, i) * inverse, output)
                put(output, i, _canonical_float(value, nan, zero))
        else:
            for i in range(count):
                value = lift(get(totals, i) / divisor, output)
                put(output, i, _canonical_float(value, nan, zero))

    return floats
