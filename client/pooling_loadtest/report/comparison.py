"""Comparison of two load tests on their calls, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pooling_loadtest.calls import Calls, percentiles
from pooling_loadtest.report.text import load, ms, number
from pooling_loadtest.results import Results
from pooling_loadtest.runs import Run
from pooling_loadtest.statistics import is_supported
from pooling_loadtest.texts import counted

CONFIDENCE = 0.99  # of each interval: seven figures together then mislead in at most 7 % of cases
AT = (50.0, 90.0, 99.0, 99.9)
_BLOCKS = 40
_RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """Change of one figure from run A to run B.

    Attributes:
        figure: "calls/s", "p50", ..., "errors".
        a: value of A: calls/s, ms or percent; NaN if its calls do not support the percentile.
        b: value of B.
        low: lower end of the interval of the change: a fraction of A; for errors, percentage
            points.
        high: upper end.
    """

    figure: str
    a: float
    b: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Return whether both runs support the figure."""
        return not np.isnan(self.low)

    @property
    def is_real(self) -> bool:
        """Return whether the interval excludes zero."""
        return self.is_known and (self.low > 0 or self.high < 0)

    @property
    def is_better(self) -> bool:
        """Return whether B is better, if the difference is real."""
        return (self.low > 0) == (self.figure == "calls/s")


def compare(a: Results, b: Results, seed: int = 0) -> list[Difference]:
    """Return the differences of throughput, percentiles of the latency, and errors.

    Calls that follow each other are not independent, so each run is cut into 40 blocks of time,
    and whole blocks are drawn with replacement (Künsch, 1989, The jackknife and the bootstrap for
    general stationary observations). Intervals have 99 % confidence.

    Args:
        a: first run.
        b: second run.
        seed: seed of the bootstrap.
    """
    random = np.random.default_rng(seed)
    one, other = _Sample(a, random), _Sample(b, random)
    found = []
    for column, figure in enumerate(_FIGURES):
        x, y = one.drawn[:, column], other.drawn[:, column]
        with np.errstate(divide="ignore", invalid="ignore"):
            change = y - x if figure == "errors" else y / x - 1
        tail = (1 - CONFIDENCE) / 2
        is_known = bool(np.isfinite(change).all())
        low, high = np.quantile(change, (tail, 1 - tail)) if is_known else (np.nan, np.nan)
        found.append(
            Difference(figure, one.values[column], other.values[column], float(low), float(high))
        )
    return found


def sentence(found: Difference) -> str:
    """Return a difference in words."""
    if not found.is_known:
        return f"{found.figure}: too few calls to compare."
    values = f"{_value(found.figure, found.a)} and {_value(found.figure, found.b)}"
    unit = "percentage points" if found.figure == "errors" else "%"
    factor = 1 if found.figure == "errors" else 100
    low, high = found.low * factor, found.high * factor
    if not found.is_real:
        return (
            f"{found.figure}: {values}; no difference shown. It lies between {number(low, 2)} "
            f"and {number(high, 2)} {unit}."
        )
    direction = "higher" if low > 0 else "lower"
    ends = sorted((abs(low), abs(high)))
    return (
        f"{found.figure}: {values}; B is {number(ends[0], 2)} to {number(ends[1], 2)} {unit} "
        f"{direction}. The difference is real: B is {'better' if found.is_better else 'worse'}."
    )


def obstacles(a: Run, b: Run) -> Iterator[str]:
    """Return the reasons why two runs are not comparable, as sentences."""
    if load(a) != load(b):
        yield f"The loads differ: {_lower(load(a))}; {_lower(load(b))}."
    if [_call(a, n) for n in range(len(a.kinds))] != [_call(b, n) for n in range(len(b.kinds))]:
        yield "The calls differ in shape, element type, layer, direction, transport or weight."
    if a.protocol != b.protocol:
        yield f"The protocols differ: {a.protocol} and {b.protocol}."
    for name in ("cpu", "cores", "platform"):
        values = [run.environment.get(name) for run in (a, b)]
        if values[0] != values[1]:
            yield f"The generators' machines differ in {name}: {values[0]} and {values[1]}."
    for letter, run in (("A", a), ("B", b)):
        if run.distorted:
            yield f"The generator distorted {letter}: {' '.join(run.distortions)}"
        if run.stopped:
            yield f"{letter} ended early: {run.stopped}"
        if run.verify["wrong"]:
            yield f"{letter} has {counted(run.verify['wrong'], 'wrong reply', 'wrong replies')}."
        if run.capacity:
            yield f"{letter} is a search for the capacity: its rates depend on its results."


_FIGURES = ("calls/s", *(f"p{at:g}" for at in AT), "mean", "errors")


class _Sample:
    """Figures of a run, and of its resamples.

    Attributes:
        values: one value for each of the figures.
        drawn: one row for each resample.
    """

    def __init__(self, results: Results, random: np.random.Generator) -> None:
        calls, duration_s = results.calls, _duration_s(results)
        width_ns = duration_s * 1e9 / _BLOCKS
        block = np.clip((calls.scheduled_ns / width_ns).astype(np.int64), 0, _BLOCKS - 1)
        self._duration_s = duration_s
        self._all = np.bincount(block, minlength=_BLOCKS)
        self._ok = np.bincount(block[calls.is_ok], minlength=_BLOCKS)
        latency = calls.latency_ns[calls.is_ok] / 1e6
        order = np.argsort(latency)
        self._latency, self._block = latency[order], block[calls.is_ok][order]
        self.values = self._exact(calls)
        draws = random.multinomial(_BLOCKS, np.full(_BLOCKS, 1 / _BLOCKS), _RESAMPLES)
        self.drawn = np.array([self._resampled(weights) for weights in draws])

    def _exact(self, calls: Calls) -> list[float]:
        values = percentiles(self._latency, AT)
        supported = [is_supported(at, self._latency.size) for at in AT]
        mean = float(self._latency.mean()) if self._latency.size else np.nan
        errors = 100 * float(np.mean(~calls.is_ok)) if len(calls) else np.nan
        return [
            self._latency.size / self._duration_s,
            *(float(v) if s else np.nan for v, s in zip(values, supported, strict=True)),
            mean,
            errors,
        ]

    def _resampled(self, weights: NDArray[np.int64]) -> list[float]:
        count, total = int(self._ok @ weights), int(self._all @ weights)
        if not count:
            return [0.0] + [np.nan] * (len(AT) + 1) + [100.0]
        below = np.cumsum(weights[self._block])
        ranks = np.searchsorted(below, np.array(AT) / 100 * (count - 1), side="right")
        values = np.where(np.isnan(self.values[1 : 1 + len(AT)]), np.nan, self._latency[ranks])
        mean = float(self._latency @ weights[self._block]) / count
        return [count / self._duration_s, *values, mean, 100 * (1 - count / total)]


def _duration_s(results: Results) -> float:
    """Return the time in which calls began."""
    run = results.run
    if run.loop == "closed" or run.stopped:
        return max(run.elapsed_s, 1e-9)
    return max(run.duration_s, 1e-9)


def _call(run: Run, number: int) -> tuple[object, ...]:
    kind = run.kinds[number]
    spec = sorted(kind.spec.items())
    shape = tuple(kind.shape)
    return kind.direction, kind.transport, shape, kind.dtype, str(spec), kind.weight


def _value(figure: str, value: float) -> str:
    if figure == "calls/s":
        return f"{number(value, 4)} calls/s"
    return f"{number(value)} %" if figure == "errors" else ms(value)


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
