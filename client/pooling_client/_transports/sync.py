"""Blocking transport and driver."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

import grpc

import pooling_wire
from pooling_client import _channel
from pooling_client._carry import Result, Send, Steps, Stream
from pooling_client._streams.retries import Reply, Request, Token
from pooling_client._streams.sync import exchange
from pooling_engine import PoolingError


class Transport(Protocol):
    """Connection to a server. Safe to share between threads."""

    def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Send a request of a unary method and return the reply.

        Raises:
            PoolingError: the call failed.
        """

    def stream(
        self,
        method: str,
        requests: Iterator[tuple[Token, Request]],
        *,
        window: int,
        timeout_s: float | None,
    ) -> Generator[tuple[Token, Reply], None, None]:
        """Yield the replies of a streaming method: see `pooling_client._streams.sync.exchange`."""

    def close(self) -> None:
        """Cancel the calls in flight; later ones raise ValueError."""


class GrpcTransport(Transport):
    """Transport with one call of gRPC for each request or stream.

    Args:
        target: address of the server, for error messages.
        channels: channels to the server; calls take turns.
    """

    def __init__(self, target: str, channels: Sequence[grpc.Channel]) -> None:
        self._target = target
        self._channels = channels
        self._turns: Iterator[_channel.Methods] = itertools.cycle(
            map(_channel.methods_of, channels)
        )

    def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Send a request in a unary call."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = next(self._turns).unary(method)
        try:
            return call(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise pooling_wire.decode_error(error, self._target) from None

    def stream(
        self,
        method: str,
        requests: Iterator[tuple[Token, Request]],
        *,
        window: int,
        timeout_s: float | None,
    ) -> Generator[tuple[Token, Reply], None, None]:
        """Open a stream, and another one after a lost connection."""
        open_stream = next(self._turns).stream(method)
        return exchange(
            open_stream, requests, window=window, timeout_s=timeout_s, target=self._target
        )

    def close(self) -> None:
        """Close the channels."""
        self._turns = iter(_channel.closed, None)
        for channel in self._channels:
            channel.close()


def run(steps: Steps[Result], transport: Transport) -> Result:
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
                resume, reply = steps.send, _perform(step, transport)
            except PoolingError as error:
                resume, reply = steps.throw, error
            del step  # so that the request is freed before its reply is decoded
    finally:
        del reply  # an error and its traceback would keep each other alive


def _perform(step: Send | Stream, transport: Transport) -> bytes | None:
    if type(step) is Send:
        return transport.send(*step)
    assert type(step) is Stream
    replies = transport.stream(
        step.method, step.requests, window=step.window, timeout_s=step.timeout_s
    )
    with closing(replies):
        for token, reply in replies:
            step.receive(token, reply)
    return None
