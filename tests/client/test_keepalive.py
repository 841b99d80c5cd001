"""Keepalive pings: both ends detect a silent peer, and pings never close a connection."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient
from pooling_engine import InvalidSpecError, PoolSpec
from pooling_server import PoolingServer, ServerConfig
from pooling_wire import keepalive
from tests.client.support import in_flight
from tests.support.proxy import Proxy
from tests.support.waiting import LIMIT_S, wait_until

SPEC = PoolSpec("max", 2)
X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
FAST_PINGS: dict[str, Any] = {"keepalive": 1.0, "keepalive_timeout": 1.0}


@pytest.fixture
def server() -> Iterator[PoolingServer]:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy"))
    server.start()
    yield server
    wait_until(lambda: in_flight(server) == 0, "the stream of a dead client is still in flight")
    assert server.stop()


@pytest.fixture
def proxy(server: PoolingServer) -> Iterator[Proxy]:
    with Proxy(server.address) as proxy:
        yield proxy


def raw_stream(address: str, *options: tuple[str, int]) -> tuple[grpc.Channel, Any]:
    """Open a stream without a deadline and without a request, over a channel with these options."""
    channel = grpc.insecure_channel(address, options=options)
    ended = threading.Event()
    call = channel.stream_stream("/pooling.v1.PoolingService/ForwardStream")
    stream = call(iter(lambda: ended.wait() and None, None))
    stream.add_callback(ended.set)
    return channel, stream


def test_a_silent_server_is_unavailable(server: PoolingServer, proxy: Proxy) -> None:
    """After 30 s by default, here after two seconds. The call has no deadline."""
    options = keepalive.client_options(FAST_PINGS["keepalive"], FAST_PINGS["keepalive_timeout"])
    channel, stream = raw_stream(proxy.address, *options)
    wait_until(lambda: in_flight(server) == 1, "the stream has not started")
    proxy.silence()
    with channel:
        wait_until(stream.done, "the call still waits for a dead server")
    assert stream.code() is grpc.StatusCode.UNAVAILABLE


def test_a_call_continues_over_a_new_connection(proxy: Proxy) -> None:
    """The old connection is silent but not closed. The call is within its deadline."""
    with PoolingClient(proxy.address, timeout=LIMIT_S, **FAST_PINGS) as client:
        client.forward(X, SPEC)
        proxy.silence()
        assert client.forward(X, SPEC).output.tolist() == [[[[5, 7], [13, 15]]]]
        assert next(client.forward_many([ForwardCall(X, SPEC)])).output.max() == 15
    assert proxy.connections == 2


def test_an_asyncio_call_continues_over_a_new_connection(proxy: Proxy) -> None:
    async def call() -> None:
        async with AsyncPoolingClient(proxy.address, timeout=LIMIT_S, **FAST_PINGS) as client:
            await client.forward(X, SPEC)
            proxy.silence()
            assert (await client.forward(X, SPEC)).output.max() == 15

    asyncio.run(call())
    assert proxy.connections == 2


def test_the_server_detects_a_silent_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keepalive, "SERVER_INTERVAL_S", 0.5)
    monkeypatch.setattr(keepalive, "SERVER_TIMEOUT_S", 1.0)
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy"))
    server.start()
    with Proxy(server.address) as own:
        channel, _ = raw_stream(own.address)
        wait_until(lambda: in_flight(server) == 1, "the stream has not started")
        own.silence()
        wait_until(lambda: in_flight(server) == 0, "the server still waits for a dead client")
        channel.close()
    assert server.stop()


def test_the_server_permits_frequent_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw HTTP/2 pings without calls: gRPC's own client sends at most one ping per second."""
    monkeypatch.setattr(keepalive, "LEAST_INTERVAL_S", 0.0)  # as fast as the answers come
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy"))
    server.start()
    host, _, port = server.address.rpartition(":")
    received: list[int] = []
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
        for number in range(8):  # by default, gRPC closes the connection after three
            connection.sendall(frame(PING, bytes([number]) * 8))
            while received.count(PING) <= number:
                received.append(next_frame(connection))
                assert received[-1] != GO_AWAY, "the server rejected the pings"
    assert server.stop()


def test_the_server_permits_twice_the_rate_of_any_client() -> None:
    with pytest.raises(InvalidSpecError):
        PoolingClient(keepalive=0.999)
    permitted = dict(keepalive.server_options())["grpc.http2.min_ping_interval_without_data_ms"]
    assert permitted == 500


SETTINGS, PING, GO_AWAY = 4, 6, 7


def frame(kind: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload


def next_frame(connection: socket.socket) -> int:
    """Return the type of the next frame."""
    header = connection.recv(9, socket.MSG_WAITALL)
    connection.recv(int.from_bytes(header[:3]), socket.MSG_WAITALL)
    return header[3]


@pytest.mark.parametrize("client", [PoolingClient, AsyncPoolingClient])
@pytest.mark.parametrize(
    "options",
    [{"keepalive": 0.5}, {"keepalive": None}, {"keepalive_timeout": 0}, {"keepalive": 1e9}],
    ids=str,
)
def test_seconds_that_a_server_does_not_permit_are_rejected(client: Any, options: Any) -> None:
    (name,) = options
    with pytest.raises(
        InvalidSpecError, match=f"^{name} is .* seconds from .* to 86400$"
    ) as caught:
        client(**options)
    assert caught.value.field == name
