"""What a call launches, and on which arrays, by their names, those on the card only included.

The plan is that of a slab, or of a whole call; kernels compute it, as its launches say. "doubt" is
where a kernel leaves a mark, "nothing" a null pointer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pooling_engine.backends.cupy_backend.planning.chunks import Step
from pooling_engine.backends.cupy_backend.planning.launches import (
    Launch,
    backward_launch,
    forward_launch,
    kept_launch,
    share_launch,
)
from pooling_engine.backends.numpy_backend.sums import may_overflow
from pooling_engine.dtypes import INTEGERS
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy, TiePolicy


@lru_cache(maxsize=512)
def forward_steps(slab: PoolPlan, is_aligned: bool = True, *, has_indices: bool) -> Sequence[Step]:
    """The forward pass; a mark says that there is a NaN to refuse, or an overflow."""
    launch = _known(forward_launch(slab, has_indices, is_aligned))
    if slab.selects:
        return [Step(launch, ("x", "y", "indices", _doubt_of(slab)))]
    doubt = (_doubt_of(slab),) if slab.dtype in INTEGERS else ()
    return [Step(launch, ("x", "y", *doubt))]


@lru_cache(maxsize=512)
def backward_steps(slab: PoolPlan, is_aligned: bool = True) -> Sequence[Step]:
    """The gradient; a mark says that an index is forged or, where ties are shared, the same."""
    gather = _known(backward_launch(slab, is_aligned))
    if slab.mode is Mode.LP:  # the norms are computed once more
        norms = Step(kept_launch(slab, is_aligned), ("x", "norms"))
        return [norms, Step(gather, ("dy", "norms", "x", "dx"))]
    if slab.shares_ties:
        select = _known(forward_launch(slab, False, is_aligned))
        extremes = Step(select, ("x", "extremes", "nothing", _doubt_of(slab)))
        if slab.tie_policy is TiePolicy.ALL:
            return [extremes, Step(gather, ("x", "extremes", "dy", "dx"))]
        shares = Step(share_launch(slab, is_aligned), ("x", "extremes", "dy", "shares"))
        return [extremes, shares, Step(gather, ("x", "extremes", "shares", "dx"))]
    if slab.selects:
        return [Step(gather, ("dy", "indices", "dx", "doubt"))]
    return [Step(gather, ("dy", "dx"))]


def residual_of(plan: PoolPlan) -> str | None:
    """The name of what the gradient needs beside "dy"."""
    if plan.mode is Mode.LP or plan.shares_ties:
        return "x"
    return "indices" if plan.selects else None


def scratch_of(plan: PoolPlan) -> dict[str, np.dtype[Any]]:
    """The element types of what the steps of the gradient leave for one another, by name."""
    wide = np.dtype(np.float64)
    if plan.mode is Mode.LP:
        return {"norms": wide}
    if not plan.shares_ties:
        return {}
    shares = {"shares": wide} if plan.tie_policy is TiePolicy.SPLIT else {}
    return {"extremes": plan.dtype} | shares


def _doubt_of(plan: PoolPlan) -> str:
    """Where kernels mark a NaN, or a sum of integers that overflows."""
    if plan.dtype in INTEGERS:
        has_doubt = not plan.selects and may_overflow(plan)
    else:
        has_doubt = plan.nan_policy is NanPolicy.ERROR
    return "doubt" if has_doubt else "nothing"


def _known(launch: Launch | None) -> Launch:
    """The launch, which the caller knows to be there."""
    if launch is None:
        raise AssertionError("what has no kernel is computed on the host")
    return launch
