"""Helpers of the client tests: a server without a network, probes, comparisons."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np

import pooling_engine
import pooling_wire
from pooling_client import _channel
from pooling_client._transports import drivers
from pooling_engine import PoolingError
from pooling_server import PoolingServer
from pooling_wire import FORWARD

UNLIMITED = pooling_wire.Limits(1 << 30, 1 << 30, 1 << 60, 32)


def threads_of_streams() -> list[str]:
    """Return the names of the running threads that serve streams."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if "consume" in name or name == "pooling-stream"]


def in_flight(server: PoolingServer) -> int:
    """Return the number of calls that are waiting or running in a server."""
    return server.executor.in_flight


class FakeServer:
    """Server without a network: answers requests, or raises scripted errors.

    Attributes:
        limits: what GetServerInfo reports.
        seen: method and timeout of each request or stream, in order.
        errors: method and the errors that its next calls raise.
        items: number of stream items answered.
        waits: seconds of each wait between two attempts; they pass at once.
    """

    def __init__(self, limits: pooling_wire.Limits = UNLIMITED) -> None:
        self.limits = limits
        self.seen: list[tuple[str, float | None]] = []
        self.errors: dict[str, list[PoolingError]] = {}
        self.items = 0
        self.waits: list[float] = []

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.seen]

    def begin(self, method: str, timeout_s: float | None) -> str:
        name = method.rpartition("/")[2]
        self.seen.append((name, timeout_s))
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        return name

    def answer(self, method: str, request: bytes, timeout_s: float) -> bytes:
        name = self.begin(method, timeout_s)
        if name == "GetServerInfo":
            info = pooling_wire.ServerInfo("0", (), self.limits)
            return pooling_wire.encode_server_info(info)
        call, _ = FORWARD.decode_request(request)
        result = pooling_engine.forward(call.input, call.spec, backend="numpy")
        return FORWARD.encode_response(result)

    def answer_item(self, item: Any) -> Any:
        self.items += 1
        if isinstance(item, PoolingError):
            return item
        id_, call, *_ = FORWARD.decode_item(item)
        assert not isinstance(call, PoolingError)
        result = pooling_engine.forward(call.input, call.spec, backend="numpy")
        return FORWARD.encode_reply(id_, result)


class FakeTransport:
    """Blocking transport to a `FakeServer`."""

    is_closed = False

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        return self._server.answer(method, request, timeout_s)

    def stream(
        self, method: str, requests: Iterator[Any], *, window: int, timeout_s: float | None
    ) -> Any:
        self._server.begin(method, timeout_s)
        return ((token, self._server.answer_item(item)) for token, item in requests)

    def wait(self, seconds: float, connects: bool) -> None:
        self._server.waits.append(seconds)


class AsyncFakeTransport:
    """Asyncio transport to a `FakeServer`."""

    is_closed = False

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        await asyncio.sleep(0)
        return self._server.answer(method, request, timeout_s)

    async def stream(
        self, method: str, requests: AsyncIterator[Any], *, window: int, timeout_s: float | None
    ) -> AsyncIterator[Any]:
        self._server.begin(method, timeout_s)
        async for token, item in requests:
            yield token, self._server.answer_item(item)

    async def wait(self, seconds: float) -> None:
        self._server.waits.append(seconds)


def run_blocking(steps: Any, server: FakeServer) -> Any:
    """Run steps with the blocking driver."""
    return drivers.run(steps, FakeTransport(server))  # type: ignore[arg-type]


def run_asyncio(steps: Any, server: FakeServer) -> Any:
    """Run steps with the asyncio driver."""
    return asyncio.run(drivers.run_async(steps, AsyncFakeTransport(server)))  # type: ignore[arg-type]


def assert_same(actual: Any, expected: Any) -> None:
    """Assert equal values, shapes and element types."""
    np.testing.assert_array_equal(actual, expected, strict=True)


DRIVERS: list[Callable[[Any, FakeServer], Any]] = [run_blocking, run_asyncio]


def count_streams(monkeypatch: Any) -> list[str]:
    """Return a list that grows by the method of each stream that a client opens."""
    opened: list[str] = []
    methods_of = _channel.methods_of

    def counted(channel: Any) -> _channel.Methods:
        methods = methods_of(channel)

        def stream(name: str) -> Any:
            open_stream = methods.stream(name)

            def counting(*args: Any, **options: Any) -> Any:
                opened.append(name)
                return open_stream(*args, **options)

            return counting

        return methods._replace(stream=stream)

    monkeypatch.setattr(_channel, "methods_of", counted)
    return opened
