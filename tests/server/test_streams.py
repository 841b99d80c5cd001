"""Streams over a real socket: order, ids, errors of single items, and the ends of streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import duration, idle, polled_streams
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import Gate, details_of, wait_for_in_flight, wait_for_unfinished
from tests.support.requests import backward, forward, sliding, spec, tensor
from tests.support.waiting import LIMIT_S, wait_until

SHAPE = (2, 16, 64, 96)


class Feed:
    """Requests that a test sends one by one; None ends the iteration."""

    def __init__(self, *items: Any) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        for item in items:
            self.put(item)

    def put(self, item: Any) -> None:
        self._queue.put(item)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)


def item(id_: int, request: pb.ForwardRequest | None = None) -> pb.ForwardStreamRequest:
    return pb.ForwardStreamRequest(id=id_, request=forward() if request is None else request)


def numbered(value: int) -> pb.ForwardStreamRequest:
    x = np.full((1, 1, 4, 4), value, "<f4")
    return item(7 * value, forward(input=tensor(data=x.tobytes())))


def wait_for_end_of_receivers() -> None:
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate()]

    wait_until(lambda: "pooling-stream" not in names(), "a receiving thread is still running")


def test_replies_have_the_order_and_the_ids_of_the_items(stub: Any) -> None:
    replies = list(stub.ForwardStream(numbered(value) for value in range(200)))
    assert [reply.id for reply in replies] == [7 * value for value in range(200)]
    for value, reply in enumerate(replies):
        values = np.frombuffer(reply.response.output.data, "<f4")
        assert values.tolist() == [value] * 4
    wait_for_end_of_receivers()


def test_backward_items(stub: Any) -> None:
    items = [pb.BackwardStreamRequest(id=id_, request=backward()) for id_ in (5, -3, 5)]
    replies = list(stub.BackwardStream(iter(items)))
    assert [reply.id for reply in replies] == [5, -3, 5]
    expected = stub.Backward(backward())
    assert all(reply.response == expected for reply in replies)


def test_an_empty_stream_has_no_replies(stub: Any) -> None:
    assert list(stub.ForwardStream(iter([]))) == []


INVALID = {
    "spec": (forward(spec=spec(windows=sliding(stride=-1))), 3, "INVALID_SPEC"),
    "length": (forward(input=tensor(data=b"abc")), 3, "INVALID_TENSOR"),
    "missing": (pb.ForwardRequest(), 3, "INVALID_TENSOR"),
    "over the limit": (forward(input=tensor((1, 9, 1024, 1024))), 8, "TENSOR_TOO_LARGE"),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_rejected_item_is_reported_in_its_reply(stub: Any, case: str) -> None:
    request, code, reason = INVALID[case]
    replies = list(stub.ForwardStream(iter([item(1), item(2, request), item(3)])))
    assert [reply.id for reply in replies] == [1, 2, 3]
    assert [reply.WhichOneof("result") for reply in replies] == ["response", "error", "response"]
    error = replies[1].error
    assert (error.code, error.reason) == (code, reason)
    with pytest.raises(grpc.RpcError) as unary:
        stub.Forward(request)
    info = details_of(unary.value)["ErrorInfo"]
    if case == "over the limit":  # the item is a few bytes longer
        assert error.message.endswith("this server's limit is 33554432 (--max-message-bytes)")
    else:
        assert error.message == unary.value.details()
    assert dict(error.metadata) == dict(info.metadata)


def test_invalid_indices_and_items_that_do_not_parse(channel: grpc.Channel) -> None:
    invalid = backward(indices=tensor((1, 1, 2, 2), "uint8", data=bytes([0, 1, 2, 99])))
    items = [
        pb.BackwardStreamRequest(id=1, request=invalid).SerializeToString(),
        b"\xff\xff\xff",
        pb.BackwardStreamRequest(id=3, request=backward()).SerializeToString(),
        pb.BackwardStreamRequest(id=4).SerializeToString(),
    ]
    call = channel.stream_stream("/pooling.v1.PoolingService/BackwardStream")
    replies = [pb.BackwardStreamResponse.FromString(reply) for reply in call(iter(items))]
    assert [reply.id for reply in replies] == [1, 0, 3, 4]
    assert "99" in replies[0].error.message
    assert replies[0].error.field == "indices"
    assert "cannot be parsed" in replies[1].error.message
    assert replies[2].HasField("response")
    assert replies[3].error.field == "request"


def test_a_bug_in_one_item_does_not_end_the_stream(
    stub: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compute, calls = pooling_engine.run, []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("a secret detail")
        return compute(*arguments, **options)

    monkeypatch.setattr(pooling_engine, "run", broken)
    replies = list(stub.ForwardStream(iter([item(1), item(2), item(3)])))
    assert [reply.HasField("response") for reply in replies] == [True, False, True]
    assert replies[1].error.reason == "INTERNAL"
    assert "secret" not in replies[1].error.message
    assert replies[1].error.message.split()[2].rstrip(";") in caplog.text


@pytest.fixture(params=[True, False], ids=["polling thread", "threads"])
def is_inline(request: pytest.FixtureRequest) -> bool:
    """Receive items in the polling thread, or in a thread of each stream."""
    return bool(request.param)


@pytest.fixture
def held(
    monkeypatch: pytest.MonkeyPatch, is_inline: bool
) -> Iterator[tuple[PoolingServer, Gate, Any]]:
    """Start a server with one slot and a limit of two calls in flight, behind a closed gate.

    The gate would block the polling thread, so every item counts as large.
    """
    gate = Gate()
    monkeypatch.setattr(pooling_engine, "run", gate)
    monkeypatch.setattr(duration, "INLINE_US", -1)
    config = ServerConfig(
        listen="127.0.0.1:0",
        backend="numpy",
        threads=1,
        max_in_flight=2,
        inline_calls=is_inline,
    )
    server = PoolingServer(config)
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        yield server, gate, pooling_pb2_grpc.PoolingServiceStub(channel)
    gate.open()
    assert server.stop()
    wait_for_end_of_receivers()


def test_a_stream_with_an_unanswered_item_is_one_call_in_flight(held: Any) -> None:
    server, gate, stub = held
    feeds = [Feed(item(1)), Feed(item(2))]
    streams = [stub.ForwardStream(iter(feed)) for feed in feeds]
    wait_until(lambda: busy_calls(server) == 2, "the items have not arrived")
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.ForwardStream(iter([item(3)])))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(caught.value)["ErrorInfo"].reason == "OVERLOADED"
    gate.open()
    assert [next(stream).id for stream in streams] == [1, 2]
    for feed in feeds:
        feed.put(None)
    assert [list(stream) for stream in streams] == [[], []]
    wait_for_in_flight(server, 0)
    assert [reply.id for reply in stub.ForwardStream(iter([item(3)]))] == [3]


def busy_calls(server: PoolingServer) -> int:
    return server.executor.in_flight - server.executor.resting


@pytest.mark.parametrize("is_inline", [True])  # otherwise it holds a thread, and counts
def test_an_idle_stream_does_not_count_and_its_next_item_may_be_rejected(
    held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polled_streams, "REST_S", 0)
    server, gate, stub = held
    gate.open()
    idle = Feed(item(1))
    replies = stub.ForwardStream(iter(idle))
    assert next(replies).id == 1
    wait_until(lambda: server.executor.resting == 1, "the stream is not idle")
    gate.close()
    busy = [stub.ForwardStream(iter([item(id_)])) for id_ in (2, 3)]
    wait_until(lambda: busy_calls(server) == 2, "the items have not arrived")
    idle.put(item(4))
    rejected = next(replies)
    assert (rejected.id, rejected.error.reason) == (4, "OVERLOADED")
    assert rejected.error.metadata["limit"] == "max_in_flight"
    gate.open()
    assert [[reply.id for reply in stream] for stream in busy] == [[2], [3]]
    wait_until(lambda: busy_calls(server) == 0, "the streams have not ended")
    idle.put(item(5))
    assert next(replies).WhichOneof("result") == "response"
    idle.put(None)
    assert list(replies) == []
    wait_for_in_flight(server, 0)
    assert server.executor.resting == 0


def test_expired_items_are_not_computed(held: Any) -> None:
    _, gate, stub = held
    gate.open()
    items = [item(1), item(2), item(3)]
    items[0].timeout_us, items[1].timeout_us = 1, 600_000_000
    first, *others = stub.ForwardStream(iter(items))
    assert (first.id, first.error.reason, first.error.code) == (1, "DEADLINE", 4)
    assert [(reply.id, reply.WhichOneof("result")) for reply in others] == [
        (2, "response"),
        (3, "response"),
    ]


def test_items_of_an_expired_stream_are_never_computed(held: Any) -> None:
    server, gate, stub = held
    for timeout_s in (0.4, 4, 40):  # on a busy machine, the first item may arrive late
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ForwardStream(iter([item(1), item(2), item(3)]), timeout=timeout_s))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if gate.was_entered():
            break
    wait_for_unfinished(server, 0)
    gate.open()
    wait_for_in_flight(server, 0)
    assert gate.computed == 1


def test_a_cancelled_stream_computes_no_further_items(held: Any) -> None:
    server, gate, stub = held
    stream = stub.ForwardStream(iter([item(1), item(2), item(3), item(4)]))
    gate.wait_entered()
    stream.cancel()
    wait_for_unfinished(server, 0)
    gate.open()
    wait_for_in_flight(server, 0)
    wait_for_end_of_receivers()
    assert gate.computed == 1
    assert [reply.id for reply in stub.ForwardStream(iter([item(9)]))] == [9]


def test_draining_answers_received_items_and_ends_streams(held: Any) -> None:
    server, gate, stub = held
    busy, idle = Feed(item(1)), Feed()
    streams = [stub.ForwardStream(iter(busy)), stub.ForwardStream(iter(idle))]
    gate.wait_entered()
    wait_for_in_flight(server, 2)
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(server.stop()))
    stopping.start()
    wait_for_in_flight(server, 1)
    gate.open()
    assert next(streams[0]).id == 1
    for stream, feed in zip(streams, (busy, idle), strict=True):
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(caught.value)["ErrorInfo"].reason == "UNAVAILABLE"
        feed.put(None)
    stopping.join(LIMIT_S)
    assert stopped == [True]


FLOOD = """
import sys, grpc, numpy as np
from pooling_engine import ForwardCall, PoolSpec
from pooling_wire import FORWARD
item = FORWARD.encode_item(1, ForwardCall(np.ones((2, 16, 64, 96), np.float32), PoolSpec("max", 2)))
stream = grpc.insecure_channel(sys.argv[1]).stream_stream(FORWARD.stream_path)
for number, reply in enumerate(stream(iter(lambda: item, None))):
    if number == 5:
        print("flowing", flush=True)
"""


def test_a_killed_client_leaves_no_call_and_no_thread(is_inline: bool) -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", threads=1, inline_calls=is_inline))
    server.start()
    client = subprocess.Popen(
        [sys.executable, "-c", FLOOD, server.address],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "flowing\n"
    client.send_signal(signal.SIGKILL)
    client.communicate(timeout=LIMIT_S)
    wait_for_in_flight(server, 0)
    wait_for_end_of_receivers()
    result_bytes = 2 * 16 * 32 * 48 * 4
    assert 0 < server.calls.arena.idle_bytes <= 2 * result_bytes
    assert server.stop()


def test_results_of_large_items_use_the_arena(is_inline: bool) -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", threads=1, inline_calls=is_inline))
    server.start()
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    request = forward(
        spec=spec(pb.MODE_SUM, sliding(kernel=2)), input=tensor(SHAPE, data=x.tobytes())
    )
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        replies = list(stub.ForwardStream(item(id_, request) for id_ in range(6)))
    expected = pooling_engine.forward(x, PoolSpec("sum", (2, 2))).output
    assert all(reply.response.output.data == expected.tobytes() for reply in replies)
    assert server.calls.arena.idle_bytes <= 2 * expected.nbytes
    assert server.stop()


IDLE_S = 0.3


@pytest.fixture
def impatient(is_inline: bool) -> Iterator[tuple[PoolingServer, Any]]:
    """Start a server with an idle timeout of `IDLE_S`."""
    config = ServerConfig(
        listen="127.0.0.1:0", backend="numpy", stream_idle_s=IDLE_S, inline_calls=is_inline
    )
    server = PoolingServer(config)
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        yield server, pooling_pb2_grpc.PoolingServiceStub(channel)
    assert server.stop()
    wait_for_end_of_receivers()


def test_a_stream_ends_if_its_client_sends_nothing(impatient: Any) -> None:
    server, stub = impatient
    for feed in (Feed(), Feed(numbered(1), numbered(2))):
        stream = stub.ForwardStream(iter(feed))
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "for 0.3 s" in caught.value.details()
        info = details_of(caught.value)["ErrorInfo"]
        assert info.reason == "UNAVAILABLE"
        assert dict(info.metadata) == {
            "limit": "stream_idle_s", "value": "0.3", "option": "--stream-idle-s"
        }  # fmt: skip
        wait_for_in_flight(server, 0)
        feed.put(None)


@pytest.mark.parametrize(("width", "count"), [(512, 20), (32, 320)], ids=["2 MiB", "128 KiB"])
def test_a_stream_ends_if_its_client_reads_nothing(impatient: Any, width: int, count: int) -> None:
    server, stub = impatient
    x = np.zeros((1, 1, 1024, width), np.float32)
    same = spec(windows=sliding(kernel=1))
    request = item(1, forward(spec=same, input=tensor(x.shape, data=x.tobytes())))
    feed = Feed()
    stream = stub.ForwardStream(iter(feed))
    wait_for_in_flight(server, 1)
    for each in [request] * count:  # more than the network buffers hold
        feed.put(each)
    wait_for_in_flight(server, 0)
    feed.put(None)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


class Clock:
    """Replacement of `time` in the watch of idle streams, which checks when it advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, watch: idle.IdleWatch) -> None:
        self._now, self._watch = 0.0, watch
        monkeypatch.setattr(idle, "time", self)

    def monotonic(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._watch.check()


def test_a_stream_is_not_idle_while_it_computes_or_receives_items(
    impatient: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, stub = impatient
    clock = Clock(monkeypatch, server._servicer._watch)
    feed, compute = Feed(), pooling_engine.run

    def slow(*arguments: Any, **options: Any) -> Any:
        clock.advance(2 * IDLE_S)
        computed.append(1)
        return compute(*arguments, **options)

    computed: list[int] = []
    stream = stub.ForwardStream(iter(feed))
    for value in range(8):
        feed.put(numbered(value))
        assert next(stream).id == 7 * value
        clock.advance(0.8 * IDLE_S)
    monkeypatch.setattr(pooling_engine, "run", slow)
    for id_ in (1, 2):
        feed.put(item(id_))
        assert next(stream).id == id_
    assert computed == [1, 1]
    clock.advance(1.2 * IDLE_S)
    with pytest.raises(grpc.RpcError):
        next(stream)
    feed.put(None)


def test_0_disables_the_idle_timeout(is_inline: bool) -> None:
    config = ServerConfig(
        listen="127.0.0.1:0", backend="numpy", stream_idle_s=0, inline_calls=is_inline
    )
    before = {*threading.enumerate()}
    server = PoolingServer(config)
    server.start()
    feed = Feed(item(1))
    with grpc.insecure_channel(server.address) as channel:
        stream = pooling_pb2_grpc.PoolingServiceStub(channel).ForwardStream(iter(feed))
        assert next(stream).id == 1
        started = {*threading.enumerate()} - before
        assert "pooling-idle-watch" not in {thread.name for thread in started}
        feed.put(item(2))
        assert next(stream).id == 2
        feed.put(None)
        assert list(stream) == []
    assert server.stop()
