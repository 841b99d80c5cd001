"""Objectives, and the search for the capacity on servers that are formulas."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_loadtest.calls import Calls
from pooling_loadtest.capacity import Window, search, window_of
from pooling_loadtest.errors import MisuseError
from pooling_loadtest.slo import figure_of, parse_slo


def calls_of(latencies_ms: list[float], failed: int = 0) -> Calls:
    """Return calls with these latencies, of which the first ones failed."""
    scheduled = np.arange(len(latencies_ms)) * 1_000_000
    done = scheduled + (np.array(latencies_ms) * 1e6).astype(np.int64)
    status = np.where(np.arange(len(latencies_ms)) < failed, 14, 0)
    columns = {"scheduled_ns": scheduled, "sent_ns": scheduled, "done_ns": done, "status": status}
    return Calls(columns)


@pytest.mark.parametrize(
    ("text", "is_met"),
    [
        ("p99<100.1ms", True),
        ("p50<50ms", False),
        ("p50 < 51 ms, max<0.2s", True),
        ("mean<51ms", True),
        ("max<100000us", False),
        ("errors<1%", True),
        ("rate>99", True),
        ("rate>101/s", False),
        ("p99<1s,errors<1%,p90<1ms", False),
    ],
)
def test_objectives(text: str, is_met: bool) -> None:
    calls = calls_of([float(n) for n in range(1, 101)])
    assert parse_slo(text).is_met(calls, duration_s=1.0) == is_met


def test_a_call_without_a_reply_is_infinitely_late() -> None:
    calls = calls_of([1.0] * 100, failed=2)
    assert figure_of("p50", calls, 1) == 1
    assert figure_of("p99", calls, 1) == np.inf
    assert figure_of("mean", calls, 1) == np.inf
    assert figure_of("errors", calls, 1) == pytest.approx(2)
    assert not parse_slo("p99<9999s").is_met(calls, 1)
    assert not parse_slo("p99<9999s").is_met(calls[:0], 1)


@pytest.mark.parametrize(
    "text", ["", "p99", "p99<50", "p99>50ms", "errors<1ms", "rate<5", "p999<1ms", "p99<-1ms", "a"]
)
def test_other_objectives_are_rejected(text: str) -> None:
    with pytest.raises(MisuseError, match="must consist of terms such as p99<50ms"):
        parse_slo(text)


@pytest.mark.parametrize("capacity", [3.0, 77.0, 1000.0, 12345.0])
@pytest.mark.parametrize("first_rate", [10.0, 5000.0])
def test_the_search_finds_the_capacity_within_ten_percent(
    capacity: float, first_rate: float
) -> None:
    found = search(lambda rate: Window(rate, 1, 1, 1, 0, rate <= capacity), first_rate)
    assert found.settled
    assert found.low <= found.rate <= capacity < found.high <= found.low * 1.1
    assert {window.met for window in found.windows[-3:]} == {True, False}
    assert len(found.windows) < 30


def test_the_search_copes_with_noise() -> None:
    random = np.random.default_rng(5)

    def measure(rate: float) -> Window:
        return Window(rate, 1, 1, 1, 0, bool(rate * random.normal(1, 0.1) <= 500))

    rates = [search(measure, 100).rate for _ in range(30)]
    assert 400 < np.median(rates) < 600


def test_an_objective_that_cannot_be_met_ends_the_search() -> None:
    found = search(lambda rate: Window(rate, 1, 1, 1, 0, False), 100)
    assert (found.rate, found.settled) == (0, False)
    assert found.windows[-1].rate < 1


def test_a_stop_ends_the_search() -> None:
    assert search(lambda rate: None, 100).windows == []


def test_percentiles_without_enough_replies_are_none() -> None:
    window = window_of(100, calls_of([1.0] * 100, failed=2), 1.0, parse_slo("errors<5%"))
    assert (window.p50_ms, window.p99_ms, window.met) == (1.0, None, True)


def test_a_window_with_a_growing_queue_misses_every_objective() -> None:
    growing = calls_of([1 + n * 0.5 for n in range(1000)])  # the server is half as fast as we are
    steady = calls_of([1.0] * 1000)
    slo = parse_slo("p99<10s")
    assert window_of(1000, steady, 1.0, slo).met
    assert not window_of(1000, growing, 1.0, slo).met
