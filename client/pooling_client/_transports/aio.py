"""Asyncio transport and driver."""

from __future__ import annotations

import itertools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc

import pooling_wire
from pooling_client import _channel
from pooling_client._carry import Result, Send, Steps, Stream
from pooling_client._streams.aio import exchange
from pooling_client._streams.retries import Reply, Request, Token
from pooling_engine import PoolingError

Item = TypeVar("Item")


class AsyncTransport(Protocol):
    """Connection to a server, for the tasks of one event loop."""

    async def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Send a request of a unary method and return the reply.

        Raises:
            PoolingError: the call failed.
        """

    def stream(
        self,
        method: str,
        requests: AsyncIterator[tuple[Token, Request]],
        *,
        window: int,
        timeout_s: float | None,
    ) -> AsyncGenerator[tuple[Token, Reply], None]:
        """Yield the replies of a streaming method: see `pooling_client._streams.aio.exchange`."""

    async def close(self) -> None:
        """Cancel the calls in flight; later ones raise ValueError."""


class AsyncGrpcTransport(AsyncTransport):
    """Transport with one call of gRPC for each request or stream.

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

    async def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Send a request in a unary call."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = next(self._turns).unary(method)
        try:
            return await call(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise pooling_wire.decode_error(error, self._target) from None

    def stream(
        self,
        method: str,
        requests: AsyncIterator[tuple[Token, Request]],
        *,
        window: int,
        timeout_s: float | None,
    ) -> AsyncGenerator[tuple[Token, Reply], None]:
        """Open a stream, and another one after a lost connection."""
        open_stream = next(self._turns).stream(method)
        return exchange(
            open_stream, requests, window=window, timeout_s=timeout_s, target=self._target
        )

    async def close(self) -> None:
        """Close the channels."""
        self._turns = iter(_channel.closed, None)
        for channel in self._channels:
            await channel.close()


async def run(steps: Steps[Result], transport: AsyncTransport) -> Result:
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


async def _perform(step: Send | Stream, transport: AsyncTransport) -> bytes | None:
    if type(step) is Send:
        return await transport.send(*step)
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
