"""Arrival times, drawn before a load test starts, so that they do not depend on the server.

A schedule is a list of segments with constant rates. Calls arrive evenly ("constant") or as a
Poisson process (all others): exponential gaps of mean 1, mapped through the integral of the rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pooling_loadtest.errors import MisuseError
from pooling_loadtest.runs import ScheduleRow, SegmentRow

KINDS = ("constant", "poisson", "step", "ramp", "sweep")
MAX_CALLS = 20_000_000  # about 1.1 GB of columns
_RAMP_SEGMENTS = 20
_PAUSE_S = 0.5  # between the rates of a sweep, so that one leaves no queue for the next


@dataclass(frozen=True)
class Segment:
    """A time with a constant rate.

    Attributes:
        start_s: start, in seconds from the start of the test.
        end_s: end.
        rate: calls/s.
    """

    start_s: float
    end_s: float
    rate: float


@dataclass(frozen=True)
class Schedule:
    """Rates over time.

    Attributes:
        kind: one of `KINDS`, or "search" for the windows of a search for the capacity.
        segments: segments in order; between them no call arrives.
    """

    kind: str
    segments: tuple[Segment, ...]

    @property
    def duration_s(self) -> float:
        """End of the last segment."""
        return self.segments[-1].end_s

    def to_row(self) -> ScheduleRow:
        """Return the schedule for `run.json`."""
        segments = [cast(SegmentRow, vars(segment)) for segment in self.segments]
        return ScheduleRow(kind=self.kind, segments=segments)


def schedule_of(
    kind: str, rate: float, duration_s: float, to_rate: float | None = None, steps: int = 5
) -> Schedule:
    """Return a schedule.

    Args:
        kind: "constant" or "poisson": one rate. "step": equal steps from `rate` to `to_rate`.
            "ramp": a steady change from `rate` to `to_rate`, in 20 segments. "sweep": rates at
            equal ratios from `rate` to `to_rate`, with a pause of half a second after each.
        rate: calls/s.
        duration_s: duration in seconds; all rates together.
        to_rate: last rate of a step, ramp or sweep.
        steps: number of rates of a step or sweep.

    Raises:
        MisuseError: a rate or duration is impossible.
    """
    if kind not in KINDS:
        raise MisuseError(f"schedule is {kind!r}; it must be one of {', '.join(KINDS)}")
    _check("duration", duration_s, "seconds")
    _check("rate", rate, "calls/s")
    if kind in ("constant", "poisson"):
        if to_rate is not None:
            raise MisuseError(f"to-rate is {to_rate:g}, but a {kind} schedule has one rate")
        return _checked(Schedule(kind, (Segment(0.0, duration_s, rate),)))
    if to_rate is None:
        raise MisuseError(f"a {kind} schedule needs to-rate, its last rate in calls/s")
    _check("to-rate", to_rate, "calls/s")
    if steps < 2:
        raise MisuseError(f"steps is {steps}; it must be at least 2")
    if kind == "ramp":
        edges = np.linspace(rate, to_rate, _RAMP_SEGMENTS + 1)
        return _checked(_split(kind, (edges[:-1] + edges[1:]) / 2, duration_s, 0.0))
    if kind == "step":
        return _checked(_split(kind, np.linspace(rate, to_rate, steps), duration_s, 0.0))
    pause_s = min(_PAUSE_S, duration_s / steps / 4)
    return _checked(_split(kind, np.geomspace(rate, to_rate, steps), duration_s, pause_s))


def arrivals(schedule: Schedule, seed: int) -> NDArray[np.int64]:
    """Return the arrival times of a schedule, in nanoseconds from its start, ascending.

    The same schedule and seed give the same times.
    """
    times, expected = [0.0], [0.0]
    for segment in schedule.segments:
        calls = segment.rate * (segment.end_s - segment.start_s)
        times += [segment.start_s, segment.end_s]
        expected += [expected[-1], expected[-1] + calls]
    total = expected[-1]
    if schedule.kind == "constant":
        units = np.arange(math.ceil(total - 1e-9), dtype=np.float64)
    else:
        units = _poisson(total, np.random.default_rng(seed))
    return np.asarray(np.interp(units, expected, times) * 1e9, np.int64)


def _poisson(total: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Return the arrivals of a Poisson process of rate 1 up to `total`."""
    likely = int(total + 6 * math.sqrt(total) + 16)  # too few once in a billion
    units = np.cumsum(random.exponential(size=likely))
    while units[-1] < total:
        units = np.concatenate([units, units[-1] + np.cumsum(random.exponential(size=likely))])
    return units[units < total]


def _split(kind: str, rates: NDArray[np.float64], duration_s: float, pause_s: float) -> Schedule:
    length = duration_s / len(rates)
    segments = (
        Segment(n * length, (n + 1) * length - pause_s, float(rate)) for n, rate in enumerate(rates)
    )
    return Schedule(kind, tuple(segments))


def _checked(schedule: Schedule) -> Schedule:
    calls = sum(each.rate * (each.end_s - each.start_s) for each in schedule.segments)
    if calls > MAX_CALLS:
        text = f"these rates and this duration mean {calls:,.0f} calls; at most {MAX_CALLS:,}"
        raise MisuseError(text)
    return schedule


def _check(name: str, value: float, unit: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise MisuseError(f"{name} is {value:g}; it must be a number of {unit} above 0")
