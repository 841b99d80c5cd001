"""The arithmetic of one window in plain Python; here the sums and the averages."""

from __future__ import annotations

import math

from pooling_cli.explain.norm import norm
from pooling_cli.explain.selected import largest_magnitude, selected
from pooling_cli.explain.window import View
from pooling_cli.explain.worked import ROUNDING, Normed, Selected, Summed, add
from pooling_engine import Mode


def work_out(view: View) -> Selected | Summed | Normed:
    """The output and the gradient's shares, by the rules of section 3 of the contract."""
    if view.spec.mode is Mode.LP:
        return largest_magnitude(view) if math.isinf(view.spec.norm_p) else norm(view)
    return selected(view) if view.spec.mode in (Mode.MAX, Mode.MIN) else _summed(view)


def divisor_of(view: View) -> float:
    """What the sum of an average is divided by."""
    spec = view.spec
    if spec.divisor_override is not None:
        return spec.divisor_override
    if spec.count_include_pad:
        return math.prod(axis.within_padding for axis in view.axes)
    return max(1, view.region.size)


def _summed(view: View) -> Summed:
    divisor = divisor_of(view) if view.spec.mode is Mode.AVERAGE else 1
    return _integer_sum(view, divisor) if not view.has_gradient else _float_sum(view, divisor)


def _integer_sum(view: View, divisor: float) -> Summed:
    """The exact sum, and its quotient rounded to float64."""
    total = sum(view.values)
    if view.spec.mode is Mode.SUM:
        return Summed(output=total, shares=None, total=total, divisor=divisor)
    output = total / divisor
    slack = 2 * ROUNDING * abs(output) if math.isfinite(output) else 0.0
    return Summed(output=output, shares=None, output_slack=slack, total=total, divisor=divisor)


def _float_sum(view: View, divisor: float) -> Summed:
    values = view.values
    total = add(values)
    finite = [abs(value) for value in values if math.isfinite(value)]
    # An infinity or a NaN decides the sum, unless finite values overflow as well.
    rounding = ROUNDING * len(values) if len(finite) == len(values) else 0.0
    room = add(finite)
    return Summed(
        output=total / divisor,
        shares=[float(view.upstream) / divisor] * len(values),
        output_slack=rounding * room / abs(divisor) if math.isfinite(room) else math.inf,
        share_slack=2 * ROUNDING,
        total=total,
        divisor=divisor,
    )
