"""Streams of many calls, of the asyncio client."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, closing
from time import monotonic
from typing import Any, Literal, TypeVar, overload

from pooling_client import _channel
from pooling_client._call_steps import fetch_limits
from pooling_client._calls.backward import PreparedBackward
from pooling_client._calls.base import Array, PreparedCall
from pooling_client._calls.batches import Pending, check_many
from pooling_client._calls.forward import PreparedForward
from pooling_client._client import Client
from pooling_client._limits import MANY_WINDOW, UNKNOWN
from pooling_client._steps import Progress
from pooling_client._streams.batching import AsyncBatches
from pooling_client._transports.aio import AsyncGrpcTransport
from pooling_client._transports.drivers import one_by_one, run_async
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
                in another task, some calls ahead of the results. Small calls of the same layer
                and shape that are ready at the same time share a message.
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
        check_many(calls, return_exceptions, (Iterable, AsyncIterable), prepared_type.call_type)
        seconds = None if timeout_s is None else _channel.seconds(timeout_s)
        deadline = None if seconds is None else monotonic() + seconds
        if prepared_type.joins and self._session.limits is UNKNOWN:
            until = monotonic() + self._timeout_s if deadline is None else deadline
            await run_async(fetch_limits(self._session, until), self._transport)
        pending = Pending(prepared_type, self._session.limits.message_bytes)
        batches: AsyncBatches[Result] = AsyncBatches(one_by_one(calls), pending)
        replies = self._transport.stream(
            prepared_type.method.stream_path, batches, window=MANY_WINDOW, timeout_s=seconds
        )
        with closing(batches):
            async with aclosing(replies):
                async for batch, reply in replies:
                    outcomes = batch.outcomes(reply)
                    if outcomes is None:
                        outcomes = [await self._alone(call, deadline) for call in batch.calls]
                    for outcome in outcomes:
                        if isinstance(outcome, PoolingError) and not return_exceptions:
                            raise outcome
                        yield outcome

    async def _alone(self, call: PreparedCall[Any, Any], deadline: float | None) -> Any:
        """Send a call without others, and return its result or its error."""
        timeout_s = None if deadline is None else deadline - monotonic()
        try:
            return await self._run(call, timeout_s, None)
        except PoolingError as error:
            return error

    @abstractmethod
    async def _run(
        self, call: PreparedCall[Any, Result], timeout_s: float | None, progress: Progress | None
    ) -> Result:
        """Send a call and return its result."""
