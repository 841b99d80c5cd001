"""Small unary calls in gRPC's polling thread: which calls, on which thread, and the fallback."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc._cython import cygrpc

import pooling_engine
from pooling_client import PoolingClient, PoolSpec
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import duration, polling_thread
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import Gate, assert_serves, details_of, wait_for_in_flight
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S, wait_until

POOL = "pooling-call"  # prefix of the names of the server's own threads
SMALL = np.ones((1, 1, 8, 8), np.float32)
MAX = PoolSpec("max", 2)


@pytest.fixture
def threads_used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the name of the thread of each computation."""
    compute, names = pooling_engine.run, []

    def recorded(*arguments: Any, **options: Any) -> Any:
        names.append(threading.current_thread().name)
        return compute(*arguments, **options)

    monkeypatch.setattr(pooling_engine, "run", recorded)
    return names


@pytest.fixture
def start() -> Iterator[Callable[..., PoolingServer]]:
    """Return a function that starts a server on the NumPy backend, with some options changed."""
    servers = []

    def started(**options: Any) -> PoolingServer:
        config = {"listen": "127.0.0.1:0", "backend": "numpy"} | options
        servers.append(PoolingServer(ServerConfig(**config)))
        servers[-1].start()
        return servers[-1]

    yield started
    for server in servers:
        assert server.stop()


def is_pooled(names: list[str]) -> list[bool]:
    return [name.startswith(POOL) for name in names]


def test_small_calls_run_in_the_polling_thread(
    start: Callable[..., PoolingServer], threads_used: list[str]
) -> None:
    with PoolingClient(start().address) as client:
        result = client.forward(SMALL, MAX, return_indices=True)
        client.backward(result.output, MAX, input_shape=SMALL.shape, indices=result.indices)
    assert is_pooled(threads_used) == [False, False]
    assert len(set(threads_used)) == 1


def test_large_messages_and_much_work_run_in_threads(
    start: Callable[..., PoolingServer], threads_used: list[str]
) -> None:
    large = np.ones(duration.INLINE_BYTES // 4, np.float32).reshape(1, 1, -1)
    wide = PoolSpec("average", kernel=4000, stride=1, padding=0)
    with PoolingClient(start().address) as client:
        client.forward(large, PoolSpec("max", 2))
        client.forward(np.ones((1, 1, 8000), np.float32), wide)
        client.forward(SMALL, MAX)
    assert is_pooled(threads_used) == [True, True, False]


@pytest.mark.parametrize("options", [{"inline_calls": False}, {"warm_up": False}])
def test_threads_answer_every_call_if_inline_is_off_or_kernels_may_compile(
    start: Callable[..., PoolingServer], threads_used: list[str], options: dict[str, bool]
) -> None:
    with PoolingClient(start(**options).address) as client:
        client.forward(SMALL, MAX)
    assert is_pooled(threads_used) == [True]


def test_the_first_small_call_starts_no_thread(
    start: Callable[..., PoolingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with grpc.insecure_channel(start().address) as channel:
        monkeypatch.setattr(threading.Thread, "start", fail)
        assert_serves(pooling_pb2_grpc.PoolingServiceStub(channel))
        monkeypatch.undo()


def test_invalid_calls_fail_with_details_and_the_next_call_works(
    start: Callable[..., PoolingServer],
) -> None:
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        for request in (forward(spec=None), forward(input=None)):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Forward(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "BadRequest" in details_of(caught.value)
        raw = channel.unary_unary("/pooling.v1.PoolingService/Forward")
        for message in (b"", b"\xff\xff\xff"):
            with pytest.raises(grpc.RpcError) as caught:
                raw(message)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert_serves(stub)
    assert server.executor.in_flight == 0


def test_a_bug_in_the_polling_thread_is_reported_by_an_id(
    start: Callable[..., PoolingServer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with monkeypatch.context() as patch:
            patch.setattr(pooling_engine, "run", lambda *_, **__: {}["a secret detail"])
            with pytest.raises(grpc.RpcError) as caught:
                stub.Forward(forward())
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in caught.value.details()
        assert "a secret detail" in caplog.text
        assert_serves(stub)
    assert server.executor.in_flight == 0


def test_a_client_that_leaves_before_its_message_is_not_counted_any_more(
    start: Callable[..., PoolingServer],
) -> None:
    server = start(max_in_flight=1)
    never = threading.Event()

    def no_message() -> Iterator[bytes]:
        never.wait()
        yield b""

    with grpc.insecure_channel(server.address) as channel:
        raw = channel.stream_unary("/pooling.v1.PoolingService/Forward")
        call = raw.future(no_message())
        wait_for_in_flight(server, 1)
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Forward(forward())
        assert details_of(caught.value)["ErrorInfo"].reason == "OVERLOADED"
        call.cancel()
        never.set()
        wait_for_in_flight(server, 0)
        assert_serves(stub)
    wait_until(lambda: server.executor.unfinished == 0)


def test_a_client_that_sends_no_message_gets_an_error(start: Callable[..., PoolingServer]) -> None:
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        raw = channel.stream_unary("/pooling.v1.PoolingService/Forward")
        with pytest.raises(grpc.RpcError) as caught:
            raw(iter(()), timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    wait_until(lambda: server.executor.unfinished == 0)


def test_a_client_that_leaves_while_its_call_waits_for_a_slot_is_not_computed(
    start: Callable[..., PoolingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call in the pool watches its client, although a call in the polling thread does not."""
    server, gate, slots = start(), Gate(), pooling_engine.thread_count()
    monkeypatch.setattr(duration, "INLINE_US", -1)
    monkeypatch.setattr(pooling_engine, "run", gate)
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        computed = [stub.Forward.future(forward()) for _ in range(slots)]
        for _ in computed:
            gate.wait_entered()
        waiting = stub.Forward.future(forward())
        wait_for_in_flight(server, slots + 1)
        waiting.cancel()
        wait_until(lambda: server.executor.unfinished == slots)
        gate.open()
        for call in computed:
            call.result(LIMIT_S)
        wait_for_in_flight(server, 0)
    assert gate.computed == slots


def test_a_bug_at_the_start_of_a_call_does_not_end_the_polling_thread(
    start: Callable[..., PoolingServer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with monkeypatch.context() as patch:
            patch.setattr(server.executor, "admit", lambda: {}["a secret detail"])
            with pytest.raises(grpc.RpcError) as caught:
                stub.Forward(forward(), timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "a secret detail" in caplog.text
        assert_serves(stub)


def test_another_grpcio_is_noticed_and_threads_answer_instead(
    start: Callable[..., PoolingServer],
    threads_used: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = {"_status": ("rpc_event", "state", "serialized_response", "more")}
    monkeypatch.setattr(polling_thread, "_SIGNATURES", changed)
    polling_thread.unsupported_reason.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "pooling_server"):
            server = start()
        with PoolingClient(server.address) as client:
            client.forward(SMALL, MAX)
    finally:
        polling_thread.unsupported_reason.cache_clear()
    assert is_pooled(threads_used) == [True]
    (record,) = caplog.records
    assert "the parameters of grpc._server._status have changed" in record.getMessage()


def test_the_installed_grpcio_is_supported() -> None:
    assert polling_thread.unsupported_reason() is None


def test_a_call_is_answered_once_if_no_thread_can_be_started(
    start: Callable[..., PoolingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool queues a call before it starts a thread, and so may still run its handler."""
    server = start()
    monkeypatch.setattr(duration, "INLINE_US", -1)
    start_thread = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith(POOL):
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Forward(forward(), timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(caught.value)
        assert details["ErrorInfo"].reason == "OVERLOADED"
        assert "RetryInfo" in details
        assert_serves(stub)
    wait_until(lambda: server.executor.unfinished == 0)
    assert server.executor.in_flight == 0


class NoMemoryForReplies:
    """A call of gRPC that cannot start the operations of a reply."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def start_server_batch(self, operations: Any, tag: Any) -> None:
        if any(isinstance(each, cygrpc.SendMessageOperation) for each in operations):
            raise MemoryError
        self._call.start_server_batch(operations, tag)


@pytest.mark.parametrize("is_inline", [True, False])
def test_a_call_whose_reply_cannot_be_sent_is_not_counted_any_more(
    start: Callable[..., PoolingServer], monkeypatch: pytest.MonkeyPatch, is_inline: bool
) -> None:
    """Its reply is sent after it has left the calls in flight."""
    server = start()
    if not is_inline:
        monkeypatch.setattr(duration, "INLINE_US", -1)
    create = polling_thread.PolledCall.__init__

    def failing(call: Any, event: Any, state: Any) -> None:
        create(call, SimpleNamespace(call=NoMemoryForReplies(event.call)), state)
        call.context = polling_thread._server._Context(event, state, None)

    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with monkeypatch.context() as patch:
            patch.setattr(polling_thread.PolledCall, "__init__", failing)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Forward(forward(), timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(caught.value)["ErrorInfo"].reason == "DEVICE_MEMORY"
        assert_serves(stub)
    wait_until(lambda: server.executor.unfinished == 0)
    assert server.executor.in_flight == 0


def test_large_regions_are_decoded_in_a_thread(
    unix_server: PoolingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Indices in shared memory are copied, which takes longer than a small call."""
    unix_server.calls.never_waits = True
    names = []
    find = unix_server.shared_memory.find

    def recorded(handle: bytes) -> memoryview:
        region = find(handle)
        names.append((len(region), threading.current_thread().name.startswith(POOL)))
        return region

    monkeypatch.setattr(unix_server.shared_memory, "find", recorded)
    with PoolingClient(unix_server.addresses[0]) as client:
        for size in (1024, 4 << 20):
            x = client.empty((1, 1, size), np.uint8)
            x[...] = 1
            client.forward(x, MAX)
    small = [is_thread for size, is_thread in names if size <= duration.INLINE_BYTES]
    large = [is_thread for size, is_thread in names if size > duration.INLINE_BYTES]
    assert not any(small)
    assert large[0] is False  # the look-up that sends the call to a thread
    assert all(large[1:])
    assert len(large) > 1


def test_calls_behind_a_busy_polling_thread_are_rejected_when_the_server_stops(
    start: Callable[..., PoolingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have reached the server, so gRPC must not cancel them."""
    server, gate = start(), Gate()
    monkeypatch.setattr(pooling_engine, "run", gate)
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        first = stub.Forward.future(forward())
        gate.wait_entered()
        behind = [stub.Forward.future(forward()) for _ in range(100)]
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        wait_until(lambda: server.executor.is_draining)
        gate.open()
        stopping.join(LIMIT_S)
        assert list(first.result(LIMIT_S).output.shape) == [1, 1, 2, 2]
        assert {call.code() for call in behind} == {grpc.StatusCode.UNAVAILABLE}
