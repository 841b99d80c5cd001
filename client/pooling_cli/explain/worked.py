"""What the arithmetic of one window gives, one class for each kind of mode."""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUNDING = 2.0**-52  # of one operation in float64


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


def add(values: list[float]) -> float:
    """The correctly rounded sum; what adding gives where infinities or an overflow decide."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)


def sign(value: float) -> float:
    """1 or -1; a zero or a NaN as it is."""
    return value if value == 0 or math.isnan(value) else math.copysign(1.0, value)
