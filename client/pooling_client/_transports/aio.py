"""Asyncio transport, and the driver that runs the steps of a call over it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

import pooling_wire
from pooling_client import _channel
from pooling_client._call_steps import Result, Send, Share, Steps, Stream
from pooling_client._streams.aio import Feed
from pooling_client._streams.retries import Reply, Request, Retries, Token
from pooling_client._transports.aio_shared import SharedStreams
from pooling_engine import PoolingError

Item = TypeVar("Item")


class AsyncGrpcTransport:
    """Transport with one gRPC call for each request or stream, for the tasks of one event loop.

    Another transport needs the same methods: the driver uses `send`, `share` and `stream`.

    Args:
        target: address of the server, for error messages.
        channels: channels to the server; calls take turns.
    """

    def __init__(self, target: str, channels: Sequence[grpc.aio.Channel]) -> None:
        self._target = target
        self._channels = channels
        self._turns: Iterator[_channel.Methods] = itertools.cycle(
            map(_channel.methods_of, channels)
        )
        self._shared = [SharedStreams(channel.stream_stream) for channel in channels]
        self._shared_turns = itertools.cycle(self._shared)
        self._is_closed = False

    async def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Send a request of a unary method and return the reply.

        Raises:
            PoolingError: the call failed.
        """
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = next(self._turns).unary(method)
        try:
            return await call(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise pooling_wire.decode_error(error, self._target) from None

    async def share(self, method: str, item: bytes, timeout_s: float) -> bytes | None:
        """Send an item over a stream that calls share, and return its reply.

        Returns:
            The reply; None if the call is to be sent as a unary call.

        Raises:
            PoolingError: the timeout has passed, or the client was closed meanwhile.
        """
        if self._is_closed:
            return None
        shared = next(self._shared_turns)
        try:
            reply = await shared.exchange(method, item, time.monotonic() + timeout_s)
        except TimeoutError:
            raise _channel.not_in_time(self._target) from None
        if reply is None and self._is_closed:
            raise _channel.closed_meanwhile(self._target)
        return reply

    async def stream(
        self,
        method: str,
        requests: AsyncIterator[tuple[Token, Request]],
        *,
        window: int,
        timeout_s: float | None,
    ) -> AsyncGenerator[tuple[Token, Reply], None]:
        """Yield the reply to each request, in order, with the token of the request.

        An error in place of a request is not sent; it is yielded in place of the reply. After a
        lost connection, the unanswered requests are sent again over a new stream.

        Args:
            method: path of a streaming method.
            requests: pairs of a token and a request, consumed in another task.
            window: maximum number of requests without a reply.
            timeout_s: seconds for the whole exchange; None for no deadline.

        Raises:
            PoolingError: the stream failed for good.
        """
        open_stream = next(self._turns).stream(method)
        retries, feed = Retries(timeout_s), Feed(requests, window)
        taking = asyncio.create_task(feed.take())
        try:
            while True:
                stream = open_stream(feed.send(), timeout=retries.left_s())
                try:
                    async for entry in feed.receive(stream):
                        yield entry
                    return
                except grpc.RpcError as error:
                    failure = pooling_wire.decode_error(error, self._target)
                finally:
                    stream.cancel()
                await asyncio.sleep(retries.backoff_s(failure, feed.answered))
                await feed.wait(retries.left_s())
        finally:
            taking.cancel()

    async def close(self) -> None:
        """Close the channels. Calls in flight are cancelled; later ones raise ValueError."""
        self._turns, self._is_closed = iter(_channel.closed, None), True
        for shared in self._shared:
            shared.close()
        for channel in self._channels:
            await channel.close()


async def run(steps: Steps[Result], transport: AsyncGrpcTransport) -> Result:
    """Perform the steps of a call and return its result."""
    resume: Any = steps.send
    reply: Any = None
    try:
        while True:
            try:
                step = resume(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            try:
                resume, reply = steps.send, await _perform(step, transport)
            except PoolingError as error:
                resume, reply = steps.throw, error
            del step  # so that the request is freed before its reply is decoded
    finally:
        del reply  # an error and its traceback would keep each other alive


async def _perform(step: Send | Share | Stream, transport: AsyncGrpcTransport) -> bytes | None:
    if type(step) is Send:
        return await transport.send(*step)
    if type(step) is Share:
        return await transport.share(*step)
    assert type(step) is Stream
    replies = transport.stream(
        step.method, one_by_one(step.requests), window=step.window, timeout_s=step.timeout_s
    )
    async with aclosing(replies):
        async for token, reply in replies:
            step.receive(token, reply)
    return None


async def one_by_one(items: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items of an iterable of either kind."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item
