"""Standard gRPC services, if their libraries work here: health checking and reflection."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from typing import Any

import grpc

import pooling_wire
from pooling_server.serving.reflection_threads import ReflectionThreads

_log = logging.getLogger("pooling_server")
LIVENESS = "liveness"
READINESS = ("", pooling_wire.SERVICE_NAME)


class Health:
    """Health service (grpc.health.v1): liveness, and readiness until `stop` is called.

    The service `liveness` is SERVING as long as the process answers. The services "" and
    `pooling.v1.PoolingService` are SERVING between `serve` and `stop`.

    Args:
        server: server to add the service to.
    """

    def __init__(self, server: grpc.Server) -> None:
        self._servicer: Any = None
        self._is_stopped = False
        self._is_serving = False
        self._lock = threading.Lock()
        try:
            from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        except Exception as error:  # protobuf's VersionError is not an ImportError
            _log.warning("health checking is disabled: %s", _why("grpcio-health-checking", error))
            return
        self._statuses = health_pb2.HealthCheckResponse
        self._servicer = health.HealthServicer()
        self._set_readiness(self._statuses.NOT_SERVING)
        self._servicer.set(LIVENESS, self._statuses.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def serve(self) -> None:
        """Report readiness; has no effect after `stop`."""
        with self._lock:
            self._is_serving = not self._is_stopped
            if self._servicer and not self._is_stopped:
                self._set_readiness(self._statuses.SERVING)

    @property
    def is_serving(self) -> bool:
        """True while the server is ready."""
        return self._is_serving

    def stop(self) -> None:
        """Report that the server is not ready, from now on."""
        with self._lock:
            if self._servicer and not self._is_stopped:
                self._set_readiness(self._statuses.NOT_SERVING)
            self._is_stopped, self._is_serving = True, False

    def _set_readiness(self, status: int) -> None:
        for name in READINESS:
            self._servicer.set(name, status)


def add_reflection(server: grpc.Server) -> None:
    """Add server reflection, if its library works here."""
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
    except Exception as error:  # protobuf's VersionError is not an ImportError
        _log.warning("reflection is disabled: %s", _why("grpcio-reflection", error))
        return
    threads = ReflectionThreads()

    class Servicer(reflection.ReflectionServicer):
        """Reflection with its own threads: an open stream occupies one of them."""

        def ServerReflectionInfo(self, requests: Any, context: Any) -> Any:  # noqa: N802
            return super().ServerReflectionInfo(threads.requests(requests, context), context)

        ServerReflectionInfo.experimental_thread_pool = threads  # type: ignore[attr-defined]

    names = [pooling_wire.SERVICE_NAME, "grpc.health.v1.Health", reflection.SERVICE_NAME]
    add = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(Servicer(names), server)  # type: ignore[no-untyped-call]


def _why(package: str, error: Exception) -> str:
    """Return in one line why a package cannot be imported."""
    if isinstance(error, ImportError):
        return f"{package} is not installed"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in (package, "protobuf")]
    return f"{' does not work with '.join(versions)}; install versions that match"
