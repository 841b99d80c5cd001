"""What kernels divide averages by, or multiply them by with the same bits.

A division of two float64 takes a card some ten instructions, a product and a sum of one two. For
sums of elements of 16 and 32 bits, `sum * value + sum * rest`, the second product rounded and the
first not, is the quotient that a division rounds to, if ``value + rest`` is the reciprocal of the
divisor d in two parts (Brisebarre and Muller, "Correctly rounded multiplication by arbitrary
precision constants", IEEE Transactions on Computers 57, 2008):

* `value` is the float64 next to 1 / d on the side of 0; `rest` has its sign, and at most 2^-51 of
  its size. With its own error, 2^-51 of it where a kernel computes it, and with that of its
  product, what is rounded last is wrong by less than 2^-101 of the quotient.
* Where d is an integer up to 2^47, no quotient is closer than 2^-54 / d >= 2^-101 of its size to
  the middle between two float64, where rounding changes: sum - d * middle is a multiple of half a
  unit in the last place of the middle. It is never 0: the middle has 54 bits, and its product with
  d no fewer. For powers of two both products are exact.
* Nothing overflows or is denormal: such sums are multiples of 2^-149, and below 2^160.
* Of an infinite sum both products are infinite, of one sign.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import DivisorRule

MULTIPLY, DIVIDE, VALID_TAPS, PADDED_TAPS = range(4)
LARGEST = 2**47  # of the divisors that have a reciprocal in two parts


class Division(NamedTuple):
    """How sums are divided.

    Attributes:
        rule: as in `DivisorRule` in `windows.cuh`.
        scale: two float64 as one value: the factor in two parts, or the divisor.
    """

    rule: int
    scale: Any


def division_of(plan: PoolPlan) -> Division:
    """How a plan's sums are divided; those of mode SUM by 1."""
    rule = plan.divisor_rule
    if rule is None:
        return _by(plan, 1.0)
    if plan.divisor_override is not None:
        return _by(plan, float(plan.divisor_override))
    if all(factor.min() == factor.max() for factor in plan.divisors):
        return _by(plan, float(math.prod(int(factor[0]) for factor in plan.divisors)))
    taps = VALID_TAPS if rule is DivisorRule.VALID_TAPS else PADDED_TAPS
    return Division(taps, _scale(1.0, 0.0))


def _by(plan: PoolPlan, divisor: float) -> Division:
    is_power = abs(math.frexp(divisor)[0]) == 0.5
    if plan.dtype.itemsize > 4:
        if is_power and math.isfinite(1 / divisor):  # multiplying is dividing
            return Division(MULTIPLY, _scale(1 / divisor, 0.0))
        return Division(DIVIDE, _scale(divisor, 0.0))
    if 1 / LARGEST <= abs(divisor) <= LARGEST and (is_power or divisor.is_integer()):
        value = math.nextafter(1 / divisor, 0)
        return Division(MULTIPLY, _scale(value, float(1 / Fraction(divisor) - Fraction(value))))
    return Division(DIVIDE, _scale(divisor, 0.0))


def _scale(value: float, rest: float) -> Any:
    """As `Scale` in `windows.cuh`."""
    return np.array([value, rest]).view(np.dtype((np.void, 16)))
