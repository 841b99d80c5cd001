"""Streams of many calls, of the asyncio client."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, Literal, TypeVar, overload

from pooling_client import _channel
from pooling_client._calls.backward import PreparedBackward
from pooling_client._calls.base import Array, PreparedCall
from pooling_client._calls.forward import PreparedForward
from pooling_client._calls.many import item_of, outcome_of
from pooling_client._client import Client
from pooling_client._limits import MANY_WINDOW
from pooling_client._streams.backlog import Request
from pooling_client._transports.aio import AsyncGrpcTransport
from pooling_client._transports.drivers import one_by_one
from pooling_engine import BackwardCall, ForwardCall, ForwardResult, PoolingError

Result = TypeVar("Result")


class AsyncManyCalls(Client):
    """The methods of the asyncio client for many calls."""

    _transport: AsyncGrpcTransport

    @overload
    def forward_many(
        self,
        calls: AsyncIterable[ForwardCall] | Iterable[ForwardCall],
        *,
        return_exceptions: Literal[False] = False,
        timeout: float | None = None,
    ) -> AsyncIterator[ForwardResult]: ...

    @overload
    def forward_many(
        self,
        calls: AsyncIterable[ForwardCall] | Iterable[ForwardCall],
        *,
        return_exceptions: bool,
        timeout: float | None = None,
    ) -> AsyncIterator[ForwardResult | PoolingError]: ...

    def forward_many(
        self,
        calls: AsyncIterable[ForwardCall] | Iterable[ForwardCall],
        *,
        return_exceptions: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[ForwardResult | PoolingError]:
        """Pool many tensors over one stream.

        Args:
            calls: any number of `ForwardCall` objects, or an endless iterable. They are consumed
                in another task, a few calls ahead of the results.
            return_exceptions: yield the error of a call in place of its result and continue,
                instead of raising it and ending the stream.
            timeout: seconds for the whole stream; None for no deadline.

        Returns:
            An iterator over the results, in the order of the calls. It opens the stream for its
            first item. Closing the iterator cancels the stream.

        Raises:
            PoolingError: a call or the stream failed, with the classes of `forward`.
            ValueError: the client is closed.
        """
        return self._many(PreparedForward, calls, return_exceptions, timeout)

    @overload
    def backward_many(
        self,
        calls: AsyncIterable[BackwardCall] | Iterable[BackwardCall],
        *,
        return_exceptions: Literal[False] = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Array]: ...

    @overload
    def backward_many(
        self,
        calls: AsyncIterable[BackwardCall] | Iterable[BackwardCall],
        *,
        return_exceptions: bool,
        timeout: float | None = None,
    ) -> AsyncIterator[Array | PoolingError]: ...

    def backward_many(
        self,
        calls: AsyncIterable[BackwardCall] | Iterable[BackwardCall],
        *,
        return_exceptions: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Array | PoolingError]:
        """Compute many input gradients over one stream.

        Args:
            calls: any number of `BackwardCall` objects, or an endless iterable. They are consumed
                in another task, a few calls ahead of the results.
            return_exceptions: yield the error of a call in place of its result and continue,
                instead of raising it and ending the stream.
            timeout: seconds for the whole stream; None for no deadline.

        Returns:
            An iterator over the gradients, in the order of the calls. It opens the stream for its
            first item. Closing the iterator cancels the stream.

        Raises:
            PoolingError: a call or the stream failed, with the classes of `backward`.
            ValueError: the client is closed.
        """
        return self._many(PreparedBackward, calls, return_exceptions, timeout)

    async def _many(
        self,
        prepared_type: type[PreparedCall[Any, Result]],
        calls: AsyncIterable[Any] | Iterable[Any],
        return_exceptions: bool,
        timeout_s: float | None,
    ) -> AsyncIterator[Result | PoolingError]:
        async def items() -> AsyncIterator[tuple[PreparedCall[Any, Result] | None, Request]]:
            id_ = 0
            async for call in one_by_one(calls):
                yield item_of(id_, call, prepared_type)
                id_ += 1

        replies = self._transport.stream(
            prepared_type.method.stream_path,
            items(),
            window=MANY_WINDOW,
            timeout_s=None if timeout_s is None else _channel.seconds(timeout_s),
        )
        async with aclosing(replies):
            async for prepared, reply in replies:
                outcome = outcome_of(prepared, reply, return_exceptions)
                yield outcome
