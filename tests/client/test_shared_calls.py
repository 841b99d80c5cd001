"""Small calls on one stream, without I/O: order, abandoned calls, and when a stream is opened."""

from __future__ import annotations

import pytest

from pooling_client._transports.shared_calls import (
    FIRST_PAUSE_S,
    IDLE_S,
    MAX_PAUSE_S,
    SILENCE_S,
    Openings,
    SharedCalls,
)


def started(*names: str) -> SharedCalls[str]:
    calls: SharedCalls[str] = SharedCalls(0)
    for name in names:
        calls.add(name, name.encode(), 0)
    return calls


def test_one_item_is_sent_at_a_time_and_the_others_follow_in_order() -> None:
    calls = started()
    assert [calls.add(name, name.encode(), 0) for name in "abc"] == [True, False, False]
    assert [calls.sent() for _ in range(3)] == [b"b", b"c", None]
    assert calls.add("d", b"d", 0)


def test_replies_belong_to_the_oldest_calls() -> None:
    calls = started("a", "b", "c")
    assert calls.oldest() == "a"
    assert [calls.replied(0) for _ in range(3)] == ["a", "b", "c"]
    assert len(calls) == 0
    assert calls.oldest() is None


def test_an_abandoned_call_is_not_sent_or_its_reply_is_ignored() -> None:
    calls = started("sent", "unsent", "last")
    calls.abandon("unsent")
    calls.abandon("sent")
    assert calls.oldest() == "last"
    assert [calls.sent(), calls.sent()] == [b"last", None]
    assert [calls.replied(0), calls.replied(0)] == [None, "last"]


def test_the_end_returns_the_calls_that_still_wait() -> None:
    calls = started("a", "b", "c")
    calls.replied(0)
    calls.abandon("b")
    assert calls.end() == ["c"]
    assert calls.is_ended
    assert len(calls) == 0


def test_the_first_reply_is_awaited_for_a_short_time() -> None:
    calls = started("a")
    assert calls.until(deadline=30) == SILENCE_S
    assert calls.until(deadline=SILENCE_S / 2) == SILENCE_S / 2
    calls.replied(0.1)
    calls.add("b", b"b", 0.2)
    assert calls.until(deadline=30) == 30


@pytest.mark.parametrize(("now", "is_silent"), [(5.1, False), (5 + SILENCE_S, True)])
def test_silence_counts_from_the_last_reply_or_the_first_unanswered_call(
    now: float, is_silent: bool
) -> None:
    calls = started("a", "b")
    calls.replied(5)
    assert calls.is_silent(now) is is_silent
    calls.replied(5)
    assert not calls.is_silent(now + 100)
    calls.add("c", b"c", now + 100)
    assert not calls.is_silent(now + 100)


def test_only_frequent_calls_open_a_stream() -> None:
    openings = Openings()
    times = [0, 0.1, 0.1 + IDLE_S + 0.01, 0.2 + IDLE_S]
    assert [openings.allows(now) for now in times] == [False, True, False, True]


def test_streams_without_a_reply_pause_the_next_attempts() -> None:
    openings = Openings()
    now = 100.0
    pauses = []
    for _ in range(9):
        openings.ended(has_replied=False, now=now)
        step = FIRST_PAUSE_S / 4
        start = now
        openings.allows(now)
        while not openings.allows(now := now + step):
            pass
        pauses.append(now - start)
    assert pauses == [1, 2, 4, 8, 16, 32, *[MAX_PAUSE_S] * 3]
    openings.ended(has_replied=True, now=now)
    assert openings.allows(now)


def test_a_reply_after_the_end_belongs_to_no_call() -> None:
    calls = SharedCalls[str](0.0)
    calls.add("a", b"a", 0.0)
    assert calls.end() == ["a"]
    assert calls.replied(1.0) is None
