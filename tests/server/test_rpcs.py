"""RPCs: ids, times, trailers, uploads that never arrive, replies that are never read, bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pooling_engine import OverloadedError, TensorTooLargeError
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving.byte_budget import ByteBudget
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import details_of, wait_for_in_flight, wait_for_unfinished
from tests.server.test_slow_clients import Silent, large
from tests.support.proxy import Proxy
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S

MOST, IDLE_S = 3, 1.0


@pytest.fixture(params=[True, False], ids=["inline", "threads"])
def server(request: pytest.FixtureRequest) -> Iterator[PoolingServer]:
    config = ServerConfig(
        listen="127.0.0.1:0",
        backend="numpy",
        max_in_flight=MOST,
        stream_idle_s=IDLE_S,
        inline_calls=request.param,
    )
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop()
    assert server.numbers().in_flight_bytes == 0


@pytest.fixture
def stub(server: PoolingServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield pooling_pb2_grpc.PoolingServiceStub(channel)


TIMING = re.compile(r"queue;dur=(\d+\.\d+), compute;dur=(\d+\.\d+), total;dur=(\d+\.\d+)")


def assert_trailers(call: Any, request_id: str = "") -> tuple[float, ...]:
    """Assert the trailers of an RPC; return queue, compute and total in milliseconds."""
    trailers = dict(call.trailing_metadata())
    assert not request_id or trailers["x-request-id"] == request_id
    assert trailers["x-request-id"]
    found = TIMING.fullmatch(trailers["server-timing"])
    assert found, trailers
    return tuple(map(float, found.groups()))


def test_every_reply_has_times_and_the_id_of_the_client(stub: Any) -> None:
    metadata = (("x-request-id", "abc-1"),)
    _, call = stub.Forward.with_call(forward(), metadata=metadata)
    queue_ms, compute_ms, total_ms = assert_trailers(call, "abc-1")
    assert compute_ms > 0
    assert queue_ms + compute_ms <= total_ms + 0.01
    _, call = stub.GetServerInfo.with_call(pb.GetServerInfoRequest(), metadata=metadata)
    assert_trailers(call, "abc-1")
    items = [pb.ForwardStreamRequest(id=1, request=forward())] * 2
    stream = stub.ForwardStream(iter(items), metadata=metadata)
    assert len(list(stream)) == 2
    assert assert_trailers(stream, "abc-1")[1] > 0


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129])
def test_an_id_is_made_if_the_client_sends_none_that_is_legal(stub: Any, request_id: str) -> None:
    metadata = (("x-request-id", request_id),) if request_id else ()
    calls = [stub.Forward.with_call(forward(), metadata=metadata)[1] for _ in range(2)]
    ids = [dict(call.trailing_metadata())["x-request-id"] for call in calls]
    assert len({*ids, request_id}) == 3


def test_errors_have_the_trailers_too(stub: Any) -> None:
    invalid = forward()
    invalid.input.shape[0] = 7
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(invalid, metadata=(("x-request-id", "abc-2"),))
    assert_trailers(caught.value, "abc-2")
    assert details_of(caught.value)["ErrorInfo"].reason == "INVALID_TENSOR"


@pytest.mark.parametrize("method", ["Forward", "Backward", "GetPlan"])
def test_an_upload_that_never_arrives_loses_its_slot(
    server: PoolingServer, stub: Any, method: str
) -> None:
    with Silent(server.address, f"/pooling.v1.PoolingService/{method}") as calls:
        codes = {call.code() for call in calls}  # waits for the end of each
        admitted = [call for call in calls if call.code() is grpc.StatusCode.UNAVAILABLE]
        assert codes == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(admitted) >= MOST
        for call in admitted:
            assert "--stream-idle-s" in call.details()
            assert details_of(call)["ErrorInfo"].metadata["option"] == "--stream-idle-s"
        wait_for_unfinished(server, 0)
        stub.Forward(forward())


def test_a_reply_that_is_never_read_loses_its_slot(server: PoolingServer, stub: Any) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    with Proxy(server.address) as proxy, grpc.insecure_channel(proxy.address, options) as channel:
        slow = pooling_pb2_grpc.PoolingServiceStub(channel)
        slow.Forward(forward())
        proxy.hold_replies()
        replies = [slow.Backward.future(large()) for _ in range(MOST)]
        wait_for_unfinished(server, MOST)
        wait_for_in_flight(server, 0)
        wait_for_unfinished(server, 0)
        stub.Forward(forward(), timeout=LIMIT_S)
        proxy.let_replies_go()
        for reply in replies:
            assert isinstance(reply.exception(LIMIT_S), grpc.RpcError)


def test_an_overloaded_server_says_when_grpc_may_retry(server: PoolingServer, stub: Any) -> None:
    with Silent(server.address, "/pooling.v1.PoolingService/Forward") as calls:
        rejected = next(call for call in calls if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert dict(rejected.trailing_metadata())["grpc-retry-pushback-ms"] == "100"


def test_a_call_that_is_too_large_says_that_no_retry_helps() -> None:
    config = ServerConfig(listen="127.0.0.1:0", backend="numpy", max_tensor_bytes=1024)
    server = PoolingServer(config)
    server.start()
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        pooling_pb2_grpc.PoolingServiceStub(channel).Backward(large())
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"
    assert server.stop()


def test_a_call_beyond_the_byte_budget_is_rejected() -> None:
    config = ServerConfig(listen="127.0.0.1:0", backend="numpy", max_in_flight_bytes=1 << 20)
    server = PoolingServer(config)
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Backward(large())
        item = pb.BackwardStreamRequest(id=1, request=large())
        (reply,) = stub.BackwardStream(iter([item]))
        assert stub.Forward(forward()).output.data
    for details in (details_of(caught.value)["ErrorInfo"].metadata, reply.error.metadata):
        assert details["option"] == "--max-in-flight-bytes"
    assert server.stop()
    assert server.numbers().in_flight_bytes == 0


def test_the_budget_leaves_room_for_further_connections() -> None:
    budget = ByteBudget(120)
    for peer, share in (("a", 60), ("b", 30), ("c", 15)):
        for _ in range(share // 5):
            budget.reserve(peer, 5)
        with pytest.raises(OverloadedError, match="--max-in-flight-bytes"):
            budget.reserve(peer, 5)
    assert budget.used_bytes == 105
    for _ in range(12):
        budget.release("a", 5)
    budget.reserve("d", 75)
    with pytest.raises(TensorTooLargeError, match="121 bytes"):
        budget.reserve("e", 121)
    for peer, nbytes in (("b", 30), ("c", 15), ("d", 75)):
        budget.release(peer, nbytes)
    assert budget.used_bytes == 0
