"""Streams of many calls, of the blocking client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, Literal, TypeVar, overload

from pooling_client import _channel
from pooling_client._calls.backward import PreparedBackward
from pooling_client._calls.base import Array, PreparedCall
from pooling_client._calls.forward import PreparedForward
from pooling_client._calls.many import item_of, outcome_of
from pooling_client._client import Client
from pooling_client._limits import MANY_WINDOW
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
                in another thread, a few calls ahead of the results.
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
        replies = self._transport.stream(
            prepared_type.method.stream_path,
            (item_of(id_, call, prepared_type) for id_, call in enumerate(calls)),
            window=MANY_WINDOW,
            timeout_s=None if timeout_s is None else _channel.seconds(timeout_s),
        )
        with closing(replies):
            for prepared, reply in replies:
                outcome = outcome_of(prepared, reply, return_exceptions)
                yield outcome
