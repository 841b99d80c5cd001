"""Divisors of mode AVERAGE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pooling_engine.plans.memo import Memo
from pooling_engine.plans.plan import PoolPlan


@Memo
def divisors(plan: PoolPlan) -> tuple[NDArray[np.int64], ...]:
    """Return the divisor of each output, factored over the spatial axes; at least 1.

    The divisor of an output is the product of the factors of its coordinates. They do not apply
    to a plan with `divisor_override`.
    """
    if plan.count_include_pad:
        return tuple(np.maximum(1, axis.counts_with_padding()) for axis in plan.axes)
    limits = [axis.tap_limits() for axis in plan.axes]
    return tuple(np.maximum(1, stop - first) for first, stop in limits)
