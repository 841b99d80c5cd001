"""The two ways to offer load: calls at scheduled times, or callers that wait for replies."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pooling_loadtest.recorder import OK, Recorder
from pooling_loadtest.sending.base import Sender

_NAP_S = 0.05  # longest sleep, so that a stop is noticed
_RETRY_S = 0.01  # pause of a caller after an error
_BLOCK = 4096
_GRACE_S = 1.0  # for calls in flight after a stop


class Loop:
    """Offers the load of one process.

    Args:
        senders: one for each kind.
        recorder: records the calls.
        kinds: kind of each call, repeated if there are more calls.
        sent_bytes: size of a request of each kind.

    Attributes:
        sent: number of calls that were started.
        delayed: number of calls that waited because too many were in flight.
        ended_ns: time at which `end` was called.
        stop: set by `end`.
    """

    def __init__(
        self,
        senders: Sequence[Sender],
        recorder: Recorder,
        kinds: NDArray[np.uint8],
        sent_bytes: Sequence[int],
    ) -> None:
        self.sent = self.delayed = 0
        self.ended_ns = sys.maxsize
        self.stop = threading.Event()
        self._recorder, self._calls = recorder, recorder.calls
        self._senders, self._sent_bytes = senders, sent_bytes
        self._variants = [sender.variants for sender in senders]
        self._kinds = kinds
        recorder.at_fault = self.end

    def end(self) -> None:
        """Stop early."""
        self.ended_ns = self._recorder.now()
        self.stop.set()

    def run_open(self, max_in_flight: int) -> None:
        """Send each call when it is due, and wait for the replies.

        Args:
            max_in_flight: a call waits while so many are in flight.
        """
        calls, recorder = self._calls, self._recorder
        free = threading.Semaphore(max_in_flight)
        recorder.after = lambda row, status: free.release()
        for row, due_ns in enumerate(_numbers(calls.scheduled_ns)):
            while (wait_ns := due_ns - recorder.now()) > 0 and not self.stop.is_set():
                time.sleep(min(wait_ns / 1e9, _NAP_S))
            if not free.acquire(blocking=False):
                self.delayed += 1
                while not free.acquire(timeout=_NAP_S):
                    if self.stop.is_set():
                        break
            if self.stop.is_set():
                break
            self._start(row)
            self.sent = row + 1

    def run_closed(self, callers: int, duration_s: float) -> None:
        """Let each caller send its next call after the reply to its last one.

        Args:
            callers: number of callers.
            duration_s: time after which they send no further call.
        """
        calls, recorder = self._calls, self._recorder
        end_ns, lock = int(duration_s * 1e9), threading.Lock()
        paused: queue.SimpleQueue[None] = queue.SimpleQueue()

        def start() -> None:
            now = recorder.now()
            if now >= end_ns or self.stop.is_set():
                return
            with lock:
                row = self.sent
                if row >= len(calls):
                    return
                self.sent += 1
            calls.clear(row)
            calls.scheduled_ns[row] = now
            self._start(row)

        def after(row: int, status: int) -> None:
            if status == OK:
                start()
            else:
                paused.put(None)  # a server that fails at once must not keep us busy

        recorder.after = after
        for _ in range(callers):
            start()
        while (left_ns := end_ns - recorder.now()) > 0 and not self.stop.is_set():
            try:
                paused.get(timeout=min(left_ns / 1e9, _NAP_S))
            except queue.Empty:
                continue
            time.sleep(_RETRY_S / callers)
            start()

    def wait(self, timeout_s: float) -> None:
        """Wait for the calls in flight: until their deadline, or shortly after a stop."""
        start = time.monotonic()
        while self._recorder.done < self.sent:
            limit_s = min(timeout_s, _GRACE_S) if self.stop.is_set() else timeout_s
            if time.monotonic() - start > limit_s:
                return
            time.sleep(0.005)

    def _start(self, row: int) -> None:
        kind = int(self._kinds[row % len(self._kinds)])
        calls = self._calls
        calls.kind[row] = kind
        calls.sent_bytes[row] = self._sent_bytes[kind]
        calls.sent_ns[row] = self._recorder.now()
        self._senders[kind].send(row, row % self._variants[kind])


def _numbers(column: NDArray[np.int64]) -> Iterator[int]:
    """Yield the numbers of a column; a list of all would take several times its memory."""
    for start in range(0, len(column), _BLOCK):
        yield from column[start : start + _BLOCK].tolist()
