"""Clients that are slow to send or to read: others are answered, and no reply is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import pooling_wire
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import reflection_threads
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import assert_serves, details_of, wait_for_in_flight, wait_for_unfinished
from tests.support.proxy import Proxy
from tests.support.requests import backward, forward, spec, tensor
from tests.support.waiting import LIMIT_S, wait_until

MOST = 2
MANY = 60  # more than the server has threads
LARGE = (1, 1, 2048, 1024)  # a gradient of 8 MiB, more than the network buffers hold


@pytest.fixture
def server() -> Iterator[PoolingServer]:
    config = ServerConfig(listen="127.0.0.1:0", backend="numpy", max_in_flight=MOST)
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"


@pytest.fixture
def stub(server: PoolingServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield pooling_pb2_grpc.PoolingServiceStub(channel)


def assert_healthy(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=LIMIT_S
        )
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def assert_overloaded(error: grpc.RpcError, text: str) -> None:
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == f"{text}; this server's limit is {MOST} (--max-in-flight)"
    details = details_of(error)
    assert details["ErrorInfo"].reason == "OVERLOADED"
    assert "RetryInfo" in details


class Silent:
    """Calls of a method whose messages never arrive, on a separate connection."""

    def __init__(self, address: str, method: str) -> None:
        self._ended = threading.Event()
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        call = self._channel.stream_stream(method)
        nothing = iter(lambda: self._ended.wait() and None, None)
        self.calls = [call(nothing) for _ in range(MANY)]

    def __enter__(self) -> list[Any]:
        return self.calls

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._channel.close()


@pytest.mark.parametrize("method", ["Forward", "Backward", "GetPlan", "ForwardStream"])
def test_calls_without_a_message_do_not_block_others(
    server: PoolingServer, stub: Any, method: str
) -> None:
    """They count as calls in flight: further calls are rejected, and health answers."""
    with Silent(server.address, f"/pooling.v1.PoolingService/{method}") as calls:
        wait_until(lambda: sum(call.done() for call in calls) == MANY - MOST)
        assert_healthy(server.address)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Forward(forward(), timeout=LIMIT_S)
        assert_overloaded(caught.value, "2 calls are in flight")
        for call in calls:
            if call.done():
                assert_overloaded(call, "2 calls are in flight")
    wait_for_in_flight(server, 0)
    assert_serves(stub)


def test_idle_reflection_streams_do_not_block_others(server: PoolingServer, stub: Any) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    with Silent(server.address, method):
        assert_serves(stub)
        assert_healthy(server.address)


def test_a_reflection_stream_ends_the_longest_idle_one(server: PoolingServer) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with (
        Silent(server.address, method) as idle,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        for _ in range(3):
            (reply,) = ask(iter([request]), timeout=LIMIT_S)
            names = {service.name for service in reply.list_services_response.service}
            assert pooling_wire.SERVICE_NAME in names
        ended = [call.code() for call in idle if call.done()]
        assert ended == [grpc.StatusCode.CANCELLED] * len(ended)
        assert len(ended) >= MANY - reflection_threads.MAX_THREADS


def test_server_info_needs_no_message(server: PoolingServer) -> None:
    with Silent(server.address, "/pooling.v1.PoolingService/GetServerInfo") as calls:
        for call in calls:
            assert pb.GetServerInfoResponse.FromString(next(call)).limits.max_in_flight == MOST


def large() -> pb.BackwardRequest:
    whole = spec(pb.MODE_SUM, {"global_window": pb.GlobalWindow()})
    gradient = tensor((1, 1, 1, 1))
    return backward(spec=whole, input_shape=LARGE, indices=None, output_gradient=gradient)


@pytest.fixture
def slow(server: PoolingServer) -> Iterator[tuple[Proxy, Any]]:
    """Return a proxy that holds back replies, and a stub that connects through it."""
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.address))
        channel = stack.enter_context(
            grpc.insecure_channel(proxy.address, options=[("grpc.max_receive_message_length", -1)])
        )
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        stub.Forward(forward())
        wait_for_unfinished(server, 0)
        proxy.hold_replies()
        yield proxy, stub


def wait_for_unsent(server: PoolingServer, count: int) -> None:
    """Wait until exactly `count` replies are built but not sent, and no call is in flight."""
    executor = server.executor
    wait_until(
        lambda: (executor.unfinished, executor.in_flight) == (count, 0),
        f"there are never {count} unsent replies",
    )


def test_a_stop_waits_for_replies_that_are_read_slowly(
    server: PoolingServer, slow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, stub = slow
    reply = stub.Backward.future(large())
    wait_for_unsent(server, 1)
    drain, events, is_draining = server.executor.drain, [], threading.Event()

    def watched_drain(timeout_s: float) -> bool:
        is_draining.set()
        is_finished = drain(timeout_s)
        events.append("drained")
        return is_finished

    monkeypatch.setattr(server.executor, "drain", watched_drain)
    stopping = threading.Thread(target=lambda: events.append(("stopped", server.stop())))
    stopping.start()
    assert is_draining.wait(LIMIT_S)
    assert not drain(0), "the unsent reply does not count"
    events.append("replies released")
    proxy.let_replies_go()
    assert len(reply.result(LIMIT_S).input_gradient.data) == 8 << 20
    stopping.join(LIMIT_S)
    assert events == ["replies released", "drained", ("stopped", True)]


def test_the_number_of_unsent_replies_is_limited(
    server: PoolingServer, slow: Any, stub: Any
) -> None:
    proxy, its_stub = slow
    replies = []
    for count in range(1, MOST + 1):
        replies.append(its_stub.Backward.future(large()))
        wait_for_unsent(server, count)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward(), timeout=LIMIT_S)
    assert_overloaded(caught.value, "the replies to 2 calls are not sent yet")
    assert_healthy(server.address)
    proxy.let_replies_go()
    assert [len(reply.result(LIMIT_S).input_gradient.data) for reply in replies] == [8 << 20] * 2
    wait_for_unsent(server, 0)
    assert_serves(stub)
