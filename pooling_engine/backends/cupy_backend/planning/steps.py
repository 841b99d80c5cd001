"""Sequence of launches of a call, and the names of the arrays that each launch takes.

A plan here is that of a chunk, or of a whole call. Two array names are special: "flag" is an int32
that a kernel sets when it finds an error, and "null" is a null pointer. Arrays that exist on the
device only ("norms", "extremes", "shares") are those of `scratch_dtypes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pooling_engine.backends.cupy_backend.planning.chunks import LaunchStep
from pooling_engine.backends.cupy_backend.planning.launches import (
    Launch,
    backward_launch,
    forward_launch,
    residual_norm_launch,
    tie_share_launch,
)
from pooling_engine.backends.rules import may_overflow
from pooling_engine.dtypes import INTEGERS
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy, TiePolicy


@lru_cache(maxsize=512)
def forward_steps(
    plan: PoolPlan, is_aligned: bool = True, *, has_indices: bool
) -> Sequence[LaunchStep]:
    """Return the launches of the forward pass. The flag reports a rejected NaN or an overflow."""
    launch = _required(forward_launch(plan, has_indices, is_aligned))
    if plan.selects:
        return [LaunchStep(launch, ("x", "y", "indices", _flag_name(plan)))]
    flag = (_flag_name(plan),) if plan.dtype in INTEGERS else ()
    return [LaunchStep(launch, ("x", "y", *flag))]


@lru_cache(maxsize=512)
def backward_steps(plan: PoolPlan, is_aligned: bool = True) -> Sequence[LaunchStep]:
    """Return the launches of the gradient.

    The flag reports an invalid index or, where ties are shared, a rejected NaN.
    """
    gather = _required(backward_launch(plan, is_aligned))
    if plan.mode is Mode.LP:  # computes the norms again
        norms = LaunchStep(residual_norm_launch(plan, is_aligned), ("x", "norms"))
        return [norms, LaunchStep(gather, ("dy", "norms", "x", "dx"))]
    if plan.shares_ties:
        select = _required(forward_launch(plan, False, is_aligned))
        extremes = LaunchStep(select, ("x", "extremes", "null", _flag_name(plan)))
        if plan.tie_policy is TiePolicy.ALL:
            return [extremes, LaunchStep(gather, ("x", "extremes", "dy", "dx"))]
        launch = tie_share_launch(plan, is_aligned)
        shares = LaunchStep(launch, ("x", "extremes", "dy", "shares"))
        return [extremes, shares, LaunchStep(gather, ("x", "extremes", "shares", "dx"))]
    if plan.selects:
        return [LaunchStep(gather, ("dy", "indices", "dx", "flag"))]
    return [LaunchStep(gather, ("dy", "dx"))]


def residual_name(plan: PoolPlan) -> str | None:
    """Return the name of the array that the gradient needs beside "dy", or None."""
    if plan.mode is Mode.LP or plan.shares_ties:
        return "x"
    return "indices" if plan.selects else None


def scratch_dtypes(plan: PoolPlan) -> dict[str, np.dtype[Any]]:
    """Return the arrays that the launches of the gradient pass to one another: name, dtype."""
    wide = np.dtype(np.float64)
    if plan.mode is Mode.LP:
        return {"norms": wide}
    if not plan.shares_ties:
        return {}
    shares = {"shares": wide} if plan.tie_policy is TiePolicy.SPLIT else {}
    return {"extremes": plan.dtype} | shares


def _flag_name(plan: PoolPlan) -> str:
    """Return the flag for a NaN or an integer overflow, or null if the plan cannot have one."""
    if plan.dtype in INTEGERS:
        has_flag = not plan.selects and may_overflow(plan)
    else:
        has_flag = plan.nan_policy is NanPolicy.ERROR
    return "flag" if has_flag else "null"


def _required(launch: Launch | None) -> Launch:
    """Return a launch that the caller has checked to exist."""
    if launch is None:
        raise AssertionError("plans without a kernel are computed on the host")
    return launch
