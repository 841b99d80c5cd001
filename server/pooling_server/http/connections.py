"""Connections that end when their client sends no complete request in time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def timed_connections(limit_s: float) -> type[H11Protocol]:
    """Return uvicorn's class of connections, with a limit for the wait for a request.

    uvicorn limits the wait for the first byte of the next request only. A client could otherwise
    send its headers, or the rest of a body that was rejected, for ever.

    Args:
        limit_s: seconds from the first byte to the end of the headers; 0 for no limit.
    """

    class TimedConnection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def _watch(self) -> None:
            """Start the limit, unless it runs; end it while a request is being answered."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._unwatch()
            elif limit_s and self._deadline is None:
                self._deadline = self.loop.call_later(limit_s, self.transport.abort)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return TimedConnection
