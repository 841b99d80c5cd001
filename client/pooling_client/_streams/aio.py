"""The asyncio twin of `_exchange`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc

import pooling_wire
from pooling_client._streams.sync import ATTEMPTS, FIRST_BACKOFF_S, MOST_BACKOFF_S
from pooling_engine import InternalError, PoolingError, UnavailableError

Token = TypeVar("Token")


async def exchange_async(
    open_stream: Callable[..., Any],
    requests: AsyncIterator[tuple[Token, bytes | PoolingError]],
    *,
    window: int,
    timeout_s: float | None,
    target: str,
) -> AsyncGenerator[tuple[Token, bytes | PoolingError], None]:
    """The replies to requests; see `exchange`. Requests are taken in a task of their own."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    feed = _Feed(requests, window)
    taking = asyncio.create_task(feed.take())
    failures, backoff_s = 0, FIRST_BACKOFF_S
    try:
        while True:
            answered = feed.answered
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            stream = open_stream(feed.send(), timeout=left_s)
            try:
                async for entry in feed.receive(stream):
                    yield entry
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
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)
            await feed.wait(deadline)
    finally:
        taking.cancel()


class _Feed(Generic[Token]):
    """What has been sent and has no reply, for one stream after the other."""

    def __init__(
        self, requests: AsyncIterator[tuple[Token, bytes | PoolingError]], window: int
    ) -> None:
        self.answered = 0
        self._requests = requests
        self._unanswered: deque[tuple[Token, bytes | PoolingError]] = deque()
        self._is_over = False
        self._failure: Exception | None = None
        self._room = asyncio.Semaphore(window)
        self._changed = asyncio.Condition()

    async def take(self) -> None:
        """Makes the requests, as there is room for them."""
        while not self._is_over:
            await self._room.acquire()
            entry = None
            try:
                entry = await anext(self._requests, None)
            except Exception as error:  # of the caller's: raised where the caller is
                self._failure = error
            async with self._changed:
                if entry is None:
                    self._is_over = True
                else:
                    self._unanswered.append(entry)
                self._changed.notify_all()

    async def wait(self, deadline: float | None) -> None:
        """Waits until there is something to send, lest the next stream be idle; or for the end."""
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has(self.answered), left_s)

    async def send(self) -> AsyncIterator[bytes]:
        """The requests of the next stream: those without a reply, then those to come."""
        at = self.answered
        while await self._has(at):
            request = self._unanswered[at - self.answered][1]
            at += 1
            if isinstance(request, bytes):
                yield request

    async def receive(self, stream: Any) -> AsyncIterator[tuple[Token, bytes | PoolingError]]:
        """What comes back, in order, until the last request has its reply."""
        while await self._has(self.answered):
            token, request = self._unanswered[0]
            reply = request if isinstance(request, PoolingError) else await stream.read()
            if reply is grpc.aio.EOF:
                raise InternalError("the server ended a stream that it should have gone on with")
            self._unanswered.popleft()
            self.answered += 1
            self._room.release()
            yield token, reply
        if self._failure is not None:
            raise self._failure

    async def _has(self, at: int) -> bool:
        """Waits until there is a request of that number, or the end."""

        def is_there() -> bool:
            return at < self.answered + len(self._unanswered)

        async with self._changed:
            await self._changed.wait_for(lambda: is_there() or self._is_over)
        return is_there()
