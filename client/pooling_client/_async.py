"""The asyncio twin of the client: the same arguments, results and errors."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import grpc
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import pooling_wire
from pooling_client import _channel
from pooling_client._calls.backward_job import BackwardJob, backward_job
from pooling_client._calls.forward_job import ForwardJob, forward_job
from pooling_client._calls.jobs import (
    MANY_WINDOW,
    WINDOW,
    Job,
    Progress,
    at_hand,
    item_of,
    outcome_of,
    say_nothing,
)
from pooling_client._limits import ANY, sizes_of
from pooling_client._shared_memory import SHARED_BYTES, Sharing
from pooling_client._streams.aio import exchange_async
from pooling_engine import ForwardResult, PoolingError, PoolSpec, TensorTooLargeError
from pooling_wire import BackwardCall, ForwardCall
from pooling_wire import keepalive as pings

Array = NDArray[Any]
Result = TypeVar("Result")


class AsyncPoolingClient:
    """Calls a pooling server from asyncio; `PoolingClient` with `await`.

    It belongs to the event loop that runs when it is made: make it in a coroutine.

    Args:
        target: host and port of the server, or ``unix:PATH``.
        timeout: seconds that a call may take, unless the call says otherwise.
        connections: how many to open; calls take turns. A server's workers share out connections,
            not calls, so one connection uses one worker.
        keepalive: seconds of silence, while a call waits, after which the server is asked whether
            it is still there.
        keepalive_timeout: seconds that it may take to answer; else the call is UNAVAILABLE, or
            goes on over a new connection, within its deadline.
    """

    def __init__(
        self,
        target: str = _channel.DEFAULT_TARGET,
        *,
        timeout: float = _channel.DEFAULT_TIMEOUT_S,
        connections: int = 1,
        keepalive: float = pings.INTERVAL_S,
        keepalive_timeout: float = pings.TIMEOUT_S,
    ) -> None:
        _channel.check_target(target)
        self.target = target
        self._timeout_s = _channel.seconds(timeout)
        self._channels = [
            grpc.aio.insecure_channel(target, options=options)
            for options in _channel.options_of_each(connections, keepalive, keepalive_timeout)
        ]
        self._turns: Iterator[_channel.Methods] = itertools.cycle(
            map(_channel.methods_of, self._channels)
        )
        self._sharing = Sharing(target)
        self._sizes = ANY

    async def forward(
        self,
        x: ArrayLike,
        spec: PoolSpec,
        *,
        return_indices: bool = False,
        index_format: str = "window",
        out: Array | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  gRPC's own deadline, sent to the server
        progress: Progress | None = None,
    ) -> ForwardResult:
        """Pools a tensor; see `PoolingClient.forward`."""
        job = ForwardJob(x, spec, return_indices, index_format, out)
        return await self._run(job, timeout, progress)

    async def backward(
        self,
        output_gradient: ArrayLike,
        spec: PoolSpec,
        *,
        input_shape: Sequence[int] | None = None,
        indices: ArrayLike | None = None,
        input: ArrayLike | None = None,  # noqa: A002  the contract's name
        index_format: str | None = None,
        out: Array | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        progress: Progress | None = None,
    ) -> Array:
        """Computes the gradient of the input; see `PoolingClient.backward`."""
        job = BackwardJob(output_gradient, spec, input_shape, indices, input, index_format, out)
        return await self._run(job, timeout, progress)

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
        """Pools many tensors over one stream; see `PoolingClient.forward_many`.

        Args:
            calls: taken in a task of their own.
        """
        method = _channel.FORWARD_STREAM
        return self._many(calls, forward_job, method, return_exceptions, timeout)

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
        """Computes many gradients over one stream; see `PoolingClient.backward_many`."""
        method = _channel.BACKWARD_STREAM
        return self._many(calls, backward_job, method, return_exceptions, timeout)

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """An uninitialised array, in shared memory; see `PoolingClient.empty`."""
        return self._sharing.empty(shape, dtype)

    async def info(self, *, timeout: float | None = None) -> pooling_wire.ServerInfo:  # noqa: ASYNC109
        """What the server is, what it computes and what it refuses."""
        reply = await self._call(_channel.GET_SERVER_INFO, b"", timeout)
        return pooling_wire.decode_server_info(reply)

    async def close(self) -> None:
        """Closes the connection; calls in flight are cancelled, later ones a ValueError."""
        self._turns = iter(_channel.closed, None)
        for channel in self._channels:
            await channel.close()
        self._sharing.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout_s if timeout is None else _channel.seconds(timeout)

    async def _run(
        self, job: Job[Result], timeout_s: float | None, progress: Progress | None
    ) -> Result:
        """The result of a job: in one message, or in pieces on a stream."""
        report, total = progress or say_nothing, job.total_bytes
        end = time.monotonic() + self._seconds(timeout_s)
        if job.should_ask(self._sizes):
            await self._ask_sizes(end)
        shared = self._sharing.arrays() if total >= SHARED_BYTES else None
        if shared is not None and job.share(shared, self._sizes):
            with at_hand(job, shared):
                requests = job.shared_requests(shared)
                for number, request in enumerate(requests, start=1):
                    answer = await self._call(job.method, request, _left_s(end))
                    report(number * total // len(requests), total)
                return job.shared_result(answer, shared)
        if not job.is_large(self._sizes):
            try:
                answer = await self._call(job.method, job.request(), _left_s(end))
            except TensorTooLargeError:  # whole, at least
                await self._ask_sizes(end)
                if not job.is_large(self._sizes):
                    raise
            else:
                result = job.result(answer)
                report(total, total)
                return result
        try:
            return await self._in_pieces(job, end, report)
        except TensorTooLargeError:
            asked = self._sizes
            await self._ask_sizes(end)
            if self._sizes == asked:
                raise
        return await self._in_pieces(job, end, report)  # of a server started anew, which takes less

    async def _in_pieces(self, job: Job[Result], end: float, report: Progress) -> Result:
        """The result of a job that goes in pieces on a stream."""
        done, total = 0, job.total_bytes
        replies = exchange_async(
            next(self._turns).stream(job.stream_method),
            _one_by_one(job.requests(self._sizes)),
            window=WINDOW,
            timeout_s=_left_s(end),
            target=self.target,
        )
        async with aclosing(replies):
            async for piece, reply in replies:
                done += job.place(piece, reply)
                report(done, total)
        report(total, total)  # bytes are rounded down, piece by piece
        return job.assembled()

    async def _ask_sizes(self, end: float) -> None:
        """Asks the server what it takes; if it does not say, what is sent next finds out."""
        with suppress(PoolingError):
            self._sizes = sizes_of((await self.info(timeout=_left_s(end))).limits)

    async def _many(
        self,
        calls: AsyncIterable[Any] | Iterable[Any],
        job_of: Callable[[Any], Job[Result]],
        method: str,
        return_exceptions: bool,
        timeout_s: float | None,
    ) -> AsyncIterator[Result | PoolingError]:
        async def items() -> AsyncIterator[tuple[Job[Result] | None, bytes | PoolingError]]:
            id_ = 0
            async for call in _one_by_one(calls):
                yield item_of(id_, call, job_of)
                id_ += 1

        replies = exchange_async(
            next(self._turns).stream(method),
            items(),
            window=MANY_WINDOW,
            timeout_s=None if timeout_s is None else _channel.seconds(timeout_s),
            target=self.target,
        )
        async with aclosing(replies):
            async for job, reply in replies:
                outcome = outcome_of(job, reply)
                if isinstance(outcome, PoolingError) and not return_exceptions:
                    raise outcome
                yield outcome

    async def _call(self, method: str, request: bytes, timeout_s: float | None) -> bytes:
        try:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            call = next(self._turns).unary(method)
            return await call(request, timeout=self._seconds(timeout_s))
        except grpc.RpcError as error:
            raise pooling_wire.decode_error(error, self.target) from None


async def _one_by_one(items: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    """The items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item


def _left_s(end: float) -> float:
    return max(0.0, end - time.monotonic())
