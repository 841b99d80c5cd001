"""Repeated measurements in turns, and ratios within a round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import report

Calls = dict[str, Callable[[], Any]]


def quartiles(values: Iterable[float]) -> dict[str, float]:
    """Return the median and the lower and upper quartile of repeated measurements."""
    low, median, high = statistics.quantiles([float(value) for value in values], n=4)
    return {"median": round(median, 5), "low": round(low, 5), "high": round(high, 5)}


def cell(values: dict[str, float]) -> str:
    """Return "median (lower quartile-upper quartile)" with three significant digits."""
    return "{median:.3g} ({low:.3g}-{high:.3g})".format(**values)


def compared(calls: Calls, one: str, other: str, rounds: int) -> dict[str, Any]:
    """Time calls in turns; add the ratio of two of them within each round."""
    for call in calls.values():
        call()
    taken = report.interleaved(list(calls), rounds, lambda name: report.samples(calls[name], 1)[0])
    ratios = [a / b for a, b in zip(taken[one], taken[other], strict=True)]
    return {
        "ms": {name: quartiles(values) for name, values in taken.items()},
        "ratio": quartiles(ratios),
    }


def microseconds(calls: Calls, rounds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return microseconds per call: quartiles over rounds of the median of some calls in a row."""

    def measure(name: str) -> float:
        return 1e3 * statistics.median(report.samples(calls[name], repeats))

    for name in calls:
        measure(name)
    taken = report.interleaved(list(calls), rounds, measure)
    return {name: quartiles(values) for name, values in taken.items()}


class Timed:
    """Client whose calls are timed: `seconds` is the duration of the last call."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.seconds = 0.0

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self._timed(self._client.forward, arguments, options)

    def backward(self, *arguments: Any, **options: Any) -> Any:
        return self._timed(self._client.backward, arguments, options)

    def _timed(self, method: Callable[..., Any], arguments: Any, options: Any) -> Any:
        start = time.perf_counter()
        result = method(*arguments, **options)
        self.seconds = time.perf_counter() - start
        return result
