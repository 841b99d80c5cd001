"""Servers with low limits: the client fetches the limits and splits larger calls."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pooling_engine
import pooling_server.serving.servicer
from pooling_client import AsyncPoolingClient, PoolingClient, _limits
from pooling_engine import PoolSpec, TensorTooLargeError
from pooling_server import PoolingServer, ServerConfig
from tests.support import cases, oracle
from tests.support.waiting import quiet_port

KIB = 1 << 10
LIMITS = {"max_message_bytes": 64 * KIB, "max_tensor_bytes": 48 * KIB}
MAX = PoolSpec("max", 3, 2, 1)
SHAPES = {
    "over the message limit": (1, 6, 64, 64),
    "over the limit of gRPC": (2, 9, 64, 64),
    "one plane": (1, 1, 300, 256),
}
FORMATS = ("window", "plane", "tensor")
Serve = Callable[..., PoolingServer]


@pytest.fixture
def info_requests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each request for the limits of a server."""
    describe, info_requests = pooling_server.serving.servicer.describe, []

    def counted(*arguments: Any) -> Any:
        info_requests.append(1)
        return describe(*arguments)

    monkeypatch.setattr(pooling_server.serving.servicer, "describe", counted)
    return info_requests


@pytest.fixture
def serve(info_requests: list[int]) -> Iterator[Serve]:
    """Start servers with options."""
    servers = []

    def start(listen: str = "127.0.0.1:0", **options: Any) -> PoolingServer:
        servers.append(PoolingServer(ServerConfig(listen=listen, backend="numpy", **options)))
        servers[-1].start()
        return servers[-1]

    yield start
    assert all(server.stop() for server in servers)


@pytest.mark.parametrize("index_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_calls_over_the_message_limit_are_split(
    serve: Serve, info_requests: list[int], shape: tuple[int, ...], index_format: str
) -> None:
    x = cases.normal(shape)
    local = pooling_engine.forward(x, MAX, return_indices=True, index_format=index_format)
    dy = cases.normal(local.output.shape)
    residual: dict[str, Any] = {"input_shape": x.shape, "indices": local.indices}
    residual["index_format"] = index_format
    expected = pooling_engine.backward(dy, MAX, **residual)
    with PoolingClient(serve(**LIMITS).address) as client:
        for _ in range(2):
            remote = client.forward(x, MAX, return_indices=True, index_format=index_format)
            oracle.assert_same_bits(remote.output, local.output)
            np.testing.assert_array_equal(remote.indices, local.indices, strict=True)
            oracle.assert_same_bits(client.backward(dy, MAX, **residual), expected)
        assert len(info_requests) == 1


def test_the_asyncio_client_splits_calls(serve: Serve, info_requests: list[int]) -> None:
    x = cases.normal((2, 9, 64, 64))
    address = serve(**LIMITS).address

    async def call() -> None:
        async with AsyncPoolingClient(address) as client:
            for _ in range(2):
                got = (await client.forward(x, MAX)).output
                oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)

    asyncio.run(call())
    assert len(info_requests) == 1


def test_chunks_respect_the_limits_of_the_server(serve: Serve, info_requests: list[int]) -> None:
    """With default sizes: calls over 8 MiB fetch the limits first, small calls never do."""
    server = serve(max_message_bytes=512 * KIB)
    x = cases.normal((5, 64, 128, 128))
    spec = PoolSpec("average", 4)
    with PoolingClient(server.address) as client:
        client.forward(x[:1, :4], spec)
        assert info_requests == []
        got = client.forward(x, spec).output
        oracle.assert_same_bits(got, pooling_engine.forward(x, spec).output)
        assert info_requests == [1]


def test_row_bands_that_repeat_rows_respect_the_limits(serve: Serve) -> None:
    """Windows of 31 rows, stride 1: a small row band consists mostly of rows of its neighbours."""
    x, spec = cases.normal((1, 1, 400, 128)), PoolSpec("sum", (31, 1), (1, 1))
    with PoolingClient(serve(**LIMITS).address) as client:
        got = client.forward(x, spec).output
        oracle.assert_same_bits(got, pooling_engine.forward(x, spec).output)


def test_too_much_work_is_rejected_and_not_split(serve: Serve) -> None:
    server = serve(max_taps=1000, **LIMITS)
    with (
        PoolingClient(server.address) as client,
        pytest.raises(TensorTooLargeError, match="--max-taps"),
    ):
        client.forward(cases.normal((1, 1, 64, 64)), MAX)


def test_a_restarted_server_may_have_lower_limits(serve: Serve, info_requests: list[int]) -> None:
    listen = f"127.0.0.1:{quiet_port()}"
    server, x = serve(listen, max_message_bytes=256 * KIB), cases.normal((4, 9, 96, 96))
    with PoolingClient(server.address) as client:
        client.forward(x, MAX)
        assert server.stop()
        serve(server.address, **LIMITS)
        got = client.forward(x, MAX).output
        oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)
        assert len(info_requests) == 2


def residual_of(mode: str, x: Any, result: Any) -> dict[str, Any]:
    if mode == "lp":
        return {"input": x}
    return {"input_shape": x.shape, "indices": result.indices}


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("mode", ["max", "average", "lp"])
def test_calls_in_shared_memory_are_split_into_planes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, mode: str, layout: str
) -> None:
    """No tensor is sent, and results are written to the arrays of the caller."""
    monkeypatch.setattr(_limits, "STREAM_BYTES", 256 * KIB)
    monkeypatch.setattr(_limits.RequestLimits, "needs_chunks", lambda *_: pytest.fail("it is sent"))
    spec = PoolSpec(mode, 3, 2, 1, layout=layout)
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        server = serve(f"unix:{folder}/s", max_tensor_bytes=128 * KIB)
        with PoolingClient(server.address) as client:
            x = client.empty((6, 4, 64, 64) if layout == "channels_first" else (6, 64, 64, 4))
            x[...] = cases.normal(x.shape)
            selects, done = mode == "max", []
            local = pooling_engine.forward(x, spec, return_indices=selects)
            remote = client.forward(
                x, spec, return_indices=selects, progress=lambda *seen: done.append(seen)
            )
            oracle.assert_same_bits(remote.output, local.output)
            assert len(done) > 1
            assert done[-1] == (x.nbytes, x.nbytes)
            if selects:
                np.testing.assert_array_equal(remote.indices, local.indices, strict=True)
            dy = cases.normal(local.output.shape)
            residual, out = residual_of(mode, x, local), np.full_like(x, np.nan)
            assert client.backward(dy, spec, **residual, out=out) is out
            oracle.assert_same_bits(out, pooling_engine.backward(dy, spec, **residual))


@pytest.mark.parametrize("index_format", ["plane", "tensor"])
@pytest.mark.parametrize("shape", [(6, 4, 64, 64), (1, 1, 512, 192)], ids=["planes", "one plane"])
def test_calls_that_cannot_be_split_in_shared_memory_are_sent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], index_format: str
) -> None:
    monkeypatch.setattr(_limits, "STREAM_BYTES", 100 * KIB)
    x = cases.normal(shape)
    local = pooling_engine.forward(x, MAX, return_indices=True, index_format=index_format)
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        server = serve(f"unix:{folder}/s", max_tensor_bytes=100 * KIB)
        with PoolingClient(server.address) as client:
            remote = client.forward(x, MAX, return_indices=True, index_format=index_format)
            oracle.assert_same_bits(remote.output, local.output)
            np.testing.assert_array_equal(remote.indices, local.indices, strict=True)
            dy = cases.normal(local.output.shape)
            residual: dict[str, Any] = {"input_shape": shape, "indices": local.indices}
            residual["index_format"] = index_format
            expected = pooling_engine.backward(dy, MAX, **residual)
            oracle.assert_same_bits(client.backward(dy, MAX, **residual), expected)
