"""Requests and replies of a resumable stream, for threads."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any, Generic

import grpc

from pooling_client._streams.backlog import (
    Backlog,
    Reply,
    Request,
    Token,
    closed_early,
)
from pooling_engine import PoolingError


class Feed(Generic[Token]):
    """Requests of successive streams and their replies, in order.

    Args:
        requests: pairs of a token and a request, consumed in a thread of gRPC. An error in place of
            a request is not sent; it is returned in place of the reply.
        window: maximum number of requests without a reply.

    Attributes:
        is_interrupted: True if a signal handler has raised an error within gRPC.
    """

    def __init__(self, requests: Iterator[tuple[Token, Request]], window: int) -> None:
        self.is_interrupted = False
        self._requests = requests
        self._backlog: Backlog[Token] = Backlog()
        self._stream_number = 0
        self._ended = 0  # number of the last stream that has ended
        self._room = threading.Semaphore(window)
        self._taking = threading.Lock()  # held by the one thread that takes the next request
        self._state = threading.Condition()  # guards the backlog

    @property
    def answered(self) -> int:
        return self._backlog.answered

    def send(self) -> Iterator[bytes]:
        """Return the requests of the next stream: the unanswered ones, then new ones."""
        self._stream_number += 1
        return self._send(self._stream_number, self._backlog.answered)

    def _send(self, stream_number: int, number: int) -> Iterator[bytes]:
        while stream_number == self._stream_number:
            with self._state:  # an error in place of a request may have been answered meanwhile
                number = max(number, self._backlog.answered)
                request = self._backlog.request(number)
            if request is None:
                # The thread of a broken stream may hold the lock while it waits for room. The
                # replies to resent requests make room, and resending needs no lock.
                with self._taking:
                    if not self._has(number) and not self._take():
                        return
                continue
            number += 1
            if isinstance(request, bytes):
                yield request

    def _has(self, number: int) -> bool:
        """Return whether the request of a number has been taken."""
        with self._state:
            return number < self._backlog.taken

    def _take(self) -> bool:
        """Take the next request from the caller; return False if there is none."""
        self._room.acquire()
        if self._backlog.is_complete:
            return False
        entry, failure = None, None
        try:
            entry = next(self._requests, None)
        except BaseException as error:  # raised to the caller after the results before it
            failure = error
        with self._state:
            if entry is None:
                self._backlog.complete(failure)
            else:
                self._backlog.add(entry)
            self._state.notify_all()
        return entry is not None

    def wait(self, timeout_s: float | None) -> None:
        """Wait for an unanswered request or the end, so that no stream is opened to be idle."""

        def take() -> None:
            with self._taking:
                if not self._backlog and not self._backlog.is_complete:
                    self._take()

        with self._state:
            if self._backlog or self._backlog.is_complete:
                return
        # The thread of the ended stream may be taking a request already; otherwise none is.
        threading.Thread(target=take, name="pooling-requests", daemon=True).start()
        with self._state:
            self._state.wait_for(lambda: self._backlog or self._backlog.is_complete, timeout_s)

    def receive(self, stream: Any) -> Iterator[tuple[Token, Reply]]:
        """Yield the replies of a stream, in order, until the last request has its reply."""
        number = self._stream_number
        if not stream.add_callback(lambda: self._end(number)):
            self._end(number)
        while self._has_more(number):
            entry = self._backlog.oldest()
            request = None if entry is None else entry[1]
            reply = request if isinstance(request, PoolingError) else self._next(stream)
            if reply is None or entry is None:
                raise closed_early()
            with self._state:
                self._backlog.answer()
            self._room.release()
            yield entry[0], reply
        self._backlog.check()

    def _next(self, stream: Any) -> bytes | None:
        try:
            reply: bytes | None = next(stream, None)
        except grpc.RpcError:
            raise
        except BaseException as error:  # of a signal handler, or of an interceptor
            is_own = type(stream).__module__ == "grpc._channel"
            self.is_interrupted = is_own or not isinstance(error, Exception)
            raise
        return reply

    def _has_more(self, number: int) -> bool:
        """Wait for an unanswered request, the end of the requests or the end of the stream."""
        backlog = self._backlog
        with self._state:
            self._state.wait_for(lambda: backlog or backlog.is_complete or self._ended == number)
            return bool(backlog) or not backlog.is_complete

    def _end(self, number: int) -> None:
        with self._state:
            self._ended = number
            self._state.notify_all()

    def close(self) -> None:
        """Release the thread that takes requests, if it waits for room."""
        self._stream_number += 1
        self._backlog.complete()
        self._room.release()


def end_later(stream: Any, feed: Feed[Any]) -> None:
    """End a stream in another thread, after a signal handler has raised an error in this one.

    That may have happened before gRPC released a lock. To end the stream here, or to destroy
    it when the program ends, could then block without end. Its destructor therefore never runs.

    Args:
        stream: the stream, of `grpc`.
        feed: its requests.
    """

    def end() -> None:
        stream.cancel()
        feed.close()

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
    threading.Thread(target=end, name="pooling-interrupted", daemon=True).start()
