"""Bodies of requests and replies: limits of what is received, and parts of what is sent."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send

from pooling_server.config import ServerConfig
from pooling_server.serving.limits import check_request_bytes
from pooling_server.serving.rpcs import Trailers
from pooling_server.serving.unary_calls import late_message

_ENVELOPE_BYTES = 5  # before the message in a body of gRPC-Web
_PART_BYTES = 256 << 10


async def read_body(
    receive: Receive, headers: list[tuple[bytes, bytes]], config: ServerConfig
) -> bytes:
    """Return the body of a request.

    Args:
        receive: receives the request.
        headers: its headers, to reject a body that is too large before it arrives.
        config: limits of the size and of the time.

    Raises:
        TensorTooLargeError: the body is larger than `max_message_bytes`.
        UnavailableError: it did not arrive within `stream_idle_s`.
        ClientDisconnect: the client has disconnected.
    """
    for name, value in headers:
        if name == b"content-length":
            check_request_bytes(int(value) - _ENVELOPE_BYTES, config)
    try:
        async with asyncio.timeout(config.stream_idle_s or None):
            return await _read(receive, config)
    except TimeoutError:
        raise late_message(config.stream_idle_s) from None


async def _read(receive: Receive, config: ServerConfig) -> bytes:
    parts, size, has_more = [], 0, True
    while has_more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientDisconnect
        part = event.get("body", b"")
        size += len(part)
        check_request_bytes(size - _ENVELOPE_BYTES, config)
        parts.append(part)
        has_more = event.get("more_body", False)
    return b"".join(parts)


class _Ended(Protocol):
    trailers: Trailers


class ReplySender:
    """Sends a reply, with the id and the times of its call in the headers.

    A large body is sent in parts, so that `send` waits for a client that reads slowly and the call
    stays unfinished until nearly all of its reply is sent.

    Args:
        send: sends ASGI messages.
        call: the call; its trailers become headers.
    """

    def __init__(self, send: Send, call: _Ended) -> None:
        self._send, self._call = send, call
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, has_more = message.get("body", b""), message.get("more_body", False)
        if self._start is not None:
            await self._send_start(self._start, None if has_more else len(body))
            self._start = None
        view = memoryview(body)
        for begin in range(0, len(view) - _PART_BYTES, _PART_BYTES):
            part = view[begin : begin + _PART_BYTES]
            await self._send({"type": message["type"], "body": part, "more_body": True})
        sent = max(0, -(-len(view) // _PART_BYTES) - 1) * _PART_BYTES
        await self._send({"type": message["type"], "body": view[sent:], "more_body": has_more})

    async def _send_start(self, start: Message, length: int | None) -> None:
        added = [
            (key.encode(), value.encode())
            for key, value in self._call.trailers
            if isinstance(value, str)
        ]
        headers = [*start.get("headers", ()), *added]
        if length is not None and not any(key == b"content-length" for key, _ in headers):
            headers.append((b"content-length", b"%d" % length))
        await self._send({**start, "headers": headers})
