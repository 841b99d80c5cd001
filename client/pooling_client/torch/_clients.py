"""Clients by server: one for each server in each process."""

from __future__ import annotations

import os
import threading

from pooling_client import PoolingClient

DEFAULT_SERVER = "127.0.0.1:50051"


class _Clients:
    """Table of clients, emptied in a child process after a fork."""

    def __init__(self) -> None:
        self._clients: dict[str, PoolingClient] = {}
        self._lock = threading.Lock()
        self._of_parent: list[dict[str, PoolingClient]] = []

    def get(self, server: str) -> PoolingClient:
        target = server or os.environ.get("POOLING_TARGET") or DEFAULT_SERVER
        client = self._clients.get(target)
        if client is None:
            with self._lock:
                client = self._clients.get(target)
                if client is None:
                    client = self._clients[target] = PoolingClient(target)
        return client

    def clear_after_fork(self) -> None:
        self._of_parent.append(self._clients)  # closing them would disturb the parent
        self._clients = {}
        self._lock = threading.Lock()


_CLIENTS = _Clients()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_CLIENTS.clear_after_fork)


def client_of(server: str) -> PoolingClient:
    """Return the client of a server, created at the first call in this process.

    Args:
        server: target of the server; empty for ``POOLING_TARGET``, or else `DEFAULT_SERVER`.

    Raises:
        InvalidSpecError: the target is invalid.
    """
    return _CLIENTS.get(server)
