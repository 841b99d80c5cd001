"""The client: the engine's two functions, computed by a server."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike, NDArray

import pooling_wire
from pooling_client import _channel, _requests
from pooling_engine import ForwardResult, PoolSpec

Array = NDArray[Any]


class PoolingClient:
    """Calls a pooling server. Safe to share between threads; a context manager.

    Every call has a deadline and raises what `pooling_engine` raises for the same mistake;
    beyond that `UnavailableError`, `DeadlineError`, `OverloadedError` and `TensorTooLargeError`.
    A server that is away for a moment is asked again, within the deadline.

    Args:
        target: host and port of the server, or ``unix:PATH``.
        timeout: seconds that a call may take, unless the call says otherwise.
    """

    def __init__(
        self, target: str = _channel.DEFAULT_TARGET, *, timeout: float = _channel.DEFAULT_TIMEOUT_S
    ) -> None:
        self.target = target
        self._timeout_s = timeout
        self._channel = grpc.insecure_channel(target, options=_channel.CHANNEL_OPTIONS)

    def forward(
        self,
        x: ArrayLike,
        spec: PoolSpec,
        *,
        return_indices: bool = False,
        index_format: str = "window",
        out: Array | None = None,
        timeout: float | None = None,
    ) -> ForwardResult:
        """Pools a tensor: `pooling_engine.forward`, on the server.

        Args:
            timeout: seconds for this call.
        """
        request = _requests.forward_request(x, spec, return_indices, index_format, out)
        return _requests.forward_result(self._call(_channel.FORWARD, request, timeout), out)

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
    ) -> Array:
        """Computes the gradient of the input: `pooling_engine.backward`, on the server.

        Args:
            timeout: seconds for this call.
        """
        request = _requests.backward_request(
            output_gradient, spec, input_shape, indices, input, index_format, out
        )
        return _requests.backward_result(self._call(_channel.BACKWARD, request, timeout), out)

    def info(self, *, timeout: float | None = None) -> pooling_wire.ServerInfo:
        """What the server is, what it computes and what it refuses."""
        return pooling_wire.decode_server_info(self._call(_channel.GET_SERVER_INFO, b"", timeout))

    def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: str, request: bytes, timeout: float | None) -> bytes:
        try:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
            return call(request, timeout=self._timeout_s if timeout is None else timeout)
        except grpc.RpcError as error:
            raise pooling_wire.decode_error(error, self.target) from None
