"""Percentiles with distribution-free confidence intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2


def is_supported(percent: float, calls: int) -> bool:
    """Return whether so many calls bound a percentile from above.

    The largest of n values exceeds the percentile p with probability 1 - p^n. If this probability
    is below 97.5 %, the percentile has no two-sided 95 % interval: p99 needs 368 calls, p99.9
    3,688, p99.99 36,887.
    """
    p = percent / 100
    return calls > 0 and calls * math.log(max(p, 1e-300)) <= math.log(_TAIL)


def highest_supported(calls: int) -> float:
    """Return the highest percentile that so many calls support, in percent; 0 for none."""
    return 100 * math.exp(math.log(_TAIL) / calls) if calls else 0.0


def interval(ordered: NDArray[np.float64], percent: float) -> tuple[float, float]:
    """Return the 95 % confidence interval of a percentile, between two order statistics.

    Args:
        ordered: the values, ascending.
        percent: the percentile, supported by the number of values.

    The number of values below the percentile has a binomial distribution (David and Nagaraja,
    Order Statistics, section 7.1).
    """
    n, p = ordered.size, percent / 100
    spread = 8 * math.sqrt(n * p * (1 - p)) + 8
    first, last = max(0, int(n * p - spread)), min(n, int(n * p + spread))
    counts = np.arange(first, last + 1)
    log_mass = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in counts.tolist()
    ]  # fmt: skip
    below = np.cumsum(np.exp(log_mass))
    low = int(counts[int(np.searchsorted(below, _TAIL))])
    high = int(counts[min(int(np.searchsorted(below, 1 - _TAIL)), counts.size - 1)])
    return float(ordered[max(low - 1, 0)]), float(ordered[min(high, n - 1)])
