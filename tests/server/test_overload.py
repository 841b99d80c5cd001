"""Errors that depend on the state of the server: overload, deadlines, draining, bugs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_client import AsyncPoolingClient
from pooling_engine import PoolSpec
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import duration
from pooling_wire import FORWARD
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import Gate, assert_serves, details_of, wait_for_in_flight
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S, wait_until


@pytest.fixture(params=["received in the polling thread", "received in threads"])
def held(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[PoolingServer, Gate, Any]]:
    """Start a server with one slot and a limit of two calls in flight, behind a closed gate.

    Every call is computed in a thread, because a closed gate would block the polling thread.
    """
    gate = Gate()
    monkeypatch.setattr(pooling_engine, "run", gate)
    monkeypatch.setattr(duration, "INLINE_US", -1)
    is_inline = request.param == "received in the polling thread"
    server = PoolingServer(
        ServerConfig(listen="127.0.0.1:0", threads=1, max_in_flight=2, inline_calls=is_inline)
    )
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        yield server, gate, pooling_pb2_grpc.PoolingServiceStub(channel)
    gate.open()
    server.stop()


def test_overload_is_rejected_with_a_retry_delay(held: Any) -> None:
    _, gate, stub = held
    calls = [stub.Forward.future(forward()) for _ in range(2)]
    gate.wait_entered()
    wait_for_in_flight(held[0], 2)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward())
    details = details_of(caught.value)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == "OVERLOADED"
    assert details["ErrorInfo"].metadata["option"] == "--max-in-flight"
    assert details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 0.1
    gate.open()
    assert [list(call.result(LIMIT_S).output.shape) for call in calls] == [[1, 1, 2, 2]] * 2
    assert_serves(stub)


def test_clients_lose_no_call_of_a_burst_beyond_the_streams_of_a_connection() -> None:
    """gRPC rejects some of them with REFUSED_STREAM, which is UNAVAILABLE in a client."""
    config = ServerConfig(
        listen="127.0.0.1:0",
        backend="numpy",
        warm_up=False,
        max_connection_streams=4,
        max_in_flight=100,
    )
    call = pooling_engine.ForwardCall(np.ones((1, 1, 64, 64), np.float32), PoolSpec("max", 2))
    server = PoolingServer(config)
    server.start()
    try:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.address, options) as channel:
            forward_call = channel.unary_unary(FORWARD.path)
            request = FORWARD.encode_request(call)
            burst = [forward_call.future(request, timeout=LIMIT_S) for _ in range(100)]
            codes = {each.code() for each in burst}
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}

        async def answered() -> int:
            async with AsyncPoolingClient(server.address, timeout=LIMIT_S) as client:
                results = await asyncio.gather(
                    *(client.forward(call.input, call.spec) for _ in range(100))
                )
            return sum(bool((result.output == 1).all()) for result in results)

        assert asyncio.run(answered()) == 100
    finally:
        server.stop()


def test_a_call_that_expires_in_the_queue_is_never_computed(held: Any) -> None:
    server, gate, stub = held
    first = stub.Forward.future(forward())
    gate.wait_entered()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward(), timeout=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for_in_flight(server, 1)
    gate.open()
    first.result(LIMIT_S)
    assert gate.computed == 1


def test_draining_finishes_calls_in_flight_and_rejects_new_ones(held: Any) -> None:
    server, gate, stub = held
    first = stub.Forward.future(forward())
    gate.wait_entered()
    results: list[bool] = []
    stopping = threading.Thread(target=lambda: results.append(server.stop()))
    stopping.start()
    wait_until(lambda: server.executor.is_draining, "the server does not drain")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details_of(caught.value)["ErrorInfo"].reason == "UNAVAILABLE"
    gate.open()
    assert list(first.result(LIMIT_S).output.shape) == [1, 1, 2, 2]
    stopping.join(LIMIT_S)
    assert results == [True]


def test_a_bug_is_reported_by_an_id_only(
    held: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, gate, stub = held
    gate.open()
    compute = gate.compute
    monkeypatch.setattr(gate, "compute", lambda *_, **__: {}["a secret detail"])
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    details = details_of(caught.value)
    assert details["ErrorInfo"].reason == "INTERNAL"
    assert "secret" not in caught.value.details()
    bug = caught.value.details().split()[2].rstrip(";")
    assert bug in caplog.text
    assert "a secret detail" in caplog.text
    monkeypatch.setattr(gate, "compute", compute)
    assert_serves(stub)


def test_running_out_of_memory_is_reported_and_survived(
    held: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, gate, stub = held
    gate.open()

    def exhausted(*_: Any, **__: Any) -> Any:
        raise MemoryError("no room for 5 GiB")

    compute = gate.compute
    monkeypatch.setattr(gate, "compute", exhausted)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(caught.value)["ErrorInfo"].reason == "DEVICE_MEMORY"
    assert "out of memory: no room for 5 GiB\n" in caplog.text
    assert "Traceback" not in caplog.text
    monkeypatch.setattr(gate, "compute", compute)
    assert_serves(stub)


def test_health_and_reflection_describe_the_service(channel: grpc.Channel) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "pooling.v1.PoolingService"):
        reply = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    request = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="pooling.v1.PoolingService"
    )
    replies = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([request])
    )
    described = next(replies).file_descriptor_response.file_descriptor_proto
    assert any(b"BackwardStream" in file for file in described)


@pytest.mark.parametrize("accepts", [True, False])
def test_compressed_requests_are_rejected_only_if_configured(accepts: bool) -> None:
    server = PoolingServer(
        ServerConfig(
            listen="127.0.0.1:0", backend="numpy", warm_up=False, accept_compression=accepts
        )
    )
    server.start()
    try:
        with grpc.insecure_channel(server.address) as channel:
            stub = pooling_pb2_grpc.PoolingServiceStub(channel)
            call = stub.Forward.future(forward(), compression=grpc.Compression.Gzip)
            expected = grpc.StatusCode.OK if accepts else grpc.StatusCode.UNIMPLEMENTED
            assert call.code() is expected
            assert_serves(stub)
    finally:
        server.stop()
