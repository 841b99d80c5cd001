"""Requests and replies of a resumable stream, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
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
        requests: pairs of a token and a request, consumed in `take`. An error in place of
            a request is not sent; it is returned in place of the reply.
        window: maximum number of requests without a reply.
    """

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
            except BaseException as error:  # raised to the caller after the results before it
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
