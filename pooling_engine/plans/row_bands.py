"""Row bands of a plan whose sums have the order of the whole plane."""

from __future__ import annotations

import math

from pooling_engine.plans.geometry import SlidingAxis, is_spanned
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import SUMMING_MODES


def band_step(plan: PoolPlan) -> int:
    """Return the number of outputs of whose multiples a row band consists, except the last one.

    Blocks of a scan are counted from the first window, so a band must begin with a block.
    """
    first = plan.axes[0]
    if not isinstance(first, SlidingAxis) or not plan.scans(first):
        return least_band_outputs(plan)
    return first.kernel // math.gcd(first.kernel, first.window.stride)


def least_band_outputs(plan: PoolPlan) -> int:
    """Return how many outputs along the first axis a row band needs at least: 1 or 2.

    Sums of a plane with one window have another order than those of several windows. A band of
    one output would be such a plane if its window spans the other axes.
    """
    is_sum = plan.mode in SUMMING_MODES and not plan.is_global
    return 2 if is_sum and all(map(is_spanned, plan.axes[1:])) else 1
