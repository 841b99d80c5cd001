"""HTTP/1.1 server of a process: uvicorn in a thread, on a port that workers share."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from typing import Any

import uvicorn

from pooling_server.http.app import make_app
from pooling_server.http.calls import HttpServices
from pooling_server.http.connections import timed_connections
from pooling_server.security.certificates import Certificates
from pooling_server.sockets.listening import bound_socket

__all__ = ["HttpServer", "HttpServices"]

_BACKLOG = 2048
_STOP_S = 1  # for connections whose reply is sent, but not read
_START_S = 10.0


class HttpServer:
    """HTTP endpoint.

    Args:
        services: parts of the server that all calls share.
        certificates: files for TLS; None for plaintext.
        is_shared: if true, other processes listen on the same port.

    Raises:
        OSError: the address cannot be bound.

    Attributes:
        address: HOST:PORT, with the actual port.
    """

    def __init__(
        self, services: HttpServices, certificates: Certificates | None, *, is_shared: bool
    ) -> None:
        config = services.config
        self._socket = bound_socket(config.http_listen, is_shared=is_shared)
        host = config.http_listen.rpartition(":")[0]
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        options: dict[str, Any] = {}
        if certificates is not None:
            options["ssl_context_factory"] = lambda *_: _NewestContext(certificates)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # else each bad request warns
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(services),
                loop="asyncio",
                http=timed_connections(config.stream_idle_s),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_STOP_S,
                **options,
            )
        )
        self._has_started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pooling-http", daemon=True)

    def start(self) -> None:
        """Start to serve; return once clients can connect."""
        self._socket.listen(_BACKLOG)
        self._thread.start()

    def stop(self) -> None:
        """Close the connections whose reply is sent, and the port."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


class _NewestContext(ssl.SSLContext):
    """TLS context that gives each new connection the newest files."""

    def __new__(cls, certificates: Certificates) -> _NewestContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Return the TLS connection for a pair of buffers, as asyncio calls it."""
        context = self._certificates.context
        context.set_alpn_protocols(["http/1.1"])
        return context.wrap_bio(*arguments, **options)
