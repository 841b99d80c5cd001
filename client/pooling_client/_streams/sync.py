"""One stream of requests and replies: bounded, in order, and taken up again if the server goes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

import grpc

import pooling_wire
from pooling_engine import InternalError, PoolingError, UnavailableError

Token = TypeVar("Token")
OpenStream = Callable[..., Any]

ATTEMPTS = 6  # without a reply in between, over some 3 s: more than for one call, as more is lost
FIRST_BACKOFF_S, MOST_BACKOFF_S = 0.1, 2.0


def exchange(
    open_stream: OpenStream,
    requests: Iterator[tuple[Token, bytes | PoolingError]],
    *,
    window: int,
    timeout_s: float | None,
    target: str,
) -> Generator[tuple[Token, bytes | PoolingError], None, None]:
    """The replies to requests, each with what came with its request.

    Requests are taken from their iterator in a thread of gRPC's. An error in place of a request is
    not sent, and comes back in its place. Should the server go, what has no reply is sent again.

    Args:
        open_stream: opens one, as gRPC's multicallables do.
        window: the most requests that are sent, or about to be, and have no reply.
        timeout_s: seconds for everything, or None.
        target: the server, for the text of errors.

    Raises:
        PoolingError: the stream failed.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    feed = _Feed(requests, window)
    failures, backoff_s = 0, FIRST_BACKOFF_S
    try:
        while True:
            answered = feed.answered
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            stream = open_stream(feed.send(), timeout=left_s)
            try:
                yield from feed.receive(stream)
                return
            except grpc.RpcError as error:
                failure = pooling_wire.decode_error(error, target)
            finally:
                stream.cancel()
            if feed.answered > answered:
                failures, backoff_s = 0, FIRST_BACKOFF_S
            failures += 1
            is_too_late = deadline is not None and time.monotonic() + backoff_s > deadline
            if not isinstance(failure, UnavailableError) or failures == ATTEMPTS or is_too_late:
                raise failure
            time.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)
            feed.wait(deadline)
    finally:
        feed.close()


class _Feed(Generic[Token]):
    """What has been sent and has no reply, for one stream after the other.

    Attributes:
        answered: how many requests have their reply.
    """

    def __init__(self, requests: Iterator[tuple[Token, bytes | PoolingError]], window: int) -> None:
        self.answered = 0
        self._requests = requests
        self._unanswered: deque[tuple[Token, bytes | PoolingError]] = deque()
        self._stream_number = 0
        self._ended = 0  # the number of the last stream that has ended
        self._is_over = False
        self._failure: BaseException | None = None
        self._room = threading.Semaphore(window)
        self._taking = threading.Lock()  # held while the next request is made, by one thread only
        self._state = threading.Condition()

    def send(self) -> Iterator[bytes]:
        """The requests of the next stream: those without a reply, then those to come."""
        self._stream_number += 1
        return self._send(self._stream_number, self.answered)

    def _send(self, stream_number: int, at: int) -> Iterator[bytes]:
        while stream_number == self._stream_number:
            request = self._request(at)
            if request is None:
                # The thread of a stream that broke may be in here, and wait for room: that comes
                # with the replies to what is sent again, which needs no lock.
                with self._taking:
                    if self._request(at) is None and not self._take():
                        return
                continue
            at += 1
            if isinstance(request, bytes):
                yield request

    def _request(self, at: int) -> bytes | PoolingError | None:
        """The request of that number, if it has been made."""
        with self._state:
            place = at - self.answered
            return self._unanswered[place][1] if 0 <= place < len(self._unanswered) else None

    def _take(self) -> bool:
        """Makes the next request; returns whether there was one."""
        self._room.acquire()
        if self._is_over:
            return False
        entry = None
        try:
            entry = next(self._requests, None)
        except Exception as error:  # of the caller's: raised where the caller is
            self._failure = error
        with self._state:
            if entry is None:
                self._is_over = True
            else:
                self._unanswered.append(entry)
            self._state.notify_all()
        return entry is not None

    def wait(self, deadline: float | None) -> None:
        """Waits until there is something to send, lest the next stream be idle; or for the end."""

        def take() -> None:
            with self._taking:
                if self._request(self.answered) is None and not self._is_over:
                    self._take()

        with self._state:
            if self._unanswered or self._is_over:
                return
        # The thread of the stream that ended may be taking one already; else nobody is.
        threading.Thread(target=take, name="pooling-requests", daemon=True).start()
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        with self._state:
            self._state.wait_for(lambda: self._unanswered or self._is_over, left_s)

    def receive(self, stream: Any) -> Iterator[tuple[Token, bytes | PoolingError]]:
        """What comes back, in order, until the last request has its reply."""
        number = self._stream_number
        if not stream.add_callback(lambda: self._end(number)):
            self._end(number)
        while self._has_more(number):
            entry = self._unanswered[0] if self._unanswered else None
            request = None if entry is None else entry[1]
            reply = request if isinstance(request, PoolingError) else next(stream, None)
            if reply is None or entry is None:
                raise InternalError("the server ended a stream that it should have gone on with")
            with self._state:
                self._unanswered.popleft()
                self.answered += 1
            self._room.release()
            yield entry[0], reply
        if self._failure is not None:
            raise self._failure

    def _has_more(self, number: int) -> bool:
        """Waits until there is a request without a reply, or the end of all, or of the stream."""
        with self._state:
            self._state.wait_for(lambda: self._unanswered or self._is_over or self._ended == number)
            return bool(self._unanswered) or not self._is_over

    def _end(self, number: int) -> None:
        with self._state:
            self._ended = number
            self._state.notify_all()

    def close(self) -> None:
        """Lets go the thread that makes requests, if it waits for room."""
        self._stream_number += 1
        self._is_over = True
        self._room.release()
