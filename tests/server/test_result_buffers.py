"""Reuse of result buffers: calls never share one, and rejected calls return theirs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_client import PoolingClient
from pooling_engine import PoolSpec
from pooling_server import PoolingServer, ServerConfig
from pooling_wire import FORWARD, METHODS, Method
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import BAD_TENSOR, assert_rejected
from tests.support.requests import adaptive, backward, forward, spec, tensor
from tests.support.waiting import LIMIT_S

SHAPE = (2, 16, 64, 96)  # 768 KiB of float32
MIB = 1 << 20


@pytest.fixture
def fresh() -> Iterator[PoolingServer]:
    """Start a server with an unused arena."""
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", threads=2, arena_bytes=8 * MIB))
    server.start()
    yield server
    assert server.stop()


@pytest.fixture
def fresh_stub(fresh: PoolingServer) -> Iterator[pooling_pb2_grpc.PoolingServiceStub]:
    with grpc.insecure_channel(fresh.address) as channel:
        yield pooling_pb2_grpc.PoolingServiceStub(channel)


def idle_bytes(server: PoolingServer) -> int:
    return server.calls.arena.idle_bytes


def both_ways(
    client: Any, x: np.ndarray, dy: np.ndarray, spec: PoolSpec
) -> tuple[np.ndarray | None, ...]:
    """Return output, indices and gradient; `client` can also be the engine."""
    selects = spec.mode in ("max", "min")
    result = client.forward(x, spec, return_indices=selects)
    residual = {"input": x} if spec.mode == "lp" else {"indices": result.indices}
    shaped = dy[tuple(slice(size) for size in result.output.shape)]
    gradient = client.backward(shaped, spec, input_shape=x.shape, **residual)
    return (*result, gradient)


@pytest.mark.parametrize("mode", ["max", "min", "average", "sum", "lp"])
def test_concurrent_calls_do_not_share_buffers(fresh: PoolingServer, mode: str) -> None:
    """Six clients send different data, in shapes that fit the same buffers."""
    spec = PoolSpec(mode, kernel=3, stride=1, padding=1)
    wrong: list[int] = []
    start = threading.Barrier(6)

    def call(number: int) -> None:
        random = np.random.default_rng(number)
        x = random.standard_normal((2, 16, 60 + number, 96), dtype=np.float32)
        dy = random.standard_normal(x.shape, dtype=np.float32)
        expected = both_ways(pooling_engine, x, dy, spec)
        start.wait()
        with PoolingClient(fresh.address) as client:
            for _ in range(8):
                got = both_ways(client, x, dy, spec)
                if any(not np.array_equal(a, b) for a, b in zip(got, expected, strict=True)):
                    wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert not wrong
    assert 0 < idle_bytes(fresh) <= 8 * MIB


@pytest.mark.parametrize("index_format", ["window", "plane", "tensor"])
def test_replies_stay_valid_after_their_buffers_are_reused(
    fresh: PoolingServer, index_format: str
) -> None:
    spec = PoolSpec("max", kernel=2, stride=1)
    with PoolingClient(fresh.address) as client:
        tensors = [np.full(SHAPE, value, np.float32) for value in range(4)]
        replies = [
            client.forward(x, spec, return_indices=True, index_format=index_format) for x in tensors
        ]
    expected = pooling_engine.forward(
        tensors[0], spec, return_indices=True, index_format=index_format
    )
    for value, reply in enumerate(replies):
        assert (reply.output == value).all()
        np.testing.assert_array_equal(reply.indices, expected.indices, strict=True)


def test_buffers_are_reused(fresh: PoolingServer) -> None:
    """Only the first call of a kind allocates memory."""
    x = np.ones(SHAPE, np.float32)
    spec = PoolSpec("max", kernel=3, stride=1, padding=1)
    with PoolingClient(fresh.address) as client:
        client.forward(x, spec)
        output = idle_bytes(fresh)
        assert output == 768 << 10
        indices = client.forward(x, spec, return_indices=True).indices
        assert idle_bytes(fresh) == output + (192 << 10)  # one byte per index, four per output
        client.backward(x, spec, input_shape=SHAPE, indices=indices)
        for _ in range(3):
            both_ways(client, x, x, spec)
    assert idle_bytes(fresh) == output + (192 << 10)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_buffers_are_returned_after_the_reply_is_encoded(
    fresh: PoolingServer, monkeypatch: pytest.MonkeyPatch, method: Method[Any, Any]
) -> None:
    encode = method.response.encode
    idle: list[int] = []

    def watched(result: Any, places: Any) -> bytes:
        reply: bytes = encode(result, places)
        idle.append(idle_bytes(fresh))
        return reply

    monkeypatch.setattr(method.response, "encode", watched)
    x = np.ones(SHAPE, np.float32)
    spec = PoolSpec("sum", kernel=1)
    with PoolingClient(fresh.address) as client:
        if method is FORWARD:
            client.forward(x, spec)
        else:
            client.backward(x, spec, input_shape=SHAPE)
    assert idle == [0]
    assert idle_bytes(fresh) == 768 << 10


def test_empty_tensors(fresh: PoolingServer) -> None:
    x = np.ones((0, 16, 64, 96), np.float32)
    with PoolingClient(fresh.address) as client:
        output, indices, gradient = both_ways(client, x, x, PoolSpec("max", kernel=2))
    assert output.shape == indices.shape == (0, 16, 32, 48)
    assert gradient.shape == x.shape
    assert idle_bytes(fresh) == 0


def test_arena_bytes_0_disables_reuse() -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", arena_bytes=0))
    server.start()
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    spec = PoolSpec("max", kernel=2)
    with PoolingClient(server.address) as client:
        got = client.forward(x, spec).output
    np.testing.assert_array_equal(got, pooling_engine.forward(x, spec).output)
    assert idle_bytes(server) == 0
    assert server.stop()


LARGE = (1, 64, 64, 64)
SAME = {"adaptive_windows": pb.AdaptiveWindows(output_sizes=(64, 64))}


def overflowing() -> pb.ForwardRequest:
    """Return a request whose sum of integers overflows in the last of many blocks."""
    values = np.zeros(LARGE, "<i8")
    values[..., -8:, -8:] = 2**62
    whole = tensor(LARGE, "int64", data=values.tobytes())
    return forward(spec=spec(pb.MODE_SUM, adaptive(63, 63)), input=whole)


def with_nan() -> pb.ForwardRequest:
    values = np.zeros(LARGE, "<f4")
    values[0, -1, -1, -1] = np.nan
    whole = tensor(LARGE, data=values.tobytes())
    return forward(spec=spec(windows=SAME, nan_policy=pb.NAN_POLICY_ERROR), input=whole)


def with_invalid_index() -> pb.BackwardRequest:
    """Return a request whose last index is out of range."""
    values = np.zeros(LARGE, np.uint8)
    values[0, -1, -1, -1] = 1
    return backward(
        spec=spec(windows=SAME),
        input_shape=LARGE,
        indices=tensor(LARGE, "uint8", data=values.tobytes()),
        output_gradient=tensor(LARGE),
    )


INVALID = {
    "overflow": ("Forward", overflowing(), "input"),
    "nan": ("Forward", with_nan(), "input"),
    "invalid index": ("Backward", with_invalid_index(), "indices"),
}


@pytest.mark.parametrize("case", INVALID)
def test_rejected_calls_return_their_buffers(
    fresh: PoolingServer, fresh_stub: Any, case: str
) -> None:
    method, request, field = INVALID[case]
    for _ in range(12):
        assert_rejected(getattr(fresh_stub, method), request, BAD_TENSOR, field)
    lent = np.prod(LARGE) * (8 if case == "overflow" else 4)
    assert lent <= idle_bytes(fresh) <= 3 * lent, "every rejected call has allocated memory"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_bugs_return_their_buffers(
    fresh: PoolingServer, fresh_stub: Any, monkeypatch: pytest.MonkeyPatch, method: Method[Any, Any]
) -> None:
    """The error occurs after the computation, while the reply is encoded."""

    def broken(*_: Any) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(method.response, "encode", broken)
    # Log records that pytest keeps would hold the frames of the error, and thereby the buffers.
    monkeypatch.setattr(logging.getLogger("pooling_server"), "disabled", True)
    whole = spec(pb.MODE_SUM, SAME)
    requests = {
        "Forward": forward(spec=whole, input=tensor(LARGE)),
        "Backward": backward(
            spec=whole, input_shape=LARGE, indices=None, output_gradient=tensor(LARGE)
        ),
    }
    for _ in range(12):
        with pytest.raises(grpc.RpcError) as caught:
            getattr(fresh_stub, method.name)(requests[method.name])
        assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert MIB <= idle_bytes(fresh) <= 3 * MIB
