"""Divisors of averages, and the exact multiplication that replaces a division.

A GPU needs some ten instructions to divide two float64, and two to multiply and add. For sums of
16-bit and 32-bit elements, `sum * value + sum * rest` rounds to the same float64 as `sum / d`. The
second product is rounded and the first is not, because the kernels use a fused multiply-add. The
reciprocal of the divisor d is `value + rest` (Brisebarre and Muller, "Correctly rounded
multiplication by arbitrary precision constants", IEEE Transactions on Computers 57, 2008):

* `value` is the float64 next to 1 / d, towards 0. `rest` has the sign of `value` and at most 2^-51
  of its size. The error of `rest` is at most 2^-51 of it where a kernel computes it. With the error
  of its product, the number that is rounded last is wrong by less than 2^-101 of the quotient.
* If d is an integer up to 2^47, no quotient is closer than 2^-54 / d >= 2^-101 of its size to the
  midpoint of two float64, where rounding changes: sum - d * midpoint is a multiple of half a unit
  in the last place of the midpoint. It is never 0: the midpoint has 54 bits, and its product with d
  has no fewer. For powers of two both products are exact.
* Nothing overflows or is subnormal: such sums are multiples of 2^-149 and below 2^160.
* For an infinite sum both products are infinite, with the same sign.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import DivisorRule

MULTIPLY, DIVIDE, VALID_TAPS, PADDED_TAPS = range(4)
LARGEST = 2**47  # largest divisor that has a reciprocal in two parts


class Division(NamedTuple):
    """Division of the sums of a plan.

    Attributes:
        rule: `DivisorRule` of `windows.cuh`.
        scale: two float64 as one opaque value: the factor in two parts, or the divisor and 0.
    """

    rule: int
    scale: Any


def division_of(plan: PoolPlan) -> Division:
    """Return the division of a plan's sums; mode SUM divides by 1."""
    rule = plan.divisor_rule
    if rule is None:
        return _by(plan, 1.0)
    if plan.divisor_override is not None:
        return _by(plan, float(plan.divisor_override))
    if all(factor.min() == factor.max() for factor in divisors(plan)):
        return _by(plan, float(math.prod(int(factor[0]) for factor in divisors(plan))))
    taps = VALID_TAPS if rule is DivisorRule.VALID_TAPS else PADDED_TAPS
    return Division(taps, packed_scale(1.0, 0.0))


def _by(plan: PoolPlan, divisor: float) -> Division:
    is_power = abs(math.frexp(divisor)[0]) == 0.5
    if plan.dtype.itemsize > 4:
        if is_power and math.isfinite(1 / divisor):  # the reciprocal is exact
            return Division(MULTIPLY, packed_scale(1 / divisor, 0.0))
        return Division(DIVIDE, packed_scale(divisor, 0.0))
    if 1 / LARGEST <= abs(divisor) <= LARGEST and (is_power or divisor.is_integer()):
        value = math.nextafter(1 / divisor, 0)
        return Division(
            MULTIPLY, packed_scale(value, float(1 / Fraction(divisor) - Fraction(value)))
        )
    return Division(DIVIDE, packed_scale(divisor, 0.0))


def packed_scale(value: float, rest: float) -> Any:
    """Return the struct `Scale` of `windows.cuh`."""
    return np.array([value, rest]).view(np.dtype((np.void, 16)))
