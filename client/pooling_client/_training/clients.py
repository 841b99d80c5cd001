"""Clients by server: one for each server in each process."""

from __future__ import annotations

import os
import threading
from typing import Any

from pooling_client import PoolingClient

DEFAULT_SERVER = "127.0.0.1:50051"
_FORKS = "GRPC_ENABLE_FORK_SUPPORT"  # gRPC reads it when it is imported


class _Clients:
    """Table of clients and their options. A forked process opens new connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._options: dict[str, dict[str, Any]] = {}
        self._clients: dict[str, PoolingClient] = {}
        self._of_parent: list[dict[str, PoolingClient]] = []

    def get(self, server: str) -> PoolingClient:
        target = _target(server)
        client = self._clients.get(target)
        if client is not None:
            return client
        with self._lock:
            if target not in self._clients:
                self._check_fork()
                self._clients[target] = PoolingClient(target, **self._options.get(target, {}))
            return self._clients[target]

    def set_options(self, server: str, options: dict[str, Any]) -> None:
        target = _target(server)
        client = PoolingClient(target, **options)
        with self._lock:
            self._options[target] = options
            replaced = self._clients.pop(target, None)
            self._clients[target] = client
        if replaced is not None:
            replaced.close()

    def clear_after_fork(self) -> None:
        if self._clients:
            self._of_parent.append(self._clients)  # closing them would disturb the parent
        self._clients = {}
        self._lock = threading.Lock()

    def _check_fork(self) -> None:
        is_supported = os.environ.get(_FORKS, "").lower() in ("1", "true", "yes")
        if self._of_parent and not is_supported:
            raise RuntimeError(
                "the parent of this process called a server before it forked: set the environment "
                f'variable {_FORKS}=1 before the program starts, or use the start method "spawn"'
            )


_CLIENTS = _Clients()
if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_CLIENTS.clear_after_fork)


def client_of(server: str) -> PoolingClient:
    """Return the client of a server, created at the first call in this process.

    Args:
        server: target of the server; empty for ``POOLING_TARGET``, or else `DEFAULT_SERVER`.

    Raises:
        InvalidSpecError: the target is invalid.
        RuntimeError: gRPC does not work in this forked process.
    """
    return _CLIENTS.get(server)


def check_server(server: str | None) -> str:
    """Return the server as a string: empty for the default.

    Raises:
        TypeError: it is not a string.
    """
    if server is None:
        return ""
    if not isinstance(server, str):
        raise TypeError(f"server must be a string or None, not {type(server).__name__}")
    return server


def connect(server: str | None = None, **options: Any) -> None:
    """Set how this process, and processes forked from it, connect to a server.

    Without it, modules and functions use the defaults of `PoolingClient`.

    Args:
        server: target of the server, or None for the default.
        options: arguments of `PoolingClient` besides `target`, such as `timeout` in seconds.

    Raises:
        InvalidSpecError: the target or an option is invalid.
    """
    _CLIENTS.set_options(server or "", options)


def _target(server: str) -> str:
    return server or os.environ.get("POOLING_TARGET") or DEFAULT_SERVER
