"""Streams of many calls, of the blocking client."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
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
from pooling_client._streams.batching import Batches
from pooling_client._transports.drivers import run
from pooling_client._transports.sync import GrpcTransport
from pooling_engine import BackwardCall, ForwardCall, ForwardResult, PoolingError

Result = TypeVar("Result")


class ManyCalls(Client):
    """The methods of the blocking client for many calls."""

    _transport: GrpcTransport

    @overload
    def forward_many(
        self,
        calls: Iterable[ForwardCall],
        *,
        return_exceptions: Literal[False] = False,
        timeout: float | None = None,
    ) -> Iterator[ForwardResult]: ...

    @overload
    def forward_many(
        self,
        calls: Iterable[ForwardCall],
        *,
        return_exceptions: bool,
        timeout: float | None = None,
    ) -> Iterator[ForwardResult | PoolingError]: ...

    def forward_many(
        self,
        calls: Iterable[ForwardCall],
        *,
        return_exceptions: bool = False,
        timeout: float | None = None,
    ) -> Iterator[ForwardResult | PoolingError]:
        """Pool many tensors over one stream.

        Args:
            calls: any number of `ForwardCall` objects, or an endless iterable. They are consumed
                in another thread, some calls ahead of the results. Small calls of the same layer
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
        calls: Iterable[BackwardCall],
        *,
        return_exceptions: Literal[False] = False,
        timeout: float | None = None,
    ) -> Iterator[Array]: ...

    @overload
    def backward_many(
        self,
        calls: Iterable[BackwardCall],
        *,
        return_exceptions: bool,
        timeout: float | None = None,
    ) -> Iterator[Array | PoolingError]: ...

    def backward_many(
        self,
        calls: Iterable[BackwardCall],
        *,
        return_exceptions: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Array | PoolingError]:
        """Compute many input gradients over one stream.

        Args:
            calls: any number of `BackwardCall` objects, or an endless iterable. They are consumed
                in another thread, a few calls ahead of the results.
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

    def _many(
        self,
        prepared_type: type[PreparedCall[Any, Result]],
        calls: Iterable[Any],
        return_exceptions: bool,
        timeout_s: float | None,
    ) -> Iterator[Result | PoolingError]:
        check_many(calls, return_exceptions, (Iterable,), prepared_type.call_type)
        seconds = None if timeout_s is None else _channel.seconds(timeout_s)
        deadline = None if seconds is None else monotonic() + seconds
        if prepared_type.joins and self._session.limits is UNKNOWN:
            until = monotonic() + self._timeout_s if deadline is None else deadline
            run(fetch_limits(self._session, until), self._transport)
        pending = Pending(prepared_type, self._session.limits.message_bytes)
        batches: Batches[Result] = Batches(calls, pending)
        replies = self._transport.stream(
            prepared_type.method.stream_path, batches, window=MANY_WINDOW, timeout_s=seconds
        )
        with closing(batches), closing(replies):
            for batch, reply in replies:
                outcomes = batch.outcomes(reply)
                if outcomes is None:
                    outcomes = [self._alone(call, deadline) for call in batch.calls]
                for outcome in outcomes:
                    batches.origin.check()
                    if isinstance(outcome, PoolingError) and not return_exceptions:
                        raise outcome
                    yield outcome

    def _alone(self, call: PreparedCall[Any, Any], deadline: float | None) -> Any:
        """Send a call without others, and return its result or its error."""
        try:
            return self._run(call, None if deadline is None else deadline - monotonic(), None)
        except PoolingError as error:
            return error

    @abstractmethod
    def _run(
        self, call: PreparedCall[Any, Result], timeout_s: float | None, progress: Progress | None
    ) -> Result:
        """Send a call and return its result."""
