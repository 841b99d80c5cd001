"""Calls of `forward_many` and `backward_many` of the client."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from pooling_client import PoolingClient
from pooling_engine import ForwardCall, PoolingError
from pooling_loadtest.payloads import Payload
from pooling_loadtest.recorder import Recorder
from pooling_loadtest.sending.threads import status_of


class ManySender:
    """Gives calls to `forward_many` or `backward_many` when they are due.

    The client sends a few calls ahead of the results; a call that it has not taken yet counts as
    not sent.

    Args:
        client: client of the server; `close` closes it.
        payloads: the calls.
        recorder: records the calls.
    """

    limit = 0

    def __init__(
        self, client: PoolingClient, payloads: Sequence[Payload], recorder: Recorder
    ) -> None:
        self.variants = len(payloads)
        self._payloads, self._recorder = payloads, recorder
        self._client = client
        self._queue: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._is_closed = False
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, row: int, variant: int) -> None:
        """Queue a call."""
        self._queue.put((row, variant))

    def close(self) -> None:
        """Close the client, which cancels its streams."""
        self._is_closed = True
        self._queue.put(None)
        self._client.close()

    def _run(self) -> None:
        is_forward = isinstance(self._payloads[0].call, ForwardCall)
        many: Any = self._client.forward_many if is_forward else self._client.backward_many
        while not self._is_closed:
            waiting: deque[tuple[int, int]] = deque()
            try:
                for result in many(self._calls(waiting), return_exceptions=True):
                    self._record(*waiting[0], result)
                    waiting.popleft()
            except PoolingError as error:
                status = status_of(error)
                for row, _ in list(waiting):
                    self._recorder.failed(row, status)
            except Exception as error:  # would end the thread, and leave its calls without a status
                self._recorder.broke(error, [row for row, _ in waiting])

    def _calls(self, waiting: deque[tuple[int, int]]) -> Iterator[Any]:
        while (taken := self._queue.get()) is not None:
            row, variant = taken
            self._recorder.calls.sent_ns[row] = self._recorder.now()
            waiting.append(taken)
            yield self._payloads[variant].call

    def _record(self, row: int, variant: int, result: Any) -> None:
        if isinstance(result, PoolingError):
            self._recorder.failed(row, status_of(result))
        else:
            self._recorder.replied(row, variant, result, self._payloads[variant].reply_bytes)
