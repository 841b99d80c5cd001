"""Numbers as text."""

from __future__ import annotations

import math


def short(value: float) -> str:
    """Return a number with three or more digits and without an exponent."""
    if math.isnan(value) or math.isinf(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"
