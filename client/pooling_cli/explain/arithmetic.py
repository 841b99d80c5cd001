"""The arithmetic of one window in plain Python, by the rules in pooling.proto."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pooling_cli.explain.numbering import ravel
from pooling_cli.explain.records import (
    Divisor,
    Extreme,
    Forward,
    Norm,
    Number,
    Selection,
    Sum,
)
from pooling_cli.explain.window import View
from pooling_engine import Mode, NanPolicy, TiePolicy

_ROUNDING = 2.0**-52  # relative error of one operation in float64
_SAFE_POWER = 290.0  # decimal digits of a power that float64 holds with room for a sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The results of the arithmetic, and how far the engine's may differ.

    Attributes:
        forward: the steps.
        output: the value of the output in float64; exact where it is an integer.
        receivers: the elements that receive a selection's gradient; None: every element.
        parts: the number of parts that the gradient is split into.
        shares: the gradient of each element; None where the output is not finite and has no
            slope, and for integers.
        output_slack: difference allowed between `output` and the engine's output before it is
            rounded; infinite where the order of a sum decides if it overflows.
        share_slack: relative difference allowed between the shares.
    """

    forward: Forward
    output: Number
    receivers: tuple[int, ...] | None = None
    parts: int = 1
    shares: list[float] | None
    output_slack: float = 0.0
    share_slack: float = 0.0


def expected_results(view: View) -> Expected:
    """Return the output of a window and the gradients of its elements."""
    match view.spec.mode:
        case Mode.LP if math.isinf(view.spec.norm_p):
            return _largest_magnitude(view)
        case Mode.LP:
            return _norm(view)
        case Mode.MAX | Mode.MIN:
            return _extreme(view)
        case _:
            return _sum(view)


def _extreme(view: View) -> Expected:
    """Select the extreme, and the elements that receive the gradient."""
    values, spec = view.region.values, view.spec
    is_max = spec.mode is Mode.MAX
    skips_nan = spec.nan_policy is NanPolicy.IGNORE
    tied = _tied(values, is_max, skips_nan)
    receivers = tied[:1] if spec.tie_policy is TiePolicy.FIRST else tied
    parts = len(receivers) if receivers and spec.tie_policy is TiePolicy.SPLIT else 1
    share = float(view.upstream) / parts
    if tied:
        output = values[tied[0]]
    else:
        output = math.nan if values else _extreme_of_nothing(view.dtype, is_max)
    skipped = sum(map(math.isnan, values)) if skips_nan else 0
    return Expected(
        forward=_selection(view, "largest" if is_max else "smallest", tied, skipped),
        output=output,
        receivers=receivers,
        parts=parts,
        shares=_spread(receivers, share, len(values)) if view.has_gradient else None,
    )


def _largest_magnitude(view: View) -> Expected:
    """Select the largest magnitude: the norm with p = inf."""
    values = view.region.values
    tied = _tied([abs(value) for value in values], is_max=True)
    output, shares = 0.0, [0.0] * len(values)
    if tied:
        value = values[tied[0]]
        output = abs(value)
        shares = _spread(tied[:1], float(view.upstream) * _sign(value), len(values))
    return Expected(
        forward=_selection(view, "largest_magnitude", tied, 0),
        output=output,
        receivers=tied[:1],
        shares=None if math.isnan(output) else shares,
    )


def _sum(view: View) -> Expected:
    values, rule = view.region.values, view.parameters.divisor_rule
    divisor = None if rule is None else _divisor(view, rule)
    total = _add(values) if view.has_gradient else sum(values)
    output = total if divisor is None else total / divisor.value
    by = 1 if divisor is None else divisor.value
    step = Sum(total=total, divisor=divisor, result=output)
    if not view.has_gradient:
        is_rounded = divisor is not None and math.isfinite(output)
        slack = 2 * _ROUNDING * abs(output) if is_rounded else 0.0
        return Expected(forward=step, output=output, shares=None, output_slack=slack)
    finite = [abs(value) for value in values if math.isfinite(value)]
    # An infinity or a NaN decides the sum, unless finite values overflow as well.
    rounding = _ROUNDING * len(values) if len(finite) == len(values) else 0.0
    most = _add(finite)
    return Expected(
        forward=step,
        output=output,
        shares=[float(view.upstream) / by] * len(values),
        output_slack=rounding * most / abs(by) if math.isfinite(most) else math.inf,
        share_slack=2 * _ROUNDING,
    )


def _norm(view: View) -> Expected:
    """Return the norm for finite p, the magnitudes scaled where a power would overflow."""
    p, values = view.spec.norm_p, view.region.values
    magnitudes = [abs(value) for value in values]
    scale = _scale(magnitudes, p)
    powers = tuple(_power(magnitude / scale, p) for magnitude in magnitudes)
    total = _add(powers)
    output = scale * total ** (1 / p)
    slack = 8 * _ROUNDING * max(1, len(values)) * p
    return Expected(
        forward=Norm(p=p, scale=scale, powers=powers, total=total, result=output),
        output=output,
        shares=_norm_shares(values, output, p, float(view.upstream)),
        output_slack=slack * output if math.isfinite(output) else 0.0,
        share_slack=slack,
    )


def _selection(view: View, extreme: Extreme, tied: tuple[int, ...], skipped: int) -> Selection:
    region, largest = view.region, tuple(axis.kernel for axis in view.parameters.axes)
    selected = position = number = None
    if tied:
        selected, tap = tied[0], region.tap(tied[0])
        position = tuple(a.position(t) for a, t in zip(region.axes, tap, strict=True))
        number = ravel(tap, largest)
    return Selection(
        extreme=extreme,
        skipped=skipped,
        tied=tied,
        selected=selected,
        position=position,
        tap=number,
        counted_in=largest,
    )


def _tied(values: Sequence[Number], is_max: bool, skips_nan: bool = False) -> tuple[int, ...]:
    """Return the elements with the extreme value; a NaN outranks all numbers, or is skipped."""
    nans = tuple(element for element, value in enumerate(values) if math.isnan(value))
    if nans and not skips_nan:
        return nans
    numbers = [value for value in values if not math.isnan(value)]
    extreme = (max if is_max else min)(numbers, default=None)
    return tuple(element for element, value in enumerate(values) if value == extreme)


def _extreme_of_nothing(dtype: np.dtype[Any], is_max: bool) -> Number:
    """Return the output of a window without an element."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return int(limits.min if is_max else limits.max)
    return -math.inf if is_max else math.inf


def _divisor(view: View, rule: str) -> Divisor:
    region = view.region
    on_elements, within = len(region.values), region.taps_within_padding
    counts = {"padded_taps": within, "valid_taps": max(1, on_elements)}
    override = view.spec.divisor_override
    return Divisor(
        value=counts[rule] if override is None else override,
        rule=rule,
        on_elements=on_elements,
        in_padding=within - on_elements,
        beyond_padding=region.taps - within,
    )


def _scale(magnitudes: list[float], p: float) -> float:
    """Return 1, or the largest magnitude if its power would overflow or vanish."""
    largest = max(magnitudes, default=0.0)
    if largest == 0 or not all(map(math.isfinite, magnitudes)):
        return 1.0
    return 1.0 if abs(p * math.log10(largest)) < _SAFE_POWER else largest


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:  # only beside an infinity, where no scale helps
        return math.inf


def _norm_shares(
    values: Sequence[Number], norm: float, p: float, upstream: float
) -> list[float] | None:
    if not math.isfinite(norm):
        return None
    if norm == 0:
        return [0.0] * len(values)
    # Rounding may put a magnitude a little above the norm; the power would magnify that.
    return [upstream * _sign(v) * min(1.0, abs(v) / norm) ** (p - 1) for v in values]


def _spread(receivers: Sequence[int], share: float, elements: int) -> list[float]:
    """Return a share for each receiver, and 0 for the other elements."""
    shares = [0.0] * elements
    for element in receivers:
        shares[element] = share
    return shares


def _add(values: Sequence[Number]) -> float:
    """Return the correctly rounded sum; where infinities or an overflow decide, a plain sum."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)


def _sign(value: float) -> float:
    """Return 1 or -1; a zero or a NaN unchanged."""
    return value if value == 0 or math.isnan(value) else math.copysign(1.0, value)
