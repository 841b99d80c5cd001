"""Standard gRPC services, if their libraries are installed: health checking and reflection."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

import pooling_wire

_log = logging.getLogger("pooling_server")
_REFLECTION_THREADS = 8


class Health:
    """Health service (grpc.health.v1), which reports NOT_SERVING until `serve` is called.

    It reports one status for the whole server and for `pooling.v1.PoolingService`.

    Args:
        server: server to add the service to.
    """

    def __init__(self, server: grpc.Server) -> None:
        self._servicer: Any = None
        try:
            from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        except ImportError:
            _log.warning("health checking is disabled: grpcio-health-checking is not installed")
            return
        self._statuses = health_pb2.HealthCheckResponse
        self._servicer = health.HealthServicer()
        self._set(self._statuses.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def serve(self) -> None:
        """Report SERVING; has no effect after `stop`."""
        if self._servicer:
            self._set(self._statuses.SERVING)

    def stop(self) -> None:
        """Report NOT_SERVING from now on."""
        if self._servicer:
            self._servicer.enter_graceful_shutdown()

    def _set(self, status: int) -> None:
        for name in ("", pooling_wire.SERVICE_NAME):
            self._servicer.set(name, status)


def add_reflection(server: grpc.Server) -> None:
    """Add server reflection, if its library is installed."""
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
    except ImportError:
        _log.warning("reflection is disabled: grpcio-reflection is not installed")
        return

    class Servicer(reflection.ReflectionServicer):
        """Reflection with its own threads: an open stream occupies one of them."""

        def ServerReflectionInfo(self, requests: Any, context: Any) -> Any:  # noqa: N802
            return super().ServerReflectionInfo(requests, context)

        ServerReflectionInfo.experimental_thread_pool = ThreadPoolExecutor(  # type: ignore[attr-defined]
            _REFLECTION_THREADS, "pooling-reflection"
        )

    names = [pooling_wire.SERVICE_NAME, "grpc.health.v1.Health", reflection.SERVICE_NAME]
    add = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(Servicer(names), server)  # type: ignore[no-untyped-call]
