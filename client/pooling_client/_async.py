"""Asyncio client of a pooling server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from numpy.typing import ArrayLike

import pooling_wire
from pooling_client._async_many import AsyncManyCalls
from pooling_client._call_steps import call_steps, info_steps, may_share, shared_result
from pooling_client._calls.backward import PreparedBackward
from pooling_client._calls.base import Array, PreparedCall, PreparedMessage
from pooling_client._calls.forward import PreparedForward
from pooling_client._calls.forward_all import PreparedForwardAll, Results
from pooling_client._calls.unsigned import unsigned_forward, unsigned_forward_all
from pooling_client._forward_all_steps import forward_all_steps
from pooling_client._steps import Progress
from pooling_client._transports.aio import AsyncGrpcTransport
from pooling_client._transports.drivers import run_async
from pooling_engine import (
    BackwardCall,
    ForwardAllCall,
    ForwardCall,
    ForwardResult,
    InvalidTensorError,
    PoolSpec,
)
from pooling_engine.calls import forward_all_call

Result = TypeVar("Result")


class AsyncPoolingClient(AsyncManyCalls):
    """Asyncio client of a pooling server.

    Safe to share between tasks and event loops. As a context manager it closes itself.

    Every call has a deadline. Calls raise the exceptions of `pooling_engine` for the same
    arguments, and those of a service: `UnavailableError`, `DeadlineError`, `OverloadedError` and
    `TensorTooLargeError`. Until its deadline, a call is retried if the server is unavailable, and
    also, after the delay that the server states, if it is overloaded.

    A forked process may use the client, over new connections. Copies and pickles of a client
    are new clients with the same arguments.

    Args:
        target: ``HOST:PORT`` or ``unix:/PATH`` of the server, or a name of gRPC:
            ``dns:///NAME:PORT``, ``ipv4:A:PORT,B:PORT``. Calls rotate among several addresses.
        timeout: seconds for each call, unless the call has its own timeout.
        connections: number of connections to each address; calls rotate among them. Each
            connection reaches one worker process of a server.
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
        compression: compression of requests; None for none. It saves time on slow networks only.
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

    _interceptors = (grpc.aio.ClientInterceptor,)
    _interceptors_of = "grpc.aio"

    def _open(self) -> None:
        self._transport = AsyncGrpcTransport(self._connection, self._session, self._timeout_s)

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
        return await run_async(info_steps(self._session, deadline), self._transport)

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

    async def _run_all(self, call: ForwardAllCall, timeout_s: float | None) -> Results:
        if len(call.calls) == 1:
            return (await self._run(PreparedForward(call.calls[0]), timeout_s, None),)
        deadline = time.monotonic() + self._seconds(timeout_s)
        if self._session.knows_layers:
            results = await self._shared(PreparedForwardAll(call), deadline)
            if results is not None:
                return results
        return await run_async(forward_all_steps(call, self._session, deadline), self._transport)

    async def _run(
        self, call: PreparedCall[Any, Result], timeout_s: float | None, progress: Progress | None
    ) -> Result:
        deadline = self._start(timeout_s, progress)
        result = await self._shared(call, deadline)
        if result is None:
            steps = call_steps(call, self._session, progress, deadline)
            return await run_async(steps, self._transport)
        if progress is not None:
            progress(call.total_bytes, call.total_bytes)
        return result

    async def _shared(self, call: PreparedMessage[Any, Result], deadline: float) -> Result | None:
        """Send a call over a shared stream; return None if it is to be sent in another way."""
        session, left_s = self._session, deadline - time.monotonic()
        if not may_share(call, session) or left_s <= 0:
            return None
        id_ = next(session.ids)
        item = call.item(id_, round(left_s * 1e6))
        reply = await self._transport.share(call.method.stream_path, item, deadline)
        return shared_result(call, session, id_, reply)
