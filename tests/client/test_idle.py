"""Calls or results that come later than the idle timeout of the server: nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest

from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient
from pooling_engine import DeadlineError, PoolSpec
from pooling_server import PoolingServer, ServerConfig
from tests.client.support import count_streams, in_flight, threads_of_streams
from tests.support.waiting import LIMIT_S, wait_until

SPEC = PoolSpec("max", 2)
COUNT = 6


@pytest.fixture
def server() -> Iterator[PoolingServer]:
    config = ServerConfig(listen="127.0.0.1:0", backend="numpy", stream_idle_s=0.2)
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"
    wait_until(lambda: not threads_of_streams(), "a thread of a stream is left")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each stream that a client opens."""
    return count_streams(monkeypatch)


def call(value: int) -> ForwardCall:
    return ForwardCall(np.full((1, 1, 8, 8), value, np.float32), SPEC)


def assert_no_stream_opens(server: PoolingServer, opened: list[str]) -> None:
    """Assert that the client opens no stream while another idle stream opens and times out."""
    wait_until(lambda: in_flight(server) == 0, "the idle stream is still open")
    before = len(opened)
    end = threading.Event()
    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream("/pooling.v1.PoolingService/ForwardStream")(
            iter(lambda: end.wait(LIMIT_S) and None, None), wait_for_ready=True
        )
        assert stream.code() is grpc.StatusCode.UNAVAILABLE  # waits for the end of the stream
        end.set()
    assert len(opened) == before


def test_late_calls_use_a_new_stream(server: PoolingServer, opened: list[str]) -> None:
    """No stream is open in between, so another client can use the place."""
    seen: list[float] = []

    def calls() -> Iterator[ForwardCall]:
        for value in range(COUNT):
            yield call(value)
            if value % 2:
                wait_until(lambda value=value: len(seen) > value, "the result did not come")
                assert_no_stream_opens(server, opened)

    with PoolingClient(server.address) as client:
        for result in client.forward_many(calls()):
            seen.append(float(result.output.max()))
        assert seen == list(range(COUNT))
        assert list(client.forward_many([])) == []
    assert len(opened) > COUNT // 2


def test_late_asyncio_calls_use_a_new_stream(server: PoolingServer, opened: list[str]) -> None:
    seen: list[float] = []

    async def calls() -> AsyncIterator[ForwardCall]:
        for value in range(COUNT):
            yield call(value)
            if value % 2:
                result_came = asyncio.to_thread(wait_until, lambda value=value: len(seen) > value)
                await result_came
                await asyncio.to_thread(assert_no_stream_opens, server, opened)

    async def collect() -> None:
        async with AsyncPoolingClient(server.address) as client:
            async for result in client.forward_many(calls()):
                seen.append(float(result.output.max()))

    asyncio.run(collect())
    assert seen == list(range(COUNT))
    assert len(opened) >= COUNT // 2


def test_results_that_are_taken_late(server: PoolingServer) -> None:
    same = PoolSpec("max", 1)  # sixteen replies of 2 MiB: more than the buffers between both hold
    with PoolingClient(server.address) as client:
        results = client.forward_many(
            ForwardCall(np.full((1, 1, 1024, 512), value, np.float32), same) for value in range(24)
        )
        assert next(results).output.max() == 0
        wait_until(lambda: in_flight(server) == 0, "the stream still waits for its client")
        assert [result.output.max() for result in results] == list(range(1, 24))


def test_the_deadline_holds_while_no_stream_is_open(server: PoolingServer) -> None:
    expired = threading.Event()

    def calls() -> Iterator[ForwardCall]:
        yield call(1)
        expired.wait()

    with PoolingClient(server.address) as client:
        for timeout_s in (1, 10):  # a busy machine may need longer for the first result
            results: list[object] = []
            with pytest.raises(DeadlineError):
                results.extend(client.forward_many(calls(), timeout=timeout_s))
            if results:
                break
        expired.set()
    assert len(results) == 1
