"""The p-norm of one window in plain Python, for finite p."""

from __future__ import annotations

import math

from pooling_cli.explain.window import View
from pooling_cli.explain.worked import ROUNDING, Normed, add, sign

_SAFE_POWER = 290.0  # decimal digits of a power that float64 holds with room for a sum


def norm(view: View) -> Normed:
    """The norm and its gradient, the magnitudes scaled where a power would overflow."""
    p, values = view.spec.norm_p, view.values
    magnitudes = [abs(value) for value in values]
    scale = _scale(magnitudes, p)
    powers = [_power(magnitude / scale, p) for magnitude in magnitudes]
    total = add(powers)
    output = scale * total ** (1 / p)
    slack = 8 * ROUNDING * max(1, len(values)) * p
    return Normed(
        output=output,
        shares=_norm_shares(values, output, p, float(view.upstream)),
        output_slack=slack * output if math.isfinite(output) else 0.0,
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
    return [upstream * sign(v) * min(1.0, abs(v) / norm) ** (p - 1) for v in values]
