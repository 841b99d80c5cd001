"""Admission control without a server: the numbers of calls, and the limits of the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pooling_engine import DeadlineError, OverloadedError, UnavailableError
from pooling_server.serving.executor import Executor
from tests.support.waiting import LIMIT_S


class Context:
    """Part of a gRPC context: `end` means that the reply was sent or the client disconnected."""

    def __init__(self) -> None:
        self.end: Callable[[], None] = lambda: None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.end = callback
        return True


def is_over(callback: Callable[[], None]) -> bool:
    """Behave as `add_callback` of a call that has already ended."""
    return False


def test_a_call_is_unfinished_until_its_reply_is_sent() -> None:
    executor, context = Executor(1, 1), Context()
    with executor.call(context.add_callback):
        assert (executor.in_flight, executor.unfinished) == (1, 1)
    assert (executor.in_flight, executor.unfinished) == (0, 1)
    assert not executor.drain(0)
    context.end()
    assert (executor.in_flight, executor.unfinished) == (0, 0)
    assert executor.drain(0)


def test_a_call_whose_client_has_gone_has_no_reply_to_send() -> None:
    executor = Executor(1, 1)
    with executor.call(is_over):
        assert (executor.in_flight, executor.unfinished) == (1, 0)
    assert executor.drain(0)


def test_calls_and_unsent_replies_are_limited() -> None:
    executor, contexts = Executor(1, 1), [Context(), Context()]
    with (
        executor.call(contexts[0].add_callback),
        pytest.raises(OverloadedError, match="1 calls are in flight; this server's limit is 1"),
        executor.call(contexts[1].add_callback),
    ):
        pass
    with (
        pytest.raises(OverloadedError, match="the replies to 1 calls are not sent yet"),
        executor.call(contexts[1].add_callback),
    ):
        pass
    contexts[0].end()
    with executor.call(contexts[1].add_callback):
        assert executor.in_flight == 1


def test_an_expired_call_is_not_computed() -> None:
    computed: list[int] = []
    with pytest.raises(DeadlineError):
        Executor(1, 1).compute(lambda: computed.append(1), 0)
    assert computed == []


def test_draining_rejects_calls_and_ends_streams() -> None:
    executor, ended = Executor(1, 2), []
    with executor.call(Context().add_callback, lambda: ended.append(1)):
        assert not executor.drain(0)
        assert executor.is_draining
        assert ended == [1]
        with (
            pytest.raises(UnavailableError, match="shutting down"),
            executor.call(Context().add_callback),
        ):
            pass


def test_silence_begins_after_the_last_rejected_call() -> None:
    executor = Executor(1, 1)
    assert executor.drain(0)
    rejecting = True

    def reject() -> None:
        while rejecting:
            with pytest.raises(UnavailableError):
                executor.admit()

    thread = threading.Thread(target=reject)
    thread.start()
    executor.wait_for_silence(quiet_s=LIMIT_S, most_s=0.01)  # ends after the longest wait
    rejecting = False
    thread.join(LIMIT_S)
    executor.wait_for_silence(quiet_s=0.01, most_s=LIMIT_S)  # ends after the silence
