"""The asyncio twin of the client: the same arguments, results and errors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike, NDArray

import pooling_wire
from pooling_client import _channel
from pooling_client._jobs import BackwardJob, ForwardJob
from pooling_engine import ForwardResult, PoolSpec

Array = NDArray[Any]


class AsyncPoolingClient:
    """Calls a pooling server from asyncio; `PoolingClient` with `await`.

    Args:
        target: host and port of the server, or ``unix:PATH``.
        timeout: seconds that a call may take, unless the call says otherwise.
        connections: how many to open; calls take turns. A server's workers share out connections,
            not calls, so one connection uses one worker.
    """

    def __init__(
        self,
        target: str = _channel.DEFAULT_TARGET,
        *,
        timeout: float = _channel.DEFAULT_TIMEOUT_S,
        connections: int = 1,
    ) -> None:
        self.target = target
        self._timeout_s = timeout
        self._channels = [
            grpc.aio.insecure_channel(target, options=options)
            for options in _channel.options_of_each(connections)
        ]
        self._turns = itertools.cycle(self._channels)

    async def forward(
        self,
        x: ArrayLike,
        spec: PoolSpec,
        *,
        return_indices: bool = False,
        index_format: str = "window",
        out: Array | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  gRPC's own deadline, sent to the server
    ) -> ForwardResult:
        """Pools a tensor; see `PoolingClient.forward`."""
        job = ForwardJob(x, spec, return_indices, index_format, out)
        return job.result(await self._call(job.method, job.request(), timeout))

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
    ) -> Array:
        """Computes the gradient of the input; see `PoolingClient.backward`."""
        job = BackwardJob(output_gradient, spec, input_shape, indices, input, index_format, out)
        return job.result(await self._call(job.method, job.request(), timeout))

    async def info(self, *, timeout: float | None = None) -> pooling_wire.ServerInfo:  # noqa: ASYNC109
        """What the server is, what it computes and what it refuses."""
        reply = await self._call(_channel.GET_SERVER_INFO, b"", timeout)
        return pooling_wire.decode_server_info(reply)

    async def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        for channel in self._channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, method: str, request: bytes, timeout_s: float | None) -> bytes:
        try:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            call = next(self._turns).unary_unary(method)
            return await call(request, timeout=self._timeout_s if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise pooling_wire.decode_error(error, self.target) from None
