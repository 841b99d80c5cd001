"""Search for the capacity: the highest rate at which a server still meets an objective.

A staircase: the rate of the next window goes up after a window that met the objective, and down
after one that missed it. The steps become smaller at each change of direction. The search stops
when the rates of the last three windows lie within 10 %, and some of them met the objective and
others missed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from pooling_loadtest.calls import Calls
from pooling_loadtest.runs import CapacityRow, WindowRow
from pooling_loadtest.slo import Slo, figure_of

_LAST, _WITHIN = 3, 1.10
_MIN_STEP, _MAX_WINDOWS, _MIN_RATE = 1.04, 40, 0.5
_KEPT_UP = 0.95  # lowest ratio of the duration of a window to the time until its last reply


@dataclass(frozen=True)
class Window:
    """One window of the search: its rate, its calls, and whether the objective was met.

    A percentile is None if so many calls have no reply; all figures are None without calls.
    """

    rate: float
    calls: int
    p50_ms: float | None
    p99_ms: float | None
    errors_percent: float | None
    met: bool


@dataclass
class Capacity:
    """Result of a search.

    Attributes:
        rate: highest rate of the last windows that met the objective; 0 if none did.
        low: lowest rate of the last windows.
        high: highest rate of the last windows.
        windows: all windows, in order.
        settled: the last three windows agreed within 10 %.
    """

    rate: float = 0.0
    low: float = 0.0
    high: float = 0.0
    windows: list[Window] = field(default_factory=list)
    settled: bool = False

    def to_row(self) -> CapacityRow:
        """Return the search for `run.json`."""
        windows = [cast(WindowRow, vars(window)) for window in self.windows]
        return CapacityRow(
            rate=self.rate, low=self.low, high=self.high, settled=self.settled, windows=windows
        )


def search(measure: Callable[[float], Window | None], first_rate: float) -> Capacity:
    """Search for the capacity.

    Args:
        measure: runs a window at a rate; None if the user has stopped the test.
        first_rate: rate of the first window, in calls/s.
    """
    found = Capacity()
    rate, step = first_rate, 2.0
    while len(found.windows) < _MAX_WINDOWS and rate >= _MIN_RATE:
        window = measure(rate)
        if window is None:
            break
        turned = bool(found.windows) and found.windows[-1].met != window.met
        found.windows.append(window)
        last = found.windows[-_LAST:]
        rates = [each.rate for each in last]
        if len({each.met for each in last}) == 2:
            found.low, found.high = min(rates), max(rates)
            found.rate = max(each.rate for each in last if each.met)
            if len(last) == _LAST and found.high <= found.low * _WITHIN:
                found.settled = True
                break
        if turned:
            step = max(_MIN_STEP, math.sqrt(step))
        rate = rate * step if window.met else rate / step
    return found


def window_of(rate: float, calls: Calls, duration_s: float, slo: Slo) -> Window:
    """Return a window: its objective is met if the server also keeps up with the rate."""
    return Window(
        rate=rate,
        calls=len(calls),
        p50_ms=_finite(figure_of("p50", calls, duration_s)),
        p99_ms=_finite(figure_of("p99", calls, duration_s)),
        errors_percent=_finite(figure_of("errors", calls, duration_s)),
        met=_kept_up(calls, duration_s) and slo.is_met(calls, duration_s),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _kept_up(calls: Calls, duration_s: float) -> bool:
    """Return whether the calls ended hardly later than the window, so that no queue has grown."""
    early = calls[calls.scheduled_ns < duration_s / 4 * 1e9]
    latencies = early.latency_ns[early.is_ok]
    if not latencies.size:
        return False
    usual_ns = float(np.median(latencies))
    return bool(calls.done_ns.max() <= duration_s * 1e9 / _KEPT_UP + usual_ns)
