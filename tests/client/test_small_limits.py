"""Servers that take little at a time: the client asks how much, and cuts what is larger."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pooling_engine
import pooling_server.serving.servicer
from pooling_client import AsyncPoolingClient, PoolingClient
from pooling_client._calls import jobs as _jobs
from pooling_engine import PoolSpec, TensorTooLargeError
from pooling_server import PoolingServer, ServerConfig
from tests.support import cases, oracle
from tests.support.waiting import quiet_port

KIB = 1 << 10
LIMITS = {"max_message_bytes": 64 * KIB, "max_tensor_bytes": 48 * KIB}
MAX = PoolSpec("max", 3, 2, 1)
SHAPES = {
    "over the message limit": (1, 6, 64, 64),
    "over what gRPC takes": (2, 9, 64, 64),
    "one plane": (1, 1, 300, 256),
}
FORMATS = ("window", "plane", "tensor")
Serve = Callable[..., PoolingServer]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever a server is asked what it takes."""
    describe, asked = pooling_server.serving.servicer.describe, []

    def counted(*arguments: Any) -> Any:
        asked.append(1)
        return describe(*arguments)

    monkeypatch.setattr(pooling_server.serving.servicer, "describe", counted)
    return asked


@pytest.fixture
def serve(asked: list[int]) -> Iterator[Serve]:
    """Starts a server with options."""
    servers = []

    def start(listen: str = "127.0.0.1:0", **options: Any) -> PoolingServer:
        servers.append(PoolingServer(ServerConfig(listen=listen, backend="numpy", **options)))
        servers[-1].start()
        return servers[-1]

    yield start
    assert all(server.stop() for server in servers)


@pytest.mark.parametrize("index_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_what_is_too_large_for_one_message_goes_in_pieces(
    serve: Serve, asked: list[int], shape: tuple[int, ...], index_format: str
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
        assert len(asked) == 1


def test_the_asyncio_twin(serve: Serve, asked: list[int]) -> None:
    x = cases.normal((2, 9, 64, 64))
    address = serve(**LIMITS).address

    async def call() -> None:
        async with AsyncPoolingClient(address) as client:
            for _ in range(2):
                got = (await client.forward(x, MAX)).output
                oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)

    asyncio.run(call())
    assert len(asked) == 1


def test_slabs_are_no_larger_than_the_server_takes(serve: Serve, asked: list[int]) -> None:
    """Sizes as they are: a call of more than 8 MiB asks before it is sent, a small one never."""
    server = serve(max_message_bytes=512 * KIB)
    x = cases.normal((5, 64, 128, 128))
    spec = PoolSpec("average", 4)
    with PoolingClient(server.address) as client:
        client.forward(x[:1, :4], spec)
        assert asked == []
        got = client.forward(x, spec).output
        oracle.assert_same_bits(got, pooling_engine.forward(x, spec).output)
        assert asked == [1]


def test_bands_that_repeat_rows_fit_too(serve: Serve) -> None:
    """Windows of 31 rows at a stride of one: a small band is mostly rows of its neighbours."""
    x, spec = cases.normal((1, 1, 400, 128)), PoolSpec("sum", (31, 1), (1, 1))
    with PoolingClient(serve(**LIMITS).address) as client:
        got = client.forward(x, spec).output
        oracle.assert_same_bits(got, pooling_engine.forward(x, spec).output)


def test_too_much_work_is_refused_and_not_cut(serve: Serve) -> None:
    server = serve(max_taps=1000, **LIMITS)
    with (
        PoolingClient(server.address) as client,
        pytest.raises(TensorTooLargeError, match="--max-taps"),
    ):
        client.forward(cases.normal((1, 1, 64, 64)), MAX)


def test_a_server_started_anew_may_take_less(serve: Serve, asked: list[int]) -> None:
    listen = f"127.0.0.1:{quiet_port()}"
    server, x = serve(listen, max_message_bytes=256 * KIB), cases.normal((4, 9, 96, 96))
    with PoolingClient(server.address) as client:
        client.forward(x, MAX)
        assert server.stop()
        serve(server.address, **LIMITS)
        got = client.forward(x, MAX).output
        oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)
        assert len(asked) == 2


def residual_of(mode: str, x: Any, result: Any) -> dict[str, Any]:
    if mode == "lp":
        return {"input": x}
    return {"input_shape": x.shape, "indices": result.indices}


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("mode", ["max", "average", "lp"])
def test_in_shared_memory_a_call_goes_in_slabs_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, mode: str, layout: str
) -> None:
    """And nothing of it is sent: the results are where the caller wants them, at any size."""
    monkeypatch.setattr(_jobs, "STREAM_BYTES", 256 * KIB)
    monkeypatch.setattr(_jobs.Job, "is_large", lambda *_: pytest.fail("it is sent"))
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
def test_what_slabs_in_shared_memory_cannot_say_is_sent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], index_format: str
) -> None:
    monkeypatch.setattr(_jobs, "STREAM_BYTES", 100 * KIB)
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
