"""Who computes when: bounds what is in flight, and never computes what has expired."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pooling_engine import DeadlineError, OverloadedError, UnavailableError

Answer = TypeVar("Answer")
RETRY_AFTER_S = 0.1


class Executor:
    """Runs calls in their own threads: `slots` at once, `max_in_flight` waiting or running.

    The bound on slots keeps large calls from sharing the cache, and their memory from adding up.
    A stream is one call in flight, from beginning to end; each of its items waits for a slot.
    """

    def __init__(self, slots: int, max_in_flight: int) -> None:
        self._slots = threading.BoundedSemaphore(slots)
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._is_draining = False
        self._streams: set[Callable[[], None]] = set()
        self._changed = threading.Condition()

    def run(self, work: Callable[[], Answer], deadline_s: float | None) -> Answer:
        """The answer of `work`, once a slot is free.

        Args:
            deadline_s: seconds until nobody waits for the answer any more, or None.

        Raises:
            OverloadedError: too much is in flight.
            UnavailableError: the server is draining.
            DeadlineError: the deadline passed before a slot was free; nothing was computed.
        """
        self._enter()
        try:
            return self.compute(work, deadline_s)
        finally:
            self._leave()

    @contextmanager
    def stream(self, end: Callable[[], None]) -> Iterator[None]:
        """A block in which one stream is answered: one call in flight, however many items it has.

        Args:
            end: called once the server is draining; the stream should end soon after.

        Raises:
            OverloadedError, UnavailableError: as `run`.
        """
        self._enter(end)
        try:
            yield
        finally:
            self._leave(end)

    def compute(self, work: Callable[[], Answer], deadline_s: float | None) -> Answer:
        """The answer of `work`, for an item of a stream: it waits for a slot, and no more.

        Raises:
            DeadlineError: as `run`.
        """
        wait_s = None if deadline_s is None else min(deadline_s, threading.TIMEOUT_MAX)
        if not self._slots.acquire(timeout=wait_s):
            raise DeadlineError("the deadline passed before the call could be computed")
        try:
            return work()
        finally:
            self._slots.release()

    def drain(self, timeout_s: float) -> bool:
        """Refuses new calls; waits for those in flight. Returns whether all have finished."""
        with self._changed:
            self._is_draining = True
            for end in self._streams:
                end()
            return self._changed.wait_for(lambda: self._in_flight == 0, timeout_s)

    def _enter(self, end: Callable[[], None] | None = None) -> None:
        with self._changed:
            if self._is_draining:
                raise UnavailableError("the server is stopping; ask another, or again later")
            if self._in_flight >= self._max_in_flight:
                raise OverloadedError(
                    f"{self._in_flight} calls are in flight, the most this server takes "
                    "(--max-in-flight)",
                    facts={
                        "limit": "max_in_flight",
                        "value": str(self._max_in_flight),
                        "option": "--max-in-flight",
                        "retry_after_s": str(RETRY_AFTER_S),
                    },
                )
            self._in_flight += 1
            if end is not None:
                self._streams.add(end)

    def _leave(self, end: Callable[[], None] | None = None) -> None:
        with self._changed:
            self._in_flight -= 1
            if end is not None:
                self._streams.discard(end)
            self._changed.notify_all()
