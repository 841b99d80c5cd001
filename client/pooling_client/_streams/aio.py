"""Resumable stream for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Generic

import grpc

import pooling_wire
from pooling_client._streams.retries import (
    Backlog,
    Reply,
    Request,
    Retries,
    Token,
    closed_early,
)
from pooling_engine import PoolingError


async def exchange(
    open_stream: Callable[..., Any],
    requests: AsyncIterator[tuple[Token, Request]],
    *,
    window: int,
    timeout_s: float | None,
    target: str,
) -> AsyncGenerator[tuple[Token, Reply], None]:
    """Yield the reply to each request, in order, with the token of the request.

    A separate task consumes `requests`. An error in place of a request is not sent; it is yielded
    in place of the reply. After a lost connection the unanswered requests are sent again over a
    new stream.

    Args:
        open_stream: opens a stream, as gRPC's multicallables do.
        requests: pairs of a token and a request.
        window: maximum number of requests without a reply.
        timeout_s: seconds for the whole exchange; None for no deadline.
        target: address of the server, for error messages.

    Raises:
        PoolingError: the stream failed for good.
    """
    retries = Retries(timeout_s)
    feed = _Feed(requests, window)
    taking = asyncio.create_task(feed.take())
    try:
        while True:
            stream = open_stream(feed.send(), timeout=retries.left_s())
            try:
                async for entry in feed.receive(stream):
                    yield entry
                return
            except grpc.RpcError as error:
                failure = pooling_wire.decode_error(error, target)
            finally:
                stream.cancel()
            await asyncio.sleep(retries.backoff_s(failure, feed.answered))
            await feed.wait(retries.left_s())
    finally:
        taking.cancel()


class _Feed(Generic[Token]):
    """Source of the requests of successive streams, and sink of their replies."""

    def __init__(self, requests: AsyncIterator[tuple[Token, Request]], window: int) -> None:
        self._requests = requests
        self._backlog: Backlog[Token] = Backlog()
        self._room = asyncio.Semaphore(window)
        self._changed = asyncio.Condition()

    @property
    def answered(self) -> int:
        return self._backlog.answered

    async def take(self) -> None:
        """Take requests from the caller as long as there is room."""
        while not self._backlog.is_complete:
            await self._room.acquire()
            entry, failure = None, None
            try:
                entry = await anext(self._requests, None)
            except Exception as error:  # raised to the caller after the results before it
                failure = error
            async with self._changed:
                if entry is None:
                    self._backlog.complete(failure)
                else:
                    self._backlog.add(entry)
                self._changed.notify_all()

    async def wait(self, timeout_s: float | None) -> None:
        """Wait for an unanswered request or the end, so that no stream is opened to be idle."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has(self.answered), timeout_s)

    async def send(self) -> AsyncIterator[bytes]:
        """Yield the requests of the next stream: the unanswered ones, then new ones."""
        at = self.answered
        while await self._has(at):
            request = self._backlog.request(at)
            at += 1
            if isinstance(request, bytes):
                yield request

    async def receive(self, stream: Any) -> AsyncIterator[tuple[Token, Reply]]:
        """Yield the replies of a stream, in order, until the last request has its reply."""
        while await self._has(self.answered):
            entry = self._backlog.oldest()
            assert entry is not None
            token, request = entry
            reply = request if isinstance(request, PoolingError) else await stream.read()
            if reply is grpc.aio.EOF:
                raise closed_early()
            self._backlog.answer()
            self._room.release()
            yield token, reply
        self._backlog.check()

    async def _has(self, number: int) -> bool:
        """Wait for the request of a number, or the end; return False at the end."""
        backlog = self._backlog
        async with self._changed:
            await self._changed.wait_for(lambda: number < backlog.taken or backlog.is_complete)
        return number < backlog.taken
