"""The arithmetic of one window in plain Python, one function for each kind of mode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pooling_client.explain._window import View
from pooling_engine import Mode, NanPolicy, TiePolicy
from pooling_engine.dtypes import INTEGERS

_ROUNDING = 2.0**-52  # of one operation in float64
_SAFE_POWER = 290.0  # decimal digits of a power that float64 holds with room for a sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """What the arithmetic gives.

    Attributes:
        output: the value of the output, in float64; exact where it is an integer.
        shares: what each cell of the region receives of the upstream gradient; None where
            the output is no finite number and has no slope, and for integers.
        output_slack: how far the engine's output may be off before it is rounded to the
            element type: infinite where the order of a sum decides whether it overflows.
        share_slack: the same for the shares, relative to each.
    """

    output: float
    shares: list[float] | None
    output_slack: float = 0.0
    share_slack: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected(Worked):
    """The output is one element, or one magnitude.

    Attributes:
        tied: the cells of the region that hold the extreme, in row-major order; none if no
            tap is on an element, or only on NaNs that are skipped.
        receivers: which of them receive a share of the gradient.
    """

    tied: list[int]
    receivers: list[int]

    @property
    def cell(self) -> int | None:
        """The cell that is selected: the first of those tied."""
        return self.tied[0] if self.tied else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed(Worked):
    """The output is a sum over a divisor.

    Attributes:
        total: the sum.
        divisor: the divisor; 1 for mode "sum".
    """

    total: float
    divisor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Normed(Worked):
    """The output is a p-norm.

    Attributes:
        scale: what the magnitudes are divided by first; 1 unless a power would overflow.
        powers: ``(|x| / scale)^p`` of each cell of the region.
        total: their sum.
    """

    scale: float
    powers: list[float]
    total: float


def work_out(view: View) -> Selected | Summed | Normed:
    """The output and the gradient's shares, by the rules of section 3 of the contract."""
    if view.spec.mode is Mode.LP:
        return _largest_magnitude(view) if math.isinf(view.spec.norm_p) else _norm(view)
    return _selected(view) if view.spec.mode in (Mode.MAX, Mode.MIN) else _summed(view)


def divisor_of(view: View) -> float:
    """What the sum of an average is divided by."""
    spec = view.spec
    if spec.divisor_override is not None:
        return spec.divisor_override
    if spec.count_include_pad:
        return math.prod(axis.within_padding for axis in view.axes)
    return max(1, view.region.size)


def _selected(view: View) -> Selected:
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


def _largest_magnitude(view: View) -> Selected:
    values = view.values
    tied = _extreme([abs(value) for value in values], is_max=True)
    if not tied:
        return Selected(output=0.0, shares=[], tied=[], receivers=[])
    cell = tied[0]
    output, upstream = abs(values[cell]), float(view.upstream)
    shares = None
    if not math.isnan(output):
        shares = _all_to([cell], upstream * _sign(values[cell]), len(values))
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


def _summed(view: View) -> Summed:
    divisor = divisor_of(view) if view.spec.mode is Mode.AVERAGE else 1
    return _integer_sum(view, divisor) if not view.has_gradient else _float_sum(view, divisor)


def _integer_sum(view: View, divisor: float) -> Summed:
    """The exact sum, and its quotient rounded to float64."""
    total = sum(view.values)
    if view.spec.mode is Mode.SUM:
        return Summed(output=total, shares=None, total=total, divisor=divisor)
    output = total / divisor
    slack = 2 * _ROUNDING * abs(output) if math.isfinite(output) else 0.0
    return Summed(output=output, shares=None, output_slack=slack, total=total, divisor=divisor)


def _float_sum(view: View, divisor: float) -> Summed:
    values = view.values
    total = _sum(values)
    finite = [abs(value) for value in values if math.isfinite(value)]
    # An infinity or a NaN decides the sum, unless finite values overflow as well.
    rounding = _ROUNDING * len(values) if len(finite) == len(values) else 0.0
    room = _sum(finite)
    return Summed(
        output=total / divisor,
        shares=[float(view.upstream) / divisor] * len(values),
        output_slack=rounding * room / abs(divisor) if math.isfinite(room) else math.inf,
        share_slack=2 * _ROUNDING,
        total=total,
        divisor=divisor,
    )


def _norm(view: View) -> Normed:
    p, values = view.spec.norm_p, view.values
    magnitudes = [abs(value) for value in values]
    scale = _scale(magnitudes, p)
    powers = [_power(magnitude / scale, p) for magnitude in magnitudes]
    total = _sum(powers)
    norm = scale * total ** (1 / p)
    slack = 8 * _ROUNDING * max(1, len(values)) * p
    return Normed(
        output=norm,
        shares=_norm_shares(values, norm, p, float(view.upstream)),
        output_slack=slack * norm if math.isfinite(norm) else 0.0,
        share_slack=slack,
        scale=scale,
        powers=powers,
        total=total,
    )


def _scale(magnitudes: list[float], p: float) -> float:
    """1, or the largest magnitude if its power would overflow or vanish."""
    largest = max(magnitudes, default=0.0)
    if largest == 0 or not all(map(math.isfinite, magnitudes)):
        return 1.0
    return 1.0 if abs(p * math.log10(largest)) < _SAFE_POWER else largest


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:  # beside an infinity, where no scale helps
        return math.inf


def _norm_shares(values: list[float], norm: float, p: float, upstream: float) -> list[float] | None:
    if not math.isfinite(norm):
        return None
    if norm == 0:
        return [0.0] * len(values)
    # Rounding may put a magnitude a little above the norm; the power would magnify that.
    return [upstream * _sign(v) * min(1.0, abs(v) / norm) ** (p - 1) for v in values]


def _sign(value: float) -> float:
    return value if value == 0 or math.isnan(value) else math.copysign(1.0, value)


def _sum(values: list[float]) -> float:
    """The correctly rounded sum; what adding gives where infinities or an overflow decide."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)
