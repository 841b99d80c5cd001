"""Idle timeouts of all streams, watched by one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

OnTimeout = Callable[[], object]


class Wait:
    """Wait of one stream for its client."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: tuple[float, OnTimeout] | None = None

    def start(self, on_timeout: OnTimeout) -> None:
        """Start a wait; `on_timeout` is called if it lasts too long."""
        self.current = time.monotonic(), on_timeout

    def pause(self) -> None:
        """End the wait: the server is computing, or the stream has ended."""
        self.current = None


class IdleWatch:
    """Thread that ends streams whose client is idle for too long.

    The thread sleeps until the oldest wait can end. A wait that starts in the meantime ends later,
    so no stream has to wake the thread.

    Args:
        limit_s: maximum duration of one wait in seconds; 0 disables the timeout, and the thread.

    Attributes:
        limit_s: the argument.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._waits: set[Wait] = set()
        self._changed = threading.Condition()
        self._is_stopped = False

    def start(self) -> None:
        """Start the thread, before the first call: a call might have no memory for it."""
        if self.limit_s:
            threading.Thread(target=self._run, name="pooling-idle-watch", daemon=True).start()

    def add(self, wait: Wait) -> None:
        """Watch a stream."""
        if self.limit_s:
            self._waits.add(wait)  # atomic: no lock, because every call passes here

    def discard(self, wait: Wait) -> None:
        """Do not watch a stream any more."""
        wait.pause()
        self._waits.discard(wait)

    def check(self) -> float:
        """Call `on_timeout` of each wait that lasts too long.

        Returns:
            The seconds until the next check.
        """
        now = time.monotonic()
        next_s = self.limit_s
        for wait in tuple(self._waits):
            since, on_timeout = wait.current or (now, None)
            left_s = since + self.limit_s - now
            if left_s > 0:
                next_s = min(next_s, left_s)
            elif on_timeout is not None:
                wait.pause()
                on_timeout()
        return next_s

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _run(self) -> None:
        is_stopped = False
        while not is_stopped:
            wait_s = min(self.check(), threading.TIMEOUT_MAX)
            with self._changed:
                is_stopped = self._changed.wait_for(lambda: self._is_stopped, wait_s)
