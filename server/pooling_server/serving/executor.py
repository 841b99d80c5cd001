"""Who computes when: bounds what is in flight, and never computes what has expired."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pooling_engine import DeadlineError, OverloadedError, UnavailableError

Answer = TypeVar("Answer")
WhenOver = Callable[[Callable[[], None]], bool]
RETRY_AFTER_S = 0.1


class Executor:
    """Runs calls in their own threads: `slots` at once, `max_in_flight` waiting or running.

    The bound on slots keeps large calls from sharing the cache, and their memory from adding up.
    A call is in flight from its beginning, before its request has come, until it is answered. A
    stream is one, from beginning to end; each of its items waits for a slot. Replies that are still
    on their way are kept for as many calls again: a caller may be slow to take them.
    """

    def __init__(self, slots: int, max_in_flight: int) -> None:
        self._slots = threading.BoundedSemaphore(slots)
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._open = 0  # in flight, or on their way back
        self._is_draining = False
        self._streams: set[Callable[[], None]] = set()
        self._changed = threading.Condition()

    @contextmanager
    def call(self, when_over: WhenOver, end: Callable[[], None] | None = None) -> Iterator[None]:
        """A block in which one call is answered: a unary one, or a stream.

        Args:
            when_over: takes what is to be called once the answer has been sent, or nobody waits
                for it; false if that is so already. As `grpc.ServicerContext.add_callback`.
            end: called once the server is draining; a stream should end soon after.

        Raises:
            OverloadedError: too much is in flight, or on its way back.
            UnavailableError: the server is draining.
        """
        self._enter(end)
        if not when_over(self._close):
            self._close()
        try:
            yield
        finally:
            self._leave(end)

    def compute(self, work: Callable[[], Answer], deadline_s: float | None) -> Answer:
        """The answer of `work`, once a slot is free: of a call in flight, or an item of a stream.

        Args:
            deadline_s: seconds until nobody waits for the answer any more, or None.

        Raises:
            DeadlineError: the deadline passed before a slot was free; nothing was computed.
        """
        wait_s = None if deadline_s is None else min(deadline_s, threading.TIMEOUT_MAX)
        if wait_s == 0 or not self._slots.acquire(timeout=wait_s):
            raise DeadlineError("the deadline passed before the call could be computed")
        try:
            return work()
        finally:
            self._slots.release()

    def drain(self, timeout_s: float) -> bool:
        """Refuses new calls; waits until those in flight are answered, and the answers sent.

        Returns:
            Whether all are.
        """
        with self._changed:
            self._is_draining = True
            for end in self._streams:
                end()
            return self._changed.wait_for(lambda: self._in_flight == self._open == 0, timeout_s)

    def _enter(self, end: Callable[[], None] | None = None) -> None:
        with self._changed:
            if self._is_draining:
                raise UnavailableError("the server is stopping; ask another, or again later")
            if self._in_flight >= self._max_in_flight:
                raise self._too_much(f"{self._in_flight} calls are in flight")
            if self._open - self._in_flight >= self._max_in_flight:
                raise self._too_much(f"the replies to {self._open - self._in_flight} calls wait")
            self._in_flight += 1
            self._open += 1
            if end is not None:
                self._streams.add(end)

    def _leave(self, end: Callable[[], None] | None = None) -> None:
        with self._changed:
            self._in_flight -= 1
            if end is not None:
                self._streams.discard(end)
            self._changed.notify_all()

    def _close(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _too_much(self, what: str) -> OverloadedError:
        return OverloadedError(
            f"{what}, the most this server takes (--max-in-flight)",
            facts={
                "limit": "max_in_flight",
                "value": str(self._max_in_flight),
                "option": "--max-in-flight",
                "retry_after_s": str(RETRY_AFTER_S),
            },
        )
