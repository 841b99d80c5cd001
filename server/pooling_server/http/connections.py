"""Connections that end when their client does not send a request, or does not read a reply."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def timed_connections(limit_s: float) -> type[H11Protocol]:
    """Return uvicorn's class of connections, with limits for the waits for the client.

    uvicorn limits the wait for the first byte of the next request only. A client could otherwise
    occupy a connection without limit: with headers that do not end, with the rest of a body that
    was rejected, or with a reply that it does not read.

    Args:
        limit_s: longest wait in seconds; 0 for no limit.
    """

    class TimedConnection(H11Protocol):
        _sending: asyncio.TimerHandle | None = None  # ends the wait for a request
        _reading: asyncio.TimerHandle | None = None  # ends the wait until a reply is read

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._sending, self._reading):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading = self._limit()

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._reading is not None:
                self._reading.cancel()

        def _watch(self) -> None:
            """Limit the wait for a request, unless one is being answered."""
            if self.cycle is not None and not self.cycle.response_complete:
                if self._sending is not None:
                    self._sending.cancel()
                self._sending = None
            elif self._sending is None:
                self._sending = self._limit()

        def _limit(self) -> asyncio.TimerHandle | None:
            return self.loop.call_later(limit_s, self.transport.abort) if limit_s else None

    return TimedConnection
