"""Callers that are slow to send, or to take: others are answered, and no reply is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pooling_server import PoolingServer, ServerConfig
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.test_overload import wait_for_in_flight
from tests.server.test_refusals import assert_serves, backward, details_of, forward, spec, tensor
from tests.support.proxy import Proxy
from tests.support.waiting import LIMIT_S, wait_until

MOST = 2
MANY = 60  # more than the server has threads
LARGE = (1, 1, 2048, 1024)  # a gradient of 8 MiB: more than the buffers on the way hold


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
    assert error.details() == f"{text}, the most this server takes (--max-in-flight)"
    details = details_of(error)
    assert details["ErrorInfo"].reason == "OVERLOADED"
    assert "RetryInfo" in details


class Silent:
    """Calls of a method whose requests do not come, on a connection of their own."""

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
def test_requests_that_do_not_come_keep_nobody(
    server: PoolingServer, stub: Any, method: str
) -> None:
    """They are calls in flight: more are refused, and health answers."""
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


def test_idle_streams_of_reflection_keep_nobody(server: PoolingServer, stub: Any) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    with Silent(server.address, method):
        assert_serves(stub)
        assert_healthy(server.address)


def test_info_needs_no_request(server: PoolingServer) -> None:
    with Silent(server.address, "/pooling.v1.PoolingService/GetServerInfo") as calls:
        for call in calls:
            assert pb.GetServerInfoResponse.FromString(next(call)).limits.max_in_flight == MOST


def large() -> pb.BackwardRequest:
    whole = spec(pb.MODE_SUM, {"global_window": pb.GlobalWindow()})
    gradient = tensor((1, 1, 1, 1))
    return backward(spec=whole, input_shape=LARGE, indices=None, output_gradient=gradient)


@pytest.fixture
def slow(server: PoolingServer) -> Iterator[tuple[Proxy, Any]]:
    """A caller that takes nothing, until it is let."""
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.address))
        channel = stack.enter_context(
            grpc.insecure_channel(proxy.address, options=[("grpc.max_receive_message_length", -1)])
        )
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        stub.Forward(forward())
        proxy.hold_replies()
        yield proxy, stub


def computed(server: PoolingServer, count: int) -> bool:
    """Whether that many replies are on their way, and nothing else is in flight."""
    executor = server.servicer._executor
    return (executor._in_flight, executor._open) == (0, count)


def test_a_stop_waits_for_replies_that_are_taken_slowly(server: PoolingServer, slow: Any) -> None:
    proxy, stub = slow
    reply = stub.Backward.future(large())
    wait_until(lambda: computed(server, 1), "no reply is on its way")
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(server.stop()))
    stopping.start()
    time.sleep(1.5)
    proxy.let_replies_go()
    assert len(reply.result(LIMIT_S).input_gradient.data) == 8 << 20
    stopping.join(LIMIT_S)
    assert stopped == [True]


def test_no_more_replies_wait_than_calls_may_be_in_flight(
    server: PoolingServer, slow: Any, stub: Any
) -> None:
    proxy, its_stub = slow
    replies = []
    for count in range(1, MOST + 1):
        replies.append(its_stub.Backward.future(large()))
        wait_until(lambda count=count: computed(server, count), "no reply is on its way")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward(), timeout=LIMIT_S)
    assert_overloaded(caught.value, "the replies to 2 calls wait")
    assert_healthy(server.address)
    proxy.let_replies_go()
    assert [len(reply.result(LIMIT_S).input_gradient.data) for reply in replies] == [8 << 20] * 2
    wait_until(lambda: computed(server, 0), "replies still wait")
    assert_serves(stub)
