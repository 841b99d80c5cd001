"""Threads of server reflection, each of which an open stream occupies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

MAX_THREADS = 8


class ReflectionThreads(ThreadPoolExecutor):
    """Thread pool in which a new stream ends the stream that has been idle for longest.

    Development tools hold reflection streams open without using them. When all threads are in use,
    the server cancels the stream that has waited for its client's next request for longest; the
    tool opens a new one when it needs it.
    """

    def __init__(self) -> None:
        super().__init__(MAX_THREADS, "pooling-reflection")
        self._idle: dict[grpc.ServicerContext, None] = {}  # longest idle first
        self._open = 0  # streams that run or wait for a thread
        self._ending = 0  # of them, those that were cancelled
        self._lock = threading.Lock()

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        """Run a stream; if no thread is free, cancel the stream that was idle for longest."""
        with self._lock:
            self._open += 1
        self._make_room()
        stream = super().submit(*arguments, **options)
        stream.add_done_callback(self._leave)
        return stream

    def requests(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Yield the requests of a stream, which is idle between them."""
        while True:
            with self._lock:
                self._idle[context] = None
            self._make_room()
            try:
                request = next(requests)
            except (StopIteration, grpc.RpcError):
                return
            finally:
                with self._lock:
                    if context in self._idle:
                        del self._idle[context]
                    else:
                        self._ending -= 1
            yield request

    def _make_room(self) -> None:
        with self._lock:
            if self._open - self._ending <= MAX_THREADS or not self._idle:
                return
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            self._ending += 1
        oldest.cancel()

    def _leave(self, _: Future[Any]) -> None:
        with self._lock:
            self._open -= 1
