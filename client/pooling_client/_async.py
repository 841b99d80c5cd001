"""Asyncio client of a pooling server."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import grpc
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import pooling_wire
from pooling_client import _channel
from pooling_client._call_steps import Progress, Session, call_steps, info_steps
from pooling_client._calls.backward import PreparedBackward
from pooling_client._calls.base import PreparedCall
from pooling_client._calls.forward import PreparedForward
from pooling_client._calls.forward_all import Results
from pooling_client._calls.many import item_of, outcome_of
from pooling_client._calls.unsigned import unsigned_forward, unsigned_forward_all
from pooling_client._connection import Connection, Metadata
from pooling_client._copying import arguments_of, rebuilt
from pooling_client._forks import renew_after_fork
from pooling_client._forward_all_steps import forward_all_steps
from pooling_client._limits import MANY_WINDOW
from pooling_client._retries import NO_PATIENCE_S
from pooling_client._shared_memory import SharedMemory
from pooling_client._streams.backlog import Request
from pooling_client._transports.aio import AsyncGrpcTransport, one_by_one, run
from pooling_engine import (
    BackwardCall,
    ForwardAllCall,
    ForwardCall,
    ForwardResult,
    InvalidTensorError,
    PoolingError,
    PoolSpec,
)
from pooling_engine.calls import forward_all_call
from pooling_wire import keepalive as pings

Array = NDArray[Any]
Result = TypeVar("Result")


class AsyncPoolingClient:
    """Asyncio client of a pooling server.

    Safe to share between tasks and event loops. As a context manager it closes itself.

    Every call has a deadline. Calls raise the exceptions of `pooling_engine` for the same
    arguments, and those of a service: `UnavailableError`, `DeadlineError`, `OverloadedError` and
    `TensorTooLargeError`. Within the deadline, a call waits for a server that is unavailable, and
    is retried after the delay that an overloaded server states.

    A forked process may use the client, over new connections. A client can be copied and pickled,
    as its arguments.

    Args:
        target: ``HOST:PORT`` or ``unix:/PATH`` of the server, or a name of gRPC:
            ``dns:///NAME:PORT``, ``ipv4:A:PORT,B:PORT``. Calls take turns at several addresses.
        timeout: seconds for each call, unless the call has its own timeout.
        connections: number of connections to each address; calls take turns. Each connection
            reaches one worker process of a server.
        keepalive: seconds of silence during a call after which the client pings the server.
        keepalive_timeout: seconds to wait for the answer to a ping. After that, the call is retried
            over a new connection, within its deadline, or raises UnavailableError.
        credentials: TLS, from `grpc.ssl_channel_credentials`; None for plaintext.
        token: bearer token of every call, or a function that returns one for each attempt.
        metadata: headers of every call: a mapping, or a function that returns one for each attempt.
            Values are text; those of keys that end with "-bin" are bytes.
        authority: host name for the proxy or the certificate, if it is not that of the target.
        interceptors: interceptors of gRPC for unary calls and streams, of `grpc` for a blocking
            and of `grpc.aio` for an asyncio client.
        compression: compression of requests; None for none. It pays on slow networks only.
        wait_for_ready: wait for an unavailable server until the deadline; a stream without a
            deadline waits for `timeout`. False: raise UnavailableError after about a second.
        shared_streams: send frequent small calls over one stream for each connection and method,
            which takes less time than a unary call for each. False sends unary calls only, as do
            interceptors and targets with several addresses.

    Attributes:
        target: address of the server.

    Raises:
        InvalidSpecError: an argument is invalid.
    """

    def __init__(
        self,
        target: str = _channel.DEFAULT_TARGET,
        *,
        timeout: float = _channel.DEFAULT_TIMEOUT_S,
        connections: int = 1,
        keepalive: float = pings.INTERVAL_S,
        keepalive_timeout: float = pings.TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
        metadata: Metadata | Callable[[], Metadata] | None = None,
        authority: str | None = None,
        interceptors: Sequence[Any] = (),
        compression: grpc.Compression | None = None,
        wait_for_ready: bool = True,
        shared_streams: bool = True,
    ) -> None:
        connection = Connection(
            target,
            connections,
            keepalive,
            keepalive_timeout,
            credentials,
            token,
            metadata,
            authority,
            interceptors,
            compression,
            wait_for_ready,
            shared_streams,
        )
        self.target = target
        self._connection = connection
        self._timeout_s = _channel.seconds(timeout)
        self._shared_memory = SharedMemory(target)
        self._session = Session(
            self._shared_memory,
            math.inf if wait_for_ready else NO_PATIENCE_S,
            shares_streams=connection.shares_streams,
        )
        self._transport = AsyncGrpcTransport(connection, self._session, self._timeout_s)
        renew_after_fork(self)

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
        """Pool a tensor on the server.

        Results and errors are those of `pooling_engine.forward`. Large tensors are split and
        streamed, with a few chunks in flight, so a tensor may exceed both the message limit and the
        memory of the server. Results are bit-identical to those of a single message.

        Args:
            x: input of shape (N, C, D1..Dn), or (N, D1..Dn, C) for a channels-last spec, with 1 to
                6 spatial axes; float16, bfloat16 (of ml_dtypes), float32, float64, uint8 or a
                signed integer of 8 to 64 bits ("lp": floats only). "max" and "min" also accept
                bool, uint16, uint32 and uint64.
            spec: pooling layer.
            return_indices: return the index of the selected element of each window; "max" and
                "min" only.
            index_format: "window" (number of the element within its window, in the smallest
                unsigned type), "plane" (int64, flat within the spatial plane, as in PyTorch) or
                "tensor" (int64, flat within the whole tensor, channels first in both layouts, as in
                ONNX).
            out: C-contiguous array of the shape and element type of the output, to write into.
                After an error its content is undefined.
            timeout: seconds for this call; None for the timeout of the client.
            progress: called with the number of bytes done and the total, after each chunk.

        Returns:
            The output, of the element type of the input (integers: int64 sums, float averages), and
            the indices or None.

        Raises:
            InvalidSpecError: the options, or `timeout`, are invalid or do not fit the tensor.
            InvalidTensorError: a tensor has the wrong shape, element type or entries, or an integer
                sum overflows.
            UnsupportedError: the input is valid, but the server cannot compute it.
            TensorTooLargeError: the call exceeds a limit of the server and cannot be split.
            DeviceMemoryError: the memory of the server does not suffice.
            OverloadedError: the server has too many calls in flight.
            UnavailableError: no server answers at the target.
            DeadlineError: the timeout has passed.
            InternalError: the server has a bug.
            ValueError: the client is closed.
        """
        try:
            call = ForwardCall(x, spec, return_indices, index_format)
        except InvalidTensorError as error:
            sent = unsigned_forward(error, x, spec, return_indices, index_format, out)
            return sent.restored(await self._run(sent.prepared, timeout, progress))
        return await self._run(PreparedForward(call, out), timeout, progress)

    async def forward_all(
        self,
        x: ArrayLike,
        specs: Sequence[PoolSpec],
        *,
        return_indices: bool | Sequence[bool] = False,
        index_format: str = "window",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> tuple[ForwardResult, ...]:
        """Pool a tensor with several layers, sending it once.

        Results and errors are those of `pooling_engine.forward_all`. A large batch is split and
        streamed. The input is sent once for each layer if the server is too old for requests of
        several layers, or if one batch item exceeds its limits.

        Args:
            x: input, as for `forward`; bool, uint16, uint32 and uint64 if all layers are "max" or
                "min".
            specs: 1 to 64 pooling layers.
            return_indices: return indices for all layers, or one bool for each layer.
            index_format: format of the indices, as for `forward`.
            timeout: seconds for this call; None for the timeout of the client.

        Returns:
            One result for each layer, in the order of `specs`.

        Raises:
            PoolingError: the call failed, with the classes of `forward`.
            ValueError: the client is closed.
        """
        try:
            call = forward_all_call(x, specs, return_indices, index_format)
        except InvalidTensorError as error:
            sent = unsigned_forward_all(error, x, specs, return_indices, index_format)
            return sent.restored(await self._run_all(sent.call, timeout))
        return await self._run_all(call, timeout)

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
        """Compute the gradient of the input on the server.

        Results and errors are those of `pooling_engine.backward`. Large tensors are split and
        streamed as in `forward`.

        Args:
            output_gradient: gradient of the output, of the shape of the output; float16, bfloat16
                (of ml_dtypes), float32 or float64.
            spec: pooling layer of the forward call.
            input_shape: shape of the input of the forward call; may be omitted if `input` is given.
            indices: "max" and "min": the indices that the forward call returned.
            input: input of the forward call. Required for "lp"; for "max" and "min" it replaces
                `indices`.
            index_format: format of `indices`; None for "window" if they are unsigned, else "plane".
            out: C-contiguous array of the shape of the input and the element type of
                `output_gradient`, to write into. After an error its content is undefined.
            timeout: seconds for this call; None for the timeout of the client.
            progress: called with the number of bytes done and the total, after each chunk.

        Returns:
            The gradient, of the shape of the input and the element type of `output_gradient`.

        Raises:
            InvalidSpecError: the options, or `timeout`, are invalid or do not fit the tensors.
            InvalidTensorError: a tensor is missing or has the wrong shape, element type or entries.
            UnsupportedError: the input is valid, but the server cannot compute it.
            TensorTooLargeError: the call exceeds a limit of the server and cannot be split.
            DeviceMemoryError: the memory of the server does not suffice.
            OverloadedError: the server has too many calls in flight.
            UnavailableError: no server answers at the target.
            DeadlineError: the timeout has passed.
            InternalError: the server has a bug.
            ValueError: the client is closed.
        """
        call = BackwardCall(output_gradient, spec, input_shape, indices, input, index_format)
        return await self._run(PreparedBackward(call, out), timeout, progress)

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

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """Return an uninitialised array, in memory shared with the server if possible.

        Calls copy nothing to or from such arrays, as tensors or as `out`. Memory is shared over
        ``unix:/PATH``, as far as the server leases it; otherwise the array is an ordinary one.

        Args:
            shape: size, or sizes, of the array.
            dtype: element type of the array.

        Returns:
            The array. It stays valid after the client is closed.
        """
        return self._shared_memory.empty(shape, dtype)

    async def info(self, *, timeout: float | None = None) -> pooling_wire.ServerInfo:  # noqa: ASYNC109
        """Return the version, backends and limits of the server.

        Args:
            timeout: seconds for this call; None for the timeout of the client.

        Raises:
            InvalidSpecError: `timeout` is not a number.
            UnavailableError: no server answers at the target.
            DeadlineError: the timeout has passed.
            ValueError: the client is closed.
        """
        deadline = time.monotonic() + self._seconds(timeout)
        return await run(info_steps(self._session, deadline), self._transport)

    async def close(self) -> None:
        """Close the connections. Calls in flight are cancelled; later ones raise ValueError."""
        await self._transport.close()
        self._shared_memory.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _renew(self) -> None:
        """Continue in a forked process with new connections and new shared memory."""
        self._transport.renew()
        self._shared_memory.renew()

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (type(self), arguments_of(self._connection, self._timeout_s))

    def __copy__(self) -> Self:
        return rebuilt(type(self), arguments_of(self._connection, self._timeout_s))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout_s if timeout is None else _channel.seconds(timeout)

    async def _run_all(self, call: ForwardAllCall, timeout_s: float | None) -> Results:
        deadline = time.monotonic() + self._seconds(timeout_s)
        return await run(forward_all_steps(call, self._session, deadline), self._transport)

    async def _run(
        self, call: PreparedCall[Any, Result], timeout_s: float | None, progress: Progress | None
    ) -> Result:
        deadline = time.monotonic() + self._seconds(timeout_s)
        return await run(call_steps(call, self._session, progress, deadline), self._transport)

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
