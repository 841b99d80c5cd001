"""Experiments with a known outcome: the load test reports what happened."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from pooling_loadtest.calls import WRONG
from pooling_loadtest.summary import is_passed, summary
from pooling_loadtest.texts import short
from tests.loadtest.servers import Answers, PauseOnce, fake_server
from tests.loadtest.support import run

CALLERS = 4


def calls_over_the_pause(results: Any, pause: PauseOnce) -> int:
    """Return how many latencies contain the second half of a pause."""
    start = results.run.started_unix_ns
    half = (pause.begin_unix_ns + pause.end_unix_ns) // 2
    scheduled, done = results.calls.scheduled_ns + start, results.calls.done_ns + start
    return int(np.count_nonzero((scheduled < half) & (done >= pause.end_unix_ns)))


def test_a_pause_of_a_second_delays_every_call_that_was_due_meanwhile_in_the_open_loop() -> None:
    pause = PauseOnce(at_call=40, pause_s=1.0)
    with fake_server(pause) as (target, _):
        results = run(target, rate=100, duration_s=2.2)
    assert pause.end_unix_ns
    assert len(results.calls) == 220
    # 100 calls/s for the first half of the pause; each waited for at least the second half.
    assert calls_over_the_pause(results, pause) >= 45
    assert np.count_nonzero(results.calls.latency_ns >= 0.5e9) >= 45


def test_a_pause_of_a_second_delays_one_call_per_caller_in_the_closed_loop() -> None:
    pause = PauseOnce(at_call=40, pause_s=1.0)
    with fake_server(pause) as (target, _):
        results = run(target, callers=CALLERS, duration_s=1.5)
    assert pause.end_unix_ns
    assert calls_over_the_pause(results, pause) == CALLERS
    assert (results.calls.scheduled_ns == results.calls.sent_ns).all()
    assert "closed loop, 4 callers" in results.run.title


def test_a_generator_that_cannot_keep_up_marks_the_run() -> None:
    with fake_server(Answers()) as (target, _):
        results = run(target, rate=200_000, duration_s=0.03, max_in_flight=100_000)
    assert results.run.distorted
    assert "The generator was too slow for the schedule" in results.run.distortions[-1]
    assert "DISTORTED" in summary(results)


def test_a_call_that_waits_because_too_many_are_in_flight_marks_the_run() -> None:
    with fake_server(PauseOnce(at_call=3, pause_s=0.2)) as (target, _):
        results = run(target, rate=100, max_in_flight=2)
    sentence = "calls waited because the maximum number was in flight"
    assert any(sentence in each for each in results.run.distortions)


def test_wrong_answers_fail_the_run() -> None:
    answers = Answers()

    def behave(number: int, request: bytes, context: Any) -> bytes:
        reply = bytearray(answers(number, request, context))
        if number % 10 == 5:
            reply[-1] ^= 1  # the sign or exponent of the last element
        return bytes(reply)

    with fake_server(behave) as (target, _):
        results = run(target, verify=1.0)
    assert results.run.verify["checked"] == len(results.calls) == 50
    assert results.run.verify["wrong"] == np.count_nonzero(results.calls.verified == WRONG) == 5
    assert not is_passed(results)


def test_one_percent_of_errors_is_reported_as_one_percent() -> None:
    answers = Answers()

    def behave(number: int, request: bytes, context: grpc.ServicerContext) -> bytes:
        if number and number % 100 == 0:  # the first call comes before the test
            context.abort(grpc.StatusCode.INTERNAL, "injected")
        return answers(number, request, context)

    with fake_server(behave) as (target, _):
        results = run(target, "errors<0.5%", rate=800)
    assert len(results.calls) == 400
    assert "INTERNAL             4 (1.00 %)" in summary(results)
    assert results.run.slo == {"text": "errors<0.5%", "met": False}


def test_the_summary_has_the_percentiles_of_numpy() -> None:
    with fake_server(Answers()) as (target, _):
        results = run(target, rate=500)
    latencies = results.calls.latency_ns
    line = next(line for line in summary(results).splitlines() if line.startswith("small"))
    for at in (50, 90, 99, 99.9, 100):
        assert f"{short(np.percentile(latencies, at) / 1e6)} ms" in line


@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_seed_sends_the_same_calls_at_the_same_times(processes: int) -> None:
    with fake_server(Answers()) as (target, _):
        runs = [run(target, arrivals="poisson", seed=7, processes=processes) for _ in range(2)]
    for name in ("scheduled_ns", "kind", "sent_bytes"):
        first, second = (getattr(each.calls, name) for each in runs)
        np.testing.assert_array_equal(first, second)
    assert set(runs[0].calls.process) == set(range(processes))
