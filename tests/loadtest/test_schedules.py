"""Arrival times: their number, their distribution, and that a seed repeats them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pooling_loadtest.errors import MisuseError
from pooling_loadtest.schedules import KINDS, Schedule, arrivals, schedule_of


def of(kind: str, rate: float = 200.0, duration_s: float = 10.0) -> Schedule:
    to_rate = None if kind in ("constant", "poisson") else 4 * rate
    return schedule_of(kind, rate, duration_s, to_rate)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert arrivals(of("constant", 4, 2), 0).tolist() == [n * 250_000_000 for n in range(8)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: str) -> None:
    first, again, other = (arrivals(of(kind), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (kind == "constant") == np.array_equal(first, other)


@pytest.mark.parametrize(("kind", "seed"), list(itertools.product(KINDS, range(3))))
def test_each_segment_has_about_its_rate(kind: str, seed: int) -> None:
    schedule = of(kind)
    times = arrivals(schedule, seed)
    assert (np.diff(times) >= 0).all()
    counted = 0
    for segment in schedule.segments:
        inside = (times >= segment.start_s * 1e9) & (times < segment.end_s * 1e9)
        expected = segment.rate * (segment.end_s - segment.start_s)
        assert abs(inside.sum() - expected) < 5 * math.sqrt(expected) + 2
        counted += int(inside.sum())
    assert counted == len(times)


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(arrivals(schedule_of("poisson", 1000, 100), 3)) / 1e6  # ms, of mean 1
    for quantile in (0.1, 0.5, 0.9, 0.99):
        expected = -math.log(1 - quantile)
        assert np.quantile(gaps, quantile) == pytest.approx(expected, rel=0.05)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("step", [100, 200, 300, 400, 500]),
        ("sweep", [100, 100 * 5**0.25, 100 * 5**0.5, 100 * 5**0.75, 500]),
    ],
)
def test_rates_of_steps_and_sweeps(kind: str, rates: list[float]) -> None:
    schedule = schedule_of(kind, 100, 10, 500, steps=5)
    assert [segment.rate for segment in schedule.segments] == pytest.approx(rates)
    assert [segment.start_s for segment in schedule.segments] == [0, 2, 4, 6, 8]
    pauses = {round(each.start_s + 2 - each.end_s, 6) for each in schedule.segments}
    assert pauses == {0.5 if kind == "sweep" else 0.0}


def test_a_ramp_rises_steadily() -> None:
    rates = [segment.rate for segment in schedule_of("ramp", 100, 10, 500).segments]
    assert len(rates) == 20
    assert np.diff(rates) == pytest.approx(20)
    assert np.mean(rates) == pytest.approx(300)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("poisson", 0, 10), "rate is 0; it must be a number of calls/s above 0"),
        (("poisson", math.nan, 10), "rate is nan"),
        (("poisson", math.inf, 10), "rate is inf"),
        (("poisson", 10, -1), "duration is -1; it must be a number of seconds above 0"),
        (("poisson", 1e6, 30), "mean 30,000,000 calls; at most 20,000,000"),
        (("poisson", 10, 10, 20), "to-rate is 20, but a poisson schedule has one rate"),
        (("ramp", 10, 10), "a ramp schedule needs to-rate"),
        (("sweep", 10, 10, -5), "to-rate is -5"),
        (("step", 10, 10, 20, 1), "steps is 1; it must be at least 2"),
        (("spiral", 10, 10), "schedule is 'spiral'; it must be one of constant, poisson"),
    ],
)
def test_impossible_schedules_are_rejected(arguments: tuple[object, ...], says: str) -> None:
    with pytest.raises(MisuseError, match=says):
        schedule_of(*arguments)  # type: ignore[arg-type]
