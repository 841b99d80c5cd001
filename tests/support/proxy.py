"""TCP proxy whose connections can stop passing bytes without being closed."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Forward bytes both ways between clients and a server, until stopped.

    Attributes:
        address: the listening address, HOST:PORT.
        connections: number of clients that have connected so far.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._partners: dict[socket.socket, socket.socket] = {}
        self._silent: list[socket.socket] = []
        self._servers: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._is_over = False
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def silence(self) -> None:
        """Pass no more bytes on the present connections, and keep them open."""
        with self._lock:
            for each in self._partners:
                self._selector.unregister(each)
            self._silent += self._partners
            self._partners.clear()

    def hold_replies(self) -> None:
        """Stop reading from the server, like a client that reads no replies."""
        with self._lock:
            for each in self._servers:
                self._selector.unregister(each)

    def let_replies_go(self) -> None:
        """Read from the server again."""
        with self._lock:
            for each in self._servers:
                if each in self._partners:  # it is still open
                    self._selector.register(each, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._thread.join()
        for each in (self._listener, *self._partners, *self._silent):
            each.close()
        self._selector.close()

    def _forward(self) -> None:
        while not self._is_over:
            events = self._selector.select(timeout=0.02)
            with self._lock:
                for key, _ in events:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._partners:
                        self._pass_on(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        self.connections += 1
        self._servers.append(server)
        for one, other in ((client, server), (server, client)):
            self._partners[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        other = self._partners[source]
        with suppress(OSError):  # one end has closed
            if data := source.recv(1 << 16):
                other.sendall(data)
                return
        for each in (source, other):
            del self._partners[each]
            if each in self._selector.get_map():  # the replies may be held back
                self._selector.unregister(each)
            each.close()
