"""Small calls of all tasks over one stream for each connection and method."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from time import monotonic
from typing import Any

import grpc

from pooling_client._connection import Pairs
from pooling_client._transports.shared_calls import IDLE_S, Openings, SharedCalls

Reply = asyncio.Future[bytes | None]


class SharedStream:
    """An open stream for the calls of all tasks.

    Cancelling a task that reads or writes a stream of gRPC ends the stream. Therefore tasks of this
    class read and write, and the callers wait for futures.

    Args:
        stream: a stream of `grpc.aio` without a deadline.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._calls: SharedCalls[Reply] = SharedCalls(monotonic())
        self._loop = asyncio.get_running_loop()
        self._reading = self._loop.create_task(self._read())
        self._writing: asyncio.Task[None] | None = None
        self._idle_timer = self._loop.call_later(IDLE_S, self._close_if_idle)

    @property
    def is_ended(self) -> bool:
        """True if calls need another stream."""
        return self._calls.is_ended

    @property
    def has_replied(self) -> bool:
        """True after the first reply."""
        return self._calls.has_replied

    async def exchange(self, item: bytes, deadline: float) -> bytes | None:
        """Send an item and return its reply.

        Args:
            item: the item.
            deadline: time of `time.monotonic`.

        Returns:
            The reply; None if the stream has ended without it, so that the call is to be repeated.

        Raises:
            TimeoutError: the deadline has passed.
        """
        now = monotonic()
        reply: Reply = self._loop.create_future()
        if self._calls.add(reply, item, now):
            self._writing = self._loop.create_task(self._write(item))
        until = self._calls.until(deadline)
        try:
            async with asyncio.timeout(until - now):
                return await reply
        except TimeoutError:
            if monotonic() >= deadline:
                raise
            return None
        finally:
            if not reply.done() or reply.cancelled():
                self._leave(reply)

    def close(self) -> None:
        """End the stream; calls without a reply get none."""
        if self._calls.is_ended:
            return
        for reply in self._calls.end():
            if not reply.done():
                reply.set_result(None)
        self._idle_timer.cancel()
        self._stream.cancel()

    def _leave(self, reply: Reply) -> None:
        """Stop waiting for a reply."""
        if not self._calls.is_ended:
            self._calls.abandon(reply)
            if self._calls.is_silent(monotonic()):
                self.close()

    async def _write(self, item: bytes | None) -> None:
        """Send an item, and those that callers add meanwhile."""
        try:
            while item is not None:
                await self._stream.write(item)
                item = self._calls.sent()
        except (grpc.RpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            self.close()  # the reading task ends too

    async def _read(self) -> None:
        """Give each caller its reply, until the stream ends."""
        try:
            while (message := await self._stream.read()) is not grpc.aio.EOF:
                reply = self._calls.replied(monotonic())
                if reply is not None and not reply.done():
                    reply.set_result(message)
        except (grpc.RpcError, asyncio.CancelledError):
            pass
        finally:
            self.close()

    def _close_if_idle(self) -> None:
        idle_s = 0 if len(self._calls) else self._calls.idle_s(monotonic())
        if idle_s >= IDLE_S:
            self.close()
        else:
            self._idle_timer = self._loop.call_later(IDLE_S - idle_s, self._close_if_idle)


class SharedStreams:
    """The shared streams of one connection, by method.

    Args:
        methods: returns the multicallable of a streaming method.
        metadata: returns the metadata of a stream.
    """

    def __init__(self, methods: Any, metadata: Callable[[], Pairs | None]) -> None:
        self._methods = methods
        self._metadata = metadata
        self._openings: defaultdict[str, Openings] = defaultdict(Openings)
        self._streams: dict[str, SharedStream] = {}

    async def exchange(self, path: str, item: bytes, deadline: float) -> bytes | None:
        """Send an item of a streaming method and return its reply.

        Args:
            path: path of the method.
            item: the item.
            deadline: time of `time.monotonic`.

        Returns:
            The reply; None if the call is to be sent in another way.

        Raises:
            TimeoutError: the deadline has passed.
        """
        stream = self._streams.get(path)
        if stream is None or stream.is_ended:
            stream = self._open(path)
        return None if stream is None else await stream.exchange(item, deadline)

    def close(self) -> None:
        """End the streams; calls without a reply get none."""
        for stream in self._streams.values():
            stream.close()

    def _open(self, path: str) -> SharedStream | None:
        """Open a stream, unless calls are to be unary for now."""
        now, openings = monotonic(), self._openings[path]
        if (ended := self._streams.pop(path, None)) is not None:
            openings.ended(ended.has_replied, now)
        if not openings.allows(now):
            return None
        stream = self._streams[path] = SharedStream(self._methods(path)(metadata=self._metadata()))
        return stream
