"""Waits between the attempts of a call, and the unanswered requests of a stream."""

from __future__ import annotations

import math
import random
import re

import pytest

from pooling_client import _channel, _retries
from pooling_client._retries import (
    CONFIGURATION_PATIENCE_S,
    FIRST_WAIT_S,
    MAX_TOKENS,
    MAX_WAIT_S,
    SLOWDOWN,
    TOKENS_PER_SUCCESS,
    Retries,
    Throttle,
)
from pooling_client._streams.backlog import Backlog
from pooling_engine import (
    DeadlineError,
    InvalidTensorError,
    OverloadedError,
    PermissionDeniedError,
    PoolingError,
    TensorTooLargeError,
    UnavailableError,
)
from pooling_wire import HANDSHAKE, UNRESOLVED

GONE = UnavailableError("no server answers")
BUSY = OverloadedError("busy", facts={"retry_after_s": "0.5"})
JITTER = 1.5  # the most


class Clock:
    """Clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(_retries, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low)


def retries(deadline: float | None = None, patience_s: float = math.inf) -> Retries:
    return Retries(deadline, Throttle(), patience_s)


def waits_until_failure(state: Retries, clock: Clock, error: PoolingError) -> list[float]:
    """Return the waits of attempts that all fail, until the error is raised."""
    waits = []
    with pytest.raises(type(error)):  # noqa: PT012
        while True:
            waits.append(state.wait_s(error))
            clock.now += waits[-1]
    return waits


@pytest.mark.usefixtures("no_jitter")
def test_back_off_doubles_up_to_a_maximum(clock: Clock) -> None:
    state = retries()
    waits = [state.wait_s(GONE) for _ in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0])


@pytest.mark.usefixtures("no_jitter")
def test_progress_restarts_the_back_off(clock: Clock) -> None:
    state = retries()
    for answered in range(1, 10):
        assert state.wait_s(GONE, answered) == pytest.approx(FIRST_WAIT_S)
    assert state.wait_s(GONE, 9) == pytest.approx(2 * FIRST_WAIT_S)


def test_a_call_is_retried_until_its_deadline(clock: Clock) -> None:
    begin = clock.now
    waits = waits_until_failure(retries(begin + 40), clock, GONE)
    assert begin + 39 < clock.now <= begin + 40
    assert 40 / (MAX_WAIT_S * JITTER) < len(waits) < 60


def test_a_stream_without_a_deadline_ends_after_its_patience(clock: Clock) -> None:
    begin = clock.now
    state = retries(patience_s=30)
    for answered in range(1, 5):  # progress: the patience begins again
        clock.now += state.wait_s(GONE, answered) + 100
    begin = clock.now
    with pytest.raises(UnavailableError):  # noqa: PT012
        while True:
            clock.now += state.wait_s(GONE, 5)
    assert begin + 29 < clock.now <= begin + 30


def test_the_delay_of_the_server_is_the_least_wait(clock: Clock) -> None:
    for _ in range(50):
        wait_s = retries(clock.now + 60).wait_s(BUSY)
        assert 0.5 <= wait_s <= 0.5 * JITTER
    assert len({retries().wait_s(BUSY) for _ in range(20)}) == 20, "all callers return at once"


def test_waits_grow_while_the_server_stays_overloaded(clock: Clock) -> None:
    waits = waits_until_failure(retries(clock.now + 30), clock, BUSY)
    assert len(waits) < 30 / 0.5
    assert waits[0] < MAX_WAIT_S <= max(waits[:10]) <= MAX_WAIT_S * JITTER


@pytest.mark.usefixtures("no_jitter")
def test_attempts_without_a_connection_use_no_budget(clock: Clock) -> None:
    throttle = Throttle()
    for _ in range(2 * int(MAX_TOKENS)):
        assert Retries(None, throttle).wait_s(GONE) == FIRST_WAIT_S
    assert Retries(None, throttle).wait_s(BUSY) == 0.5


def test_the_last_wait_leaves_time_for_an_attempt(clock: Clock) -> None:
    state = retries(clock.now + 0.3)
    for _ in range(20):
        assert state.wait_s(GONE) <= 0.15


@pytest.mark.parametrize("error", [GONE, BUSY])
def test_no_attempt_after_the_deadline(clock: Clock, error: PoolingError) -> None:
    for left_s in (-1.0, 0.0, 0.04):
        with pytest.raises(type(error)) as caught:
            retries(clock.now + left_s).wait_s(error)
        assert caught.value is error
    assert retries(clock.now + 1).left_s() == 1.0
    assert retries(clock.now - 1).left_s() == 0.0
    assert retries(None).left_s() is None


@pytest.mark.parametrize("cause", [UNRESOLVED, HANDSHAKE])
def test_wrong_names_and_certificates_are_reported_early(clock: Clock, cause: str) -> None:
    error = UnavailableError("no", facts={"cause": cause})
    begin = clock.now
    assert waits_until_failure(retries(begin + 60), clock, error)
    assert clock.now <= begin + CONFIGURATION_PATIENCE_S


@pytest.mark.parametrize(
    "error",
    [
        InvalidTensorError("no"),
        DeadlineError("too late"),
        TensorTooLargeError("too large"),
        PermissionDeniedError("no"),
        OverloadedError("a rate limit without a delay"),
        UnavailableError("a proxy failed", facts={"retryable": "false"}),
    ],
)
def test_other_errors_are_permanent(error: PoolingError) -> None:
    with pytest.raises(type(error)) as caught:
        retries().wait_s(error)
    assert caught.value is error


def test_the_error_states_the_attempts(clock: Clock) -> None:
    state = retries(clock.now + 2)
    error = UnavailableError("no server answers", facts={"a": "b"})
    with pytest.raises(UnavailableError) as caught:  # noqa: PT012
        while True:
            clock.now += state.wait_s(error)
    assert re.fullmatch(r"no server answers; \d+ attempts in \d\.\d s", str(caught.value))
    assert caught.value.facts == {"a": "b"}


@pytest.mark.usefixtures("no_jitter")
def test_many_retries_slow_down_but_do_not_fail(clock: Clock) -> None:
    throttle = Throttle()
    waits = [Retries(None, throttle).wait_s(BUSY) for _ in range(int(MAX_TOKENS) + 3)]
    assert waits[:-3] == [0.5] * int(MAX_TOKENS)
    assert waits[-3:] == [0.5 * SLOWDOWN] * 3
    for _ in range(int(1 / TOKENS_PER_SUCCESS)):
        throttle.succeed()
    assert Retries(None, throttle).wait_s(BUSY) == 0.5
    assert Retries(None, throttle).wait_s(BUSY) == 0.5 * SLOWDOWN


def test_successes_do_not_accumulate(clock: Clock) -> None:
    throttle = Throttle()
    for _ in range(1000):
        throttle.succeed()
    assert [throttle.slowdown() for _ in range(int(MAX_TOKENS) + 1)][-1] == SLOWDOWN


def test_requests_keep_their_numbers() -> None:
    backlog: Backlog[str] = Backlog()
    assert (len(backlog), backlog.taken, backlog.oldest()) == (0, 0, None)
    backlog.add(("a", b"0"))
    backlog.add(("b", b"1"))
    assert backlog.oldest() == ("a", b"0")
    assert [backlog.request(number) for number in range(3)] == [b"0", b"1", None]
    backlog.answer()
    assert (backlog.answered, backlog.taken, len(backlog)) == (1, 2, 1)
    assert [backlog.request(number) for number in range(3)] == [None, b"1", None]
    assert backlog.oldest() == ("b", b"1")


def test_an_error_of_the_caller_s_iterator_is_raised_at_the_end() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.check()
    assert not backlog.is_complete
    backlog.complete(LookupError("no more data"))
    assert backlog.is_complete
    with pytest.raises(LookupError, match="no more data"):
        backlog.check()


def test_the_error_of_an_earlier_attempt_says_more_than_a_pending_connection(clock: Clock) -> None:
    pending = _channel.not_connected("host:1")
    attempts = retries(deadline=clock.now + 10)
    attempts.wait_s(GONE)
    clock.now += 10
    with pytest.raises(UnavailableError, match=r"no server answers; 2 attempts in 10\.0 s"):
        attempts.wait_s(pending)
    with pytest.raises(DeadlineError, match="no connection to host:1"):
        retries(deadline=clock.now).wait_s(pending)


def test_progress_forgets_the_error_of_an_earlier_attempt(clock: Clock) -> None:
    attempts = retries(deadline=clock.now + 10)
    attempts.wait_s(GONE)
    attempts.wait_s(BUSY, answered=1)
    clock.now += 10
    with pytest.raises(DeadlineError, match="no connection to host:1"):
        attempts.wait_s(_channel.not_connected("host:1"))
