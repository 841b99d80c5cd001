"""State of a resumable stream: attempts, back-off, deadline and unanswered requests."""

from __future__ import annotations

import pytest

from pooling_client._streams import retries
from pooling_client._streams.retries import ATTEMPTS, Backlog, Retries
from pooling_engine import DeadlineError, InvalidTensorError, OverloadedError, UnavailableError

AWAY = UnavailableError("no server answers")


class Clock:
    """Clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(retries, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_back_off_doubles_and_the_attempts_end() -> None:
    state = Retries(None)
    waits = [state.backoff_s(AWAY, 0) for _ in range(ATTEMPTS - 1)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6]
    with pytest.raises(UnavailableError) as caught:
        state.backoff_s(AWAY, 0)
    assert caught.value is AWAY


def test_a_reply_restarts_back_off_and_attempts() -> None:
    state = Retries(None)
    for answered in range(1, 50):
        assert state.backoff_s(AWAY, answered) == 0.1
    assert [state.backoff_s(AWAY, 49) for _ in range(4)] == [0.2, 0.4, 0.8, 1.6]
    with pytest.raises(UnavailableError):
        state.backoff_s(AWAY, 49)


def test_back_off_has_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 100)
    state = Retries(None)
    assert [state.backoff_s(AWAY, 0) for _ in range(8)][5:] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "error", [InvalidTensorError("no"), OverloadedError("busy"), DeadlineError("too late")]
)
def test_other_errors_are_permanent(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        Retries(None).backoff_s(error, 0)  # type: ignore[arg-type]
    assert caught.value is error


def test_no_attempt_after_the_deadline(clock: Clock) -> None:
    state = Retries(1.0)
    assert state.left_s() == 1.0
    clock.now += 0.75
    assert state.left_s() == 0.25
    assert state.backoff_s(AWAY, 0) == 0.1
    clock.now += 0.1
    with pytest.raises(UnavailableError):
        state.backoff_s(AWAY, 0)  # the next attempt would be 0.05 s too late
    clock.now += 0.5
    assert state.left_s() == 0.0
    assert Retries(None).left_s() is None


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
