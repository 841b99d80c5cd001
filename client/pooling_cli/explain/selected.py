"""The selected element of one window in plain Python: maximum, minimum, largest magnitude."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pooling_cli.explain.window import View
from pooling_cli.explain.worked import Selected, sign
from pooling_engine import Mode, NanPolicy, TiePolicy
from pooling_engine.dtypes import INTEGERS


def selected(view: View) -> Selected:
    """The extreme, the cells that hold it, and which of them receive the gradient."""
    values, is_max, spec = view.values, view.spec.mode is Mode.MAX, view.spec
    tied = _extreme(values, is_max, skips_nan=spec.nan_policy is NanPolicy.IGNORE)
    receivers = tied[:1] if spec.tie_policy is TiePolicy.FIRST else tied
    shares = None
    if view.has_gradient:
        parts = len(receivers) if spec.tie_policy is TiePolicy.SPLIT else 1
        shares = _all_to(receivers, float(view.upstream) / max(1, parts), len(values))
    if tied:
        output = values[tied[0]]
    else:
        output = math.nan if values else _extreme_of_nothing(view.region.dtype, is_max)
    return Selected(output=output, shares=shares, tied=tied, receivers=receivers)


def _extreme_of_nothing(dtype: np.dtype[Any], is_max: bool) -> float:
    """The output of a window without a tap on an element."""
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        return limits.min if is_max else limits.max
    return -math.inf if is_max else math.inf


def largest_magnitude(view: View) -> Selected:
    """The norm with p = inf."""
    values = view.values
    tied = _extreme([abs(value) for value in values], is_max=True)
    if not tied:
        return Selected(output=0.0, shares=[], tied=[], receivers=[])
    cell = tied[0]
    output, upstream = abs(values[cell]), float(view.upstream)
    shares = None
    if not math.isnan(output):
        shares = _all_to([cell], upstream * sign(values[cell]), len(values))
    return Selected(output=output, shares=shares, tied=tied, receivers=[cell])


def _extreme(values: list[float], is_max: bool, skips_nan: bool = False) -> list[int]:
    """The cells with the extreme value; a NaN is above all, or skipped."""
    nans = [cell for cell, value in enumerate(values) if math.isnan(value)]
    if nans and not skips_nan:
        return nans
    numbers = [value for value in values if not math.isnan(value)]
    extreme = (max if is_max else min)(numbers, default=None)
    return [cell for cell, value in enumerate(values) if value == extreme]


def _all_to(receivers: list[int], gradient: float, cells: int) -> list[float]:
    shares = [0.0] * cells
    for cell in receivers:
        shares[cell] = gradient
    return shares
