"""Records what happens to each call, from the threads of all senders."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pooling_loadtest.calls import NO_STATUS, RIGHT, WRONG, Calls

OK, CANCELLED, UNKNOWN, UNAVAILABLE = 0, 1, 2, 14
_TIMING = re.compile(r"queue;dur=([\d.]+), compute;dur=([\d.]+), total;dur=([\d.]+)")
_MASK = 1 << 12

Check = Callable[[int, Any], bool]


class Recorder:
    """Writes the columns of the calls of one generator process.

    Args:
        calls: columns with a row for each call.
        start_ns: time of `time.monotonic_ns` of the common start.
        verify: fraction of the replies to check.
        seed: seed of the choice of these replies.
        checks: for each kind, a function of the number of the payload and the reply.

    Attributes:
        done: number of calls with a reply or an error.
        succeeded: number of calls with a reply.
        unavailable: number of calls that failed with UNAVAILABLE.
        after: called with the row and its status when a call is done.
        fault: first fault of the generator itself, as a text; None without one.
        at_fault: called after a fault.
    """

    def __init__(
        self, calls: Calls, start_ns: int, verify: float, seed: int, checks: Sequence[Check]
    ) -> None:
        self.calls = calls
        self.done = self.succeeded = self.unavailable = 0
        self.after: Callable[[int, int], None] = lambda row, status: None
        self.fault: str | None = None
        self.at_fault: Callable[[], None] = lambda: None
        self._start_ns = start_ns
        self._is_over = False
        random = np.random.default_rng([seed, 0xC43C])
        self._is_checked = (random.random(_MASK) < verify).tolist()
        self._checks = checks
        self._lock = threading.Lock()

    def end(self) -> None:
        """Record nothing more."""
        with self._lock:
            self._is_over = True

    def now(self) -> int:
        """Return the time since the common start, in nanoseconds."""
        return time.monotonic_ns() - self._start_ns

    def replied(self, row: int, variant: int, reply: Any, size: int, timing: str = "") -> None:
        """Record a reply.

        Args:
            row: number of the call.
            variant: number of its payload.
            reply: the reply, as the check of the kind takes it.
            size: bytes of the reply.
            timing: value of the trailer `server-timing`.
        """
        if self._is_over:
            return
        calls = self.calls
        calls.done_ns[row] = self.now()
        calls.received_bytes[row] = size
        found = _TIMING.match(timing)
        if found:
            calls.queue_us[row] = float(found[1]) * 1e3
            calls.compute_us[row] = float(found[2]) * 1e3
            calls.total_us[row] = float(found[3]) * 1e3
        if self._is_checked[row % _MASK]:
            is_right = self._checks[calls.kind[row]](variant, reply)
            calls.verified[row] = RIGHT if is_right else WRONG
        self._finish(row, OK)

    def failed(self, row: int, status: int) -> None:
        """Record an error."""
        if self._is_over:
            return
        self.calls.done_ns[row] = self.now()
        self._finish(row, status)

    def broke(self, error: Exception, rows: Iterable[int] = ()) -> None:
        """Record a fault of the generator itself, which is no answer of the server.

        Args:
            error: the exception that no sender expects.
            rows: calls that it concerns; those without a reply fail with UNKNOWN.
        """
        if self._is_over:
            return
        if self.fault is None:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.fault = f"{text} ({Path(frame.filename).name}:{frame.lineno})"
        self.at_fault()
        for row in rows:
            if self.calls.status[row] == NO_STATUS:
                self.calls.done_ns[row] = self.now()
                self._count(row, UNKNOWN)

    def _finish(self, row: int, status: int) -> None:
        self._count(row, status)
        self.after(row, status)

    def _count(self, row: int, status: int) -> None:
        self.calls.status[row] = status
        with self._lock:
            self.done += 1
            if status == OK:
                self.succeeded += 1
            elif status == UNAVAILABLE:
                self.unavailable += 1
