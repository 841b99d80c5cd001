"""Sums divided by their divisors, in float64."""

from __future__ import annotations

import math

from pooling_engine.backends.numba_backend.language.axes import TileSizes, axis_at, is_unchanged
from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import (
    Pointer,
    ahead,
    convert,
    get,
    put,
)


@part
def is_exact_inverse(divisor: float) -> bool:
    """Return whether ``value * (1 / divisor)`` equals ``value / divisor``: for powers of two."""
    mantissa, _ = math.frexp(divisor)
    return abs(mantissa) == 0.5 and math.isfinite(1 / divisor)


@part
def divide_by(values: Pointer, quotients: Pointer, divisor: float, count: int) -> None:
    """Divide all values by one divisor, into float64; `quotients` may be `values`."""
    inverse = 1 / divisor
    if is_exact_inverse(divisor):
        for i in range(count):
            put(quotients, i, convert(get(values, i), quotients) * inverse)
    else:
        for i in range(count):
            put(quotients, i, convert(get(values, i), quotients) / divisor)


@routine
def divide_by_factors(
    values: Pointer,
    quotients: Pointer,
    factors: Pointer,
    first: int,
    count: int,
    axes: Pointer,
    sizes: TileSizes,
) -> None:
    """Divide the values of outputs by the product of their factors, into float64.

    Args:
        values: `count` outputs, from position `first` of the first axis on.
        quotients: room for as many.
        factors: as in `Divisors`.
        first: position along the first axis.
        count: number of outputs, a multiple of those at one position.
        axes: the axes of the plan.
        sizes: sizes of its tiles.
    """
    last = axis_at(axes, sizes.axes - 1)
    # Of each output, `tap_ranges` has three numbers and `factors` one.
    last_factors = ahead(factors, last.ranges // 3)
    row_length = last.outputs * sizes.inner
    for row in range(count // row_length):
        number, product = row, 1.0
        for a in range(sizes.axes - 2, -1, -1):
            axis = axis_at(axes, a)
            output = number % axis.outputs if a else number + first
            number //= axis.outputs
            if not is_unchanged(axis):
                product *= get(factors, axis.ranges // 3 + output)
        at = ahead(values, row * row_length), ahead(quotients, row * row_length)
        # One divisor for all windows that are inside, in one loop; another for each of the others.
        output = 0
        while output < last.outputs:
            end = last.inside_end if output == last.inside < last.inside_end else output + 1
            divisor = product * get(last_factors, output)
            for i in range(output * sizes.inner, end * sizes.inner):
                put(at[1], i, convert(get(at[0], i), at[1]) / divisor)
            output = end
