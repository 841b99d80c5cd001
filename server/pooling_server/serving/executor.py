"""Admission control: limits concurrent calls and drops calls whose deadline has passed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from pooling_engine import DeadlineError, OverloadedError, UnavailableError

Answer = TypeVar("Answer")
OnSent = Callable[[Callable[[], None]], bool]
RETRY_AFTER_S = 0.1


class Admission:
    """An admitted call: in flight until `leave`, unfinished until `finish`.

    `finish` is called once.
    """

    __slots__ = ("_end", "_executor", "_is_in_flight")

    def __init__(self, executor: Executor, end: Callable[[], None] | None) -> None:
        self._executor, self._end = executor, end
        self._is_in_flight = True

    def leave(self) -> None:
        """End the count of calls in flight. Later calls, such as after an error, change nothing."""
        if self._is_in_flight:
            self._is_in_flight = False
            self._executor._leave(self._end)

    def finish(self) -> None:
        """End the count of unfinished calls: the reply was sent, or the client has disconnected."""
        self._executor._close()


class Executor:
    """Admission control for calls, with a limited number of compute slots.

    A call is in flight from its start, before its message has arrived, until its reply is built.
    A stream is one call in flight; each of its items waits for a compute slot. A stream without
    unanswered items may rest, and then does not count towards the limit. In addition, up to
    `max_in_flight` replies may be on their way to clients that read slowly. Calls run in the
    threads of their callers.

    Args:
        slots: calls computed at the same time. More would share the CPU cache, and their memory
            would add up.
        max_in_flight: calls that wait for a slot or are being computed.
    """

    def __init__(self, slots: int, max_in_flight: int) -> None:
        self._slots = threading.BoundedSemaphore(slots)
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._resting = 0  # streams in flight that have nothing to do
        self._unfinished = 0
        self._is_draining = False
        self._rejections = 0  # while draining
        self._streams: set[Callable[[], None]] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    @property
    def in_flight(self) -> int:
        """Number of calls that have started and have no reply yet."""
        return self._in_flight

    @property
    def resting(self) -> int:
        """Number of streams in flight that have nothing to do."""
        return self._resting

    @property
    def unfinished(self) -> int:
        """Number of calls in flight, plus calls whose reply is not sent yet.

        A call that the client ends leaves this number at once, but stays in flight until its
        computation has ended.
        """
        return self._unfinished

    @property
    def is_draining(self) -> bool:
        """True once `drain` was called: new calls are rejected."""
        return self._is_draining

    def admit(self, end: Callable[[], None] | None = None) -> Admission:
        """Admit a call, or a stream, and count it.

        Args:
            end: called when the server starts to drain; a stream should end soon after that.

        Raises:
            OverloadedError: too many calls are in flight, or too many replies are not sent yet.
            UnavailableError: the server is draining.
        """
        self._enter(end)
        return Admission(self, end)

    def rest(self) -> None:
        """Exclude a stream in flight from the limit, until `resume`: it has nothing to do."""
        with self._changed:
            self._resting += 1

    def resume(self, *, is_checked: bool) -> None:
        """Include a stream in the limit again.

        Args:
            is_checked: reject the stream if too many calls are in flight.

        Raises:
            OverloadedError: too many calls are in flight; the stream stays excluded.
        """
        with self._changed:
            if is_checked:
                self._check_limit()
            self._resting -= 1

    @contextmanager
    def call(self, on_sent: OnSent, end: Callable[[], None] | None = None) -> Iterator[None]:
        """Admit a call, and count it as in flight inside this block.

        Args:
            on_sent: registers a function to call once the reply was sent or the client has
                disconnected; returns false if that has already happened, as
                `grpc.ServicerContext.add_callback` does.
            end: as in `admit`.

        Raises:
            OverloadedError, UnavailableError: as `admit`.
        """
        admission = self.admit(end)
        if not on_sent(admission.finish):
            admission.finish()
        try:
            yield
        finally:
            admission.leave()

    def compute(self, work: Callable[[], Answer], deadline_s: float | None) -> Answer:
        """Run `work` once a compute slot is free, and return its result.

        Args:
            work: computes a call in flight, or one item of a stream.
            deadline_s: seconds until the deadline of the call; None if it has none.

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
        """Reject new calls, and wait until the calls in flight are answered and replies are sent.

        Returns:
            True if all calls finished within the timeout.
        """
        with self._changed:
            self._is_draining = True
            ends = tuple(self._streams)
        for end in ends:  # may end a stream, which leaves
            end()
        with self._changed:
            return self._changed.wait_for(
                lambda: self._in_flight == self._unfinished == 0, timeout_s
            )

    def wait_for_silence(self, quiet_s: float, most_s: float) -> None:
        """Wait until no call was rejected for `quiet_s` seconds, but at most `most_s`.

        After `drain`, calls that had already reached this host are rejected with an error that
        tells the client to retry. gRPC would cancel them when it shuts down.
        """
        until = time.monotonic() + most_s
        with self._changed:
            rejections = -1
            while rejections != self._rejections and time.monotonic() < until:
                rejections = self._rejections
                wait_s = min(quiet_s, max(0, until - time.monotonic()))
                self._changed.wait_for(partial(self._has_rejected_since, rejections), wait_s)

    def _has_rejected_since(self, rejections: int) -> bool:
        return self._rejections > rejections

    def _enter(self, end: Callable[[], None] | None) -> None:
        with self._lock:
            if self._is_draining:
                self._rejections += 1
                self._changed.notify_all()
                raise UnavailableError(
                    "the server is shutting down; retry, preferably on another server"
                )
            unsent = self._unfinished - self._in_flight
            self._check_limit()
            if unsent >= self._max_in_flight:
                raise self._overloaded(f"the replies to {unsent} calls are not sent yet")
            self._in_flight += 1
            self._unfinished += 1
            if end is not None:
                self._streams.add(end)

    def _check_limit(self) -> None:
        busy = self._in_flight - self._resting
        if busy >= self._max_in_flight:
            raise self._overloaded(f"{busy} calls are in flight")

    def _leave(self, end: Callable[[], None] | None) -> None:
        with self._lock:
            self._in_flight -= 1
            if end is not None:
                self._streams.discard(end)
            if self._is_draining:
                self._changed.notify_all()

    def _close(self) -> None:
        with self._lock:
            self._unfinished -= 1
            if self._is_draining:
                self._changed.notify_all()

    def _overloaded(self, what: str) -> OverloadedError:
        return OverloadedError(
            f"{what}; this server's limit is {self._max_in_flight} (--max-in-flight)",
            facts={
                "limit": "max_in_flight",
                "value": str(self._max_in_flight),
                "option": "--max-in-flight",
                "retry_after_s": str(RETRY_AFTER_S),
            },
        )


def run_in_thread(threads: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    """Run `work` in a thread of a pool, and report its error like that of any thread.

    Raises:
        OverloadedError: the system can start no more threads; `work` will not run.
    """
    claim = threading.Lock()  # a pool that fails to start a thread may still run what it has queued

    def run() -> None:
        if claim.acquire(blocking=False):
            try:
                work()
            except BaseException:  # the pool would keep the error in a future
                thread = threading.current_thread()
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))

    try:
        threads.submit(run)
    except RuntimeError:
        if claim.acquire(blocking=False):
            raise OverloadedError(
                "the system can start no more threads; retry later",
                facts={"retry_after_s": str(RETRY_AFTER_S)},
            ) from None
