"""Callers that let a stream wait for longer than the server does: nothing is lost, nothing held."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient
from pooling_client._streams import retries as _exchange
from pooling_engine import DeadlineError, PoolSpec
from pooling_server import PoolingServer, ServerConfig
from tests.client.test_large import in_flight, threads_of_streams
from tests.support.waiting import wait_until

SPEC = PoolSpec("max", 2)


@pytest.fixture
def server() -> Iterator[PoolingServer]:
    config = ServerConfig(listen="127.0.0.1:0", backend="numpy", stream_idle_s=0.2)
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"
    wait_until(lambda: not threads_of_streams(), "a thread of a stream is left")


def call(value: int) -> ForwardCall:
    return ForwardCall(np.full((1, 1, 8, 8), value, np.float32), SPEC)


def test_calls_that_come_late_go_over_a_new_stream(server: PoolingServer) -> None:
    """Meanwhile none is open, so that the place in flight is another's."""
    seen: list[float] = []

    def calls() -> Iterator[ForwardCall]:
        for value in range(6):
            yield call(value)
            if value % 2:
                wait_until(lambda value=value: len(seen) > value, "the result did not come")
                wait_until(lambda: in_flight(server) == 0, "the idle stream is still open")
                time.sleep(0.3)
                assert in_flight(server) == 0

    with PoolingClient(server.address) as client:
        for result in client.forward_many(calls()):
            seen.append(float(result.output.max()))
        assert seen == list(range(6))
        assert list(client.forward_many([])) == []


def test_the_asyncio_twin(server: PoolingServer) -> None:
    seen: list[float] = []

    async def calls() -> AsyncIterator[ForwardCall]:
        for value in range(6):
            yield call(value)
            if value % 2:
                waiting = asyncio.to_thread(
                    wait_until,
                    lambda value=value: len(seen) > value and in_flight(server) == 0,
                    "the idle stream is still open",
                )
                await waiting
                await asyncio.sleep(0.3)
                assert in_flight(server) == 0

    async def collect() -> None:
        async with AsyncPoolingClient(server.address) as client:
            async for result in client.forward_many(calls()):
                seen.append(float(result.output.max()))

    asyncio.run(collect())
    assert seen == list(range(6))


def test_results_that_are_taken_late(
    server: PoolingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine a stream may be over before the first reply is taken.
    monkeypatch.setattr(_exchange, "ATTEMPTS", 1000)
    same = PoolSpec("max", 1)  # sixteen replies of 2 MiB: more than the buffers on the way hold
    with PoolingClient(server.address) as client:
        results = client.forward_many(
            ForwardCall(np.full((1, 1, 1024, 512), value, np.float32), same) for value in range(24)
        )
        assert next(results).output.max() == 0
        wait_until(lambda: in_flight(server) == 0, "the stream waits for its caller")
        assert [result.output.max() for result in results] == list(range(1, 24))


def test_the_deadline_holds_while_no_stream_is_open(server: PoolingServer) -> None:
    expired = threading.Event()

    def calls() -> Iterator[ForwardCall]:
        yield call(1)
        expired.wait()

    with PoolingClient(server.address) as client:
        for timeout_s in (1, 10, 100):  # a busy machine may take as long for the first result
            results: list[object] = []
            with pytest.raises(DeadlineError):
                results.extend(client.forward_many(calls(), timeout=timeout_s))
            if results:
                break
        expired.set()
    assert len(results) == 1
