"""Divisors of averages, as the kernels take them."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import Divisors, PlaneTables
from pooling_engine.backends.numba_backend.tables.axes import is_unchanged
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode


@Memo
def divisors_of(plan: PoolPlan) -> Divisors:
    """Return the divisors of a plan; 1 for mode SUM."""
    if plan.mode is Mode.SUM:
        return _common(1.0)
    if plan.divisor_override is not None:
        return _common(float(plan.divisor_override))
    factors = divisors(plan)
    if all(factor.min() == factor.max() for factor in factors):
        return _common(float(math.prod(int(factor[0]) for factor in factors)))
    if len(factors) > 1 and is_unchanged(plan.axes[0]):
        factors = factors[1:]
    rows = reduce(np.multiply.outer, factors[:-1], np.ones(())).reshape(-1)
    return Divisors(np.concatenate(factors, dtype=np.float64), rows, 1.0)


def _common(divisor: float) -> Divisors:
    return Divisors(np.empty(0), np.empty(0), divisor)


def plane_tables(plan: PoolPlan) -> PlaneTables:
    """Return the tables of a sum for a plan with a global window."""
    divisor = divisors_of(plan).divisor
    return PlaneTables(plan.axes[0].size, plan.inner, divisor, plan.outer, element_of(plan))


def is_power_of_two(divisors: Divisors) -> bool:
    """Return whether all outputs have one divisor and it is a power of two, as 1 is."""
    return not len(divisors.factors) and abs(math.frexp(divisors.divisor)[0]) == 0.5
