"""The client: the engine's two functions, computed by a server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
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
from pooling_client._streams.sync import exchange
from pooling_engine import ForwardResult, PoolingError, PoolSpec, TensorTooLargeError
from pooling_wire import BackwardCall, ForwardCall
from pooling_wire import keepalive as pings

Array = NDArray[Any]
Result = TypeVar("Result")


class PoolingClient:
    """Calls a pooling server. Safe to share between threads; a context manager.

    A process that was forked needs a client of its own.

    Every call has a deadline and raises what `pooling_engine` raises for the same mistake;
    beyond that `UnavailableError`, `DeadlineError`, `OverloadedError` and `TensorTooLargeError`.
    A server that is away for a moment is asked again, within the deadline.

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
            grpc.insecure_channel(target, options=options)
            for options in _channel.options_of_each(connections, keepalive, keepalive_timeout)
        ]
        self._turns: Iterator[_channel.Methods] = itertools.cycle(
            map(_channel.methods_of, self._channels)
        )
        self._sharing = Sharing(target)
        self._sizes = ANY

    def forward(
        self,
        x: ArrayLike,
        spec: PoolSpec,
        *,
        return_indices: bool = False,
        index_format: str = "window",
        out: Array | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> ForwardResult:
        """Pools a tensor: `pooling_engine.forward`, on the server.

        A large tensor goes in pieces, of which a few are on the way at any time: it may be larger
        than a message may, and than the server's memory. The bits are those of one call. After an
        error, what `out` holds is left open.

        Args:
            timeout: seconds for this call.
            progress: called with the bytes that are done, and how many there are.
        """
        return self._run(ForwardJob(x, spec, return_indices, index_format, out), timeout, progress)

    def backward(
        self,
        output_gradient: ArrayLike,
        spec: PoolSpec,
        *,
        input_shape: Sequence[int] | None = None,
        indices: ArrayLike | None = None,
        input: ArrayLike | None = None,  # noqa: A002  the contract's name
        index_format: str | None = None,
        out: Array | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Array:
        """Computes the gradient of the input: `pooling_engine.backward`, on the server.

        Large tensors go as in `forward`.

        Args:
            timeout: seconds for this call.
            progress: called with the bytes that are done, and how many there are.
        """
        job = BackwardJob(output_gradient, spec, input_shape, indices, input, index_format, out)
        return self._run(job, timeout, progress)

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
        """Pools many tensors over one stream; their results, in order, as they come.

        Args:
            calls: `ForwardCall`, each with the arguments of `forward`; may be without end. They are
                taken in another thread, a few ahead of the results.
            return_exceptions: whether the error of a call is yielded in place of its result, and
                the rest goes on; else it is raised there, and ends the stream.
            timeout: seconds for the whole stream; None: no limit.
        """
        method = _channel.FORWARD_STREAM
        return self._many(calls, forward_job, method, return_exceptions, timeout)

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
        """Computes many gradients over one stream; see `forward_many`.

        Args:
            calls: `BackwardCall`, each with the arguments of `backward`.
        """
        method = _channel.BACKWARD_STREAM
        return self._many(calls, backward_job, method, return_exceptions, timeout)

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """An uninitialised array, in memory that this client shares with the server.

        Calls with tensors, and `out=`, in such arrays copy nothing on their way. Where client and
        server share no memory (they do over ``unix:/PATH``, as far as the server leases it), it is
        an ordinary array.
        """
        return self._sharing.empty(shape, dtype)

    def info(self, *, timeout: float | None = None) -> pooling_wire.ServerInfo:
        """What the server is, what it computes and what it refuses."""
        return pooling_wire.decode_server_info(self._call(_channel.GET_SERVER_INFO, b"", timeout))

    def close(self) -> None:
        """Closes the connection; calls in flight are cancelled, later ones a ValueError."""
        self._turns = iter(_channel.closed, None)
        for channel in self._channels:
            channel.close()
        self._sharing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout_s if timeout is None else _channel.seconds(timeout)

    def _run(self, job: Job[Result], timeout: float | None, progress: Progress | None) -> Result:
        """The result of a job: in one message, or in pieces on a stream."""
        report, total = progress or say_nothing, job.total_bytes
        end = time.monotonic() + self._seconds(timeout)
        if job.should_ask(self._sizes):
            self._ask_sizes(end)
        shared = self._sharing.arrays() if total >= SHARED_BYTES else None
        if shared is not None and job.share(shared, self._sizes):
            with at_hand(job, shared):
                requests = job.shared_requests(shared)
                for number, request in enumerate(requests, start=1):
                    answer = self._call(job.method, request, _left_s(end))
                    report(number * total // len(requests), total)
                return job.shared_result(answer, shared)
        if not job.is_large(self._sizes):
            try:
                answer = self._call(job.method, job.request(), _left_s(end))
            except TensorTooLargeError:  # whole, at least
                self._ask_sizes(end)
                if not job.is_large(self._sizes):
                    raise
            else:
                result = job.result(answer)
                report(total, total)
                return result
        try:
            return self._in_pieces(job, end, report)
        except TensorTooLargeError:
            asked = self._sizes
            self._ask_sizes(end)
            if self._sizes == asked:
                raise
        return self._in_pieces(job, end, report)  # of a server started anew, which takes less

    def _in_pieces(self, job: Job[Result], end: float, report: Progress) -> Result:
        """The result of a job that goes in pieces on a stream."""
        done, total = 0, job.total_bytes
        replies = exchange(
            next(self._turns).stream(job.stream_method),
            job.requests(self._sizes),
            window=WINDOW,
            timeout_s=_left_s(end),
            target=self.target,
        )
        with closing(replies):
            for piece, reply in replies:
                done += job.place(piece, reply)
                report(done, total)
        report(total, total)  # bytes are rounded down, piece by piece
        return job.assembled()

    def _ask_sizes(self, end: float) -> None:
        """Asks the server what it takes; if it does not say, what is sent next finds out."""
        with suppress(PoolingError):
            self._sizes = sizes_of(self.info(timeout=_left_s(end)).limits)

    def _many(
        self,
        calls: Iterable[Any],
        job_of: Callable[[Any], Job[Result]],
        method: str,
        return_exceptions: bool,
        timeout: float | None,
    ) -> Iterator[Result | PoolingError]:
        replies = exchange(
            next(self._turns).stream(method),
            (item_of(id_, call, job_of) for id_, call in enumerate(calls)),
            window=MANY_WINDOW,
            timeout_s=None if timeout is None else _channel.seconds(timeout),
            target=self.target,
        )
        with closing(replies):
            for job, reply in replies:
                outcome = outcome_of(job, reply)
                if isinstance(outcome, PoolingError) and not return_exceptions:
                    raise outcome
                yield outcome

    def _call(self, method: str, request: bytes, timeout: float | None) -> bytes:
        try:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = next(self._turns).unary(method)
            return call(request, timeout=self._seconds(timeout))
        except grpc.RpcError as error:
            raise pooling_wire.decode_error(error, self.target) from None


def _left_s(end: float) -> float:
    return max(0.0, end - time.monotonic())
