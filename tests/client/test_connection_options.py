"""Options of the connections: metadata, tokens, authority, interceptors, compression, TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient, PoolSpec
from pooling_engine import InvalidSpecError
from pooling_server import PoolingServer
from pooling_wire import FORWARD, GET_SERVER_INFO, path_of

SPEC = PoolSpec("max", 2)
X = np.ones((1, 1, 8, 8), np.float32)


class Recorder(grpc.GenericRpcHandler):
    """Server that pools, and records the metadata of each call or stream."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def service(self, details: Any) -> Any:
        self.seen.append(dict(details.invocation_metadata) | {"path": details.method})
        if details.method == FORWARD.path:
            return grpc.unary_unary_rpc_method_handler(lambda data, _: self._pooled(data))
        if details.method == FORWARD.stream_path:
            return grpc.stream_stream_rpc_method_handler(self._items)
        return None

    def _pooled(self, data: bytes) -> bytes:
        call, _ = FORWARD.decode_request(data)
        return FORWARD.encode_response(pooling_engine.forward(call.input, call.spec))

    def _items(self, items: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for item in items:
            id_, call, *_rest = FORWARD.decode_item(item)
            assert isinstance(call, ForwardCall)
            yield FORWARD.encode_reply(id_, pooling_engine.forward(call.input, call.spec))


@pytest.fixture
def recorder() -> Iterator[tuple[str, Recorder]]:
    handler = Recorder()
    server = grpc.server(ThreadPoolExecutor(4), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", handler
    server.stop(None).wait()


def call_all(target: str, **options: Any) -> None:
    """Make unary calls, calls over a shared stream and a stream with both clients."""
    calls = [ForwardCall(X, SPEC)] * 2
    with PoolingClient(target, **options) as client:
        for _ in range(4):
            client.forward(X, SPEC)
        assert len(list(client.forward_many(calls))) == 2

    async def call() -> None:
        async with AsyncPoolingClient(target, **options) as client:
            for _ in range(4):
                await client.forward(X, SPEC)
            assert len([each async for each in client.forward_many(calls)]) == 2

    asyncio.run(call())


def test_metadata_and_token_are_sent_with_every_call(recorder: tuple[str, Recorder]) -> None:
    target, handler = recorder
    call_all(target, token="secret", metadata={"X-Team": "vision", "trace-bin": b"\x00\xff"})
    paths = {FORWARD.path, FORWARD.stream_path, path_of(GET_SERVER_INFO)}
    assert {seen["path"] for seen in handler.seen} == paths
    for seen in handler.seen:
        assert seen["authorization"] == "Bearer secret"
        assert (seen["x-team"], seen["trace-bin"]) == ("vision", b"\x00\xff")


def test_functions_return_metadata_and_token_of_each_attempt(
    recorder: tuple[str, Recorder],
) -> None:
    target, handler = recorder
    numbers = iter(range(100))
    options: dict[str, Any] = {"shared_streams": False, "token": lambda: f"t{next(numbers)}"}
    call_all(target, metadata=lambda: {"n": str(next(numbers))}, **options)
    values = [value for seen in handler.seen for value in (seen["n"], seen["authorization"])]
    assert len(set(values)) == 2 * len(handler.seen) == 24


def test_an_authority_is_sent(recorder: tuple[str, Recorder]) -> None:
    target, _ = recorder
    call_all(target, authority="pooling.example.com")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_requests_are_compressed(
    compression: grpc.Compression, recorder: tuple[str, Recorder]
) -> None:
    call_all(recorder[0], compression=compression)


class Counting(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Interceptor that counts calls and streams."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.calls.append(details.method)
        return continuation(details, request)

    intercept_stream_stream = intercept_unary_unary


class AsyncCounting(grpc.aio.UnaryUnaryClientInterceptor):
    """Interceptor that counts calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.calls.append(details.method)
        return await continuation(details, request)


class AsyncStreamCounting(grpc.aio.StreamStreamClientInterceptor):
    """Interceptor that counts streams."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        self.calls.append(details.method)
        return await continuation(details, requests)


def test_interceptors_see_calls_and_streams(server: PoolingServer) -> None:
    interceptor = Counting()
    with PoolingClient(server.address, interceptors=[interceptor]) as client:
        for _ in range(4):
            client.forward(X, SPEC)
        assert len(list(client.forward_many([ForwardCall(X, SPEC)] * 3))) == 3
    info = path_of(GET_SERVER_INFO)
    assert interceptor.calls == [FORWARD.path] * 4 + [info, FORWARD.stream_path]


def test_asyncio_interceptors_see_calls_and_streams(server: PoolingServer) -> None:
    calls, streams = AsyncCounting(), AsyncStreamCounting()

    async def call() -> None:
        async with AsyncPoolingClient(server.address, interceptors=[calls, streams]) as client:
            for _ in range(4):
                await client.forward(X, SPEC)
            many = client.forward_many([ForwardCall(X, SPEC)] * 3)
            assert len([each async for each in many]) == 3

    asyncio.run(call())
    assert [method for method in map(str, calls.calls) if method] != []
    assert (len(calls.calls), len(streams.calls)) == (4 + 1, 1)  # and GetServerInfo


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"credentials": "certificate.pem"}, "credentials"),
        ({"token": 5}, "token"),
        ({"token": "two words"}, "token"),
        ({"token": "line\n"}, "token"),
        ({"metadata": [("a", "b")]}, "metadata"),
        ({"metadata": {"a b": "c"}}, "metadata"),
        ({"metadata": {"grpc-timeout": "1S"}}, "metadata"),
        ({"metadata": {"a": b"bytes"}}, "metadata"),
        ({"metadata": {"a-bin": "text"}}, "metadata"),
        ({"metadata": {"a": "\n"}}, "metadata"),
        ({"authority": ""}, "authority"),
        ({"authority": 5}, "authority"),
        ({"interceptors": Counting()}, "interceptors"),
        ({"interceptors": [5]}, "interceptors"),
        ({"keepalive": True}, "keepalive"),
        ({"keepalive_timeout": True}, "keepalive_timeout"),
        ({"compression": "gzip"}, "compression"),
        ({"wait_for_ready": 1}, "wait_for_ready"),
        ({"shared_streams": None}, "shared_streams"),
        ({"connections": True}, "connections"),
        ({"connections": 0}, "connections"),
    ],
)
@pytest.mark.parametrize("class_", [PoolingClient, AsyncPoolingClient])
def test_invalid_options_are_rejected(class_: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpecError, match=field) as caught:
        class_("127.0.0.1:1", **options)
    assert caught.value.field == field


def test_interceptors_of_the_other_kind_are_rejected() -> None:
    with pytest.raises(InvalidSpecError, match=r"interceptors\[1\] .* of grpc$"):
        PoolingClient("127.0.0.1:1", interceptors=[Counting(), AsyncCounting()])
    with pytest.raises(InvalidSpecError, match=r"interceptors\[0\] .* of grpc\.aio$"):
        AsyncPoolingClient("127.0.0.1:1", interceptors=[Counting()])


def test_numbers_of_numpy_are_numbers(server: PoolingServer) -> None:
    options: dict[str, Any] = {
        "timeout": np.float32(30),
        "connections": np.int64(2),
        "keepalive": np.int32(20),
        "keepalive_timeout": np.float32(5),
        "shared_streams": np.False_,
    }

    async def call() -> Any:
        async with AsyncPoolingClient(server.address, **options) as client:
            return await client.forward(X, SPEC)

    with PoolingClient(server.address, **options) as client:
        assert (client.forward(X, SPEC).output == asyncio.run(call()).output).all()


def test_errors_do_not_contain_secrets() -> None:
    for options in ({"token": "my secret"}, {"metadata": {"a": "my secret\n"}}):
        with pytest.raises(InvalidSpecError) as caught:
            PoolingClient("127.0.0.1:1", **options)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
