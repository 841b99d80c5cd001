"""Stream items in gRPC's polling thread: which items, their order, and streams without threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_engine import UnavailableError
from pooling_engine.errors import LOST_DEVICE
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import duration, polling_thread
from pooling_server.serving.streams import ITEMS_AHEAD
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import Gate, assert_serves, details_of, wait_for_in_flight
from tests.server.test_streams import Feed, numbered
from tests.support.requests import forward, sliding, spec, tensor
from tests.support.waiting import LIMIT_S, wait_until

POOL = "pooling-call"  # prefix of the names of the server's own threads
MANY = 40


@pytest.fixture
def server() -> Iterator[PoolingServer]:
    config = ServerConfig(listen="127.0.0.1:0", backend="numpy", max_in_flight=2 * MANY)
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"
    assert server.executor.unfinished == 0


@pytest.fixture
def stub(server: PoolingServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield pooling_pb2_grpc.PoolingServiceStub(channel)


def large(id_: int) -> pb.ForwardStreamRequest:
    """Return an item of 1 MiB, which a thread answers."""
    x = np.full((1, 1, 512, 512), id_, "<f4")
    same = spec(windows=sliding(kernel=1))
    return pb.ForwardStreamRequest(
        id=id_, request=forward(spec=same, input=tensor(x.shape, data=x.tobytes()))
    )


def small(id_: int) -> pb.ForwardStreamRequest:
    return pb.ForwardStreamRequest(id=id_, request=forward())


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Hold large items at a gate; compute small ones."""
    gate, compute = Gate(), pooling_engine.run

    def run(call: Any, *arguments: Any, **options: Any) -> Any:
        is_large = call.input.nbytes > duration.INLINE_BYTES
        return (gate if is_large else compute)(call, *arguments, **options)

    monkeypatch.setattr(pooling_engine, "run", run)
    return gate


def test_small_items_run_in_the_polling_thread_and_large_ones_in_threads(
    stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, names = pooling_engine.run, []

    def recorded(*arguments: Any, **options: Any) -> Any:
        names.append(threading.current_thread().name)
        return compute(*arguments, **options)

    monkeypatch.setattr(pooling_engine, "run", recorded)
    feed = Feed()
    stream = stub.ForwardStream(iter(feed))
    for number, item in enumerate((small, large, small, large, small)):
        feed.put(item(number))
        assert next(stream).id == number
    feed.put(None)
    assert list(stream) == []
    assert [name.startswith(POOL) for name in names] == [False, True, False, True, False]
    assert len(set(names[::2])) == 1


def test_replies_of_small_and_large_items_keep_their_order(stub: Any) -> None:
    items = [large(id_) if id_ % 5 == 0 else numbered(id_) for id_ in range(1, 100)]
    replies = list(stub.ForwardStream(iter(items)))
    assert [reply.id for reply in replies] == [item.id for item in items]
    assert all(reply.HasField("response") for reply in replies)
    for item, reply in zip(items, replies, strict=True):
        values = np.frombuffer(item.request.input.data, "<f4")
        assert set(np.frombuffer(reply.response.output.data, "<f4")) == {values.max()}


def test_streams_in_parallel_do_not_mix(stub: Any) -> None:
    def ids(stream: int) -> list[int]:
        numbers = range(1000 * stream, 1000 * stream + 200)
        return [reply.id - number for reply, number in zip(
            stub.ForwardStream(iter([small(number) for number in numbers])), numbers, strict=True
        )]  # fmt: skip

    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ids, range(1, 9))) == [[0] * 200] * 8


def test_idle_streams_hold_no_thread(server: PoolingServer, stub: Any) -> None:
    before = {*threading.enumerate()}
    feeds = [Feed(small(1)) for _ in range(MANY)]
    streams = [stub.ForwardStream(iter(feed)) for feed in feeds]
    assert [next(stream).id for stream in streams] == [1] * MANY
    assert server.executor.in_flight == MANY
    names = [thread.name for thread in {*threading.enumerate()} - before]
    assert not [name for name in names if name.startswith("pooling")]
    for feed in feeds:
        feed.put(None)
    assert [list(stream) for stream in streams] == [[]] * MANY
    wait_for_in_flight(server, 0)


def test_a_large_item_holds_back_its_own_stream_only(
    server: PoolingServer, stub: Any, held: Gate
) -> None:
    slow, quick = Feed(large(1), small(2)), Feed()
    streams = [stub.ForwardStream(iter(feed)) for feed in (slow, quick)]
    held.wait_entered()
    for id_ in range(10):
        quick.put(small(id_))
        assert next(streams[1]).id == id_
    assert_serves(stub)
    held.open()
    assert [next(streams[0]).id, next(streams[0]).id] == [1, 2]
    for feed in (slow, quick):
        feed.put(None)


def test_a_few_items_are_received_ahead(
    server: PoolingServer, stub: Any, held: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, received = polling_thread.PolledCall.receive, []

    def counted(call: Any, on_message: Any) -> None:
        received.append(1)
        receive(call, on_message)

    monkeypatch.setattr(polling_thread.PolledCall, "receive", counted)
    stream = stub.ForwardStream(iter([large(1), *(small(id_) for id_ in range(2, 12))]))
    held.wait_entered()
    wait_until(lambda: len(received) == 1 + ITEMS_AHEAD)
    count = 5
    for _ in range(count):
        assert_serves(stub)  # each receives one message
    assert len(received) == 1 + ITEMS_AHEAD + count
    held.open()
    assert [reply.id for reply in stream] == list(range(1, 12))


def test_an_expired_item_is_not_computed(
    server: PoolingServer, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    monkeypatch.setattr(pooling_engine, "run", lambda *_, **__: computed.append(1))
    context = polling_thread._server._Context
    monkeypatch.setattr(context, "time_remaining", lambda _: 0)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ForwardStream(iter([small(1)])))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert details_of(caught.value)["ErrorInfo"].reason == "DEADLINE"
    assert computed == []


def test_a_cancelled_idle_stream_is_not_counted_any_more(server: PoolingServer, stub: Any) -> None:
    feed = Feed(small(1))
    stream = stub.ForwardStream(iter(feed))
    assert next(stream).id == 1
    stream.cancel()
    wait_for_in_flight(server, 0)
    wait_until(lambda: server.executor.unfinished == 0)
    feed.put(None)


@pytest.mark.parametrize("item", [small, large])
def test_a_stream_ends_if_the_device_is_lost(
    server: PoolingServer,
    stub: Any,
    monkeypatch: pytest.MonkeyPatch,
    item: Callable[[int], pb.ForwardStreamRequest],
) -> None:
    lost = threading.Event()
    server.on_device_lost = lost.set

    def run(*_: Any, **__: Any) -> None:
        raise UnavailableError("lost", facts={"cause": LOST_DEVICE})

    with monkeypatch.context() as patch:
        patch.setattr(pooling_engine, "run", run)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ForwardStream(iter([item(1), item(2)])))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert lost.wait(LIMIT_S)


def test_a_stream_ends_if_no_thread_can_be_started(
    server: PoolingServer, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_thread = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith(POOL):
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        stream = stub.ForwardStream(iter([small(1), large(2), small(3)]), timeout=LIMIT_S)
        assert next(stream).id == 1
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(caught.value)["ErrorInfo"].reason == "OVERLOADED"
    wait_for_in_flight(server, 0)
    assert [reply.id for reply in stub.ForwardStream(iter([large(4)]))] == [4]


def test_a_bug_in_a_callback_ends_the_call_and_not_the_polling_thread(
    server: PoolingServer, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    feed = Feed()
    with monkeypatch.context() as patch:
        patch.setattr("pooling_server.serving.polled_streams.PolledStream._sent", broken)
        stream = stub.ForwardStream(iter(feed), timeout=LIMIT_S)
        feed.put(small(1))
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
    feed.put(None)
    assert_serves(stub)
    wait_for_in_flight(server, 0)
