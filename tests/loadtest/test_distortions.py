"""The marks of a run: of runs whose figures the generator has changed, and of no others."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from pooling_loadtest.calls import Calls
from pooling_loadtest.distortions import distortions
from pooling_loadtest.generator import Summary

IDLE = Summary(0, 0, 0, 0.3, None)


def calls_with(
    *,
    lag_ms: float = 0.1,
    latency_ms: float = 0.7,
    late: float = 0.0,
    late_ms: float = 0.0,
    count: int = 4000,
    rate: float = 200.0,
) -> Calls:
    """Return calls at a steady rate with random lags and service times.

    Args:
        lag_ms: mean of the exponential lag of a call.
        latency_ms: median time from sending to the reply.
        late: fraction of the calls with a further lag.
        late_ms: that lag.
        count: number of calls.
        rate: calls/s.
    """
    random = np.random.default_rng(0)
    scheduled = np.arange(count) * int(1e9 / rate)
    lag = random.exponential(lag_ms, count) + np.where(random.random(count) < late, late_ms, 0)
    service = random.lognormal(np.log(latency_ms), 0.3, count)
    sent = scheduled + (lag * 1e6).astype(np.int64)
    done = sent + (service * 1e6).astype(np.int64)
    columns = {"scheduled_ns": scheduled, "sent_ns": sent, "done_ns": done}
    return Calls(columns | {"status": np.zeros(count, np.uint8)})


@pytest.mark.parametrize(
    "load",
    [
        {},  # 200 calls/s on a machine that also runs the server: p99 of the lag is 0.46 ms
        {"lag_ms": 0.3, "latency_ms": 5.0},
        {"late": 0.005, "late_ms": 30.0},  # single stalls that no shown percentile contains
        {"lag_ms": 2.0, "latency_ms": 400.0},
        {"late": 1.0, "late_ms": 30.0, "latency_ms": 900.0, "rate": 2000},
        {"count": 3, "lag_ms": 5.0},
    ],
)
def test_a_lag_that_changes_no_figure_is_no_mark(load: dict[str, Any]) -> None:
    assert distortions(calls_with(**load), [IDLE], is_open=True) == []


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ({"lag_ms": 3.0}, r"p50 of the latency is 2\.\d* ms, but 0\.\d* ms without its lag"),
        (
            {"late": 0.03, "late_ms": 8.0},
            r"p99 of .*; 3\.\d* % of the calls were sent over 0\.5 ms",
        ),
        ({"late": 0.15, "late_ms": 8.0}, "p90 of the latency"),
        ({"late": 1.0, "late_ms": 400.0, "latency_ms": 900.0}, "p50 of the latency is 1,307 ms"),
    ],
)
def test_a_lag_that_changes_a_figure_is_a_mark(load: dict[str, Any], says: str) -> None:
    (sentence,) = distortions(calls_with(**load), [IDLE], is_open=True)
    assert sentence.startswith("The generator sent calls late: ")
    assert re.search(says, sentence)


def test_a_schedule_that_was_not_kept_is_a_mark() -> None:
    calls = calls_with(latency_ms=5000.0, count=400)
    calls.sent_ns += np.arange(400) * 200_000  # 0.2 ms more for each call
    calls.done_ns += np.arange(400) * 200_000
    assert distortions(calls, [IDLE], is_open=True) == []
    calls.sent_ns += np.arange(400) * 800_000
    calls.done_ns += np.arange(400) * 800_000
    (sentence,) = distortions(calls, [IDLE], is_open=True)
    assert "took 2.39 s to send the calls that were due within 2 s" in sentence


def test_a_busy_process_of_the_closed_loop_is_a_mark() -> None:
    busy = Summary(1, 0, 0, 0.97, None)
    (sentence,) = distortions(calls_with(), [IDLE, busy], is_open=False)
    assert sentence.startswith("Generator process 1 used 97 % of a core")


def test_calls_that_waited_or_were_not_sent_are_counted() -> None:
    calls = calls_with()
    calls.sent_ns[-1] = -1
    found = distortions(calls, [IDLE._replace(delayed=2)], is_open=True)
    assert found == [
        "2 calls waited because the maximum number was in flight.",
        "1 call that was due was not sent.",
    ]
