"""Small calls that share a stream, over real connections: order, loss, deadlines, fallbacks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
import pooling_wire
from pooling_client import AsyncPoolingClient, PoolingClient, PoolSpec
from pooling_client._transports import aio_shared, polled_stream, shared_calls, sync_shared
from pooling_engine import DeadlineError, InvalidTensorError, UnavailableError
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import duration
from pooling_wire import FORWARD
from tests.server.support import Gate, wait_for_in_flight
from tests.support.waiting import LIMIT_S, wait_until

SPEC = PoolSpec("max", 3, 2, padding=1)
CALLERS, CALLS = 16, 60


def tensor(seed: int) -> Any:
    shape = (1, 1 + seed % 5, 14, 14)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def expected(x: Any) -> Any:
    return pooling_engine.forward(x, SPEC).output


def serve(**options: Any) -> PoolingServer:
    server = PoolingServer(ServerConfig(**{"listen": "127.0.0.1:0", "backend": "numpy"} | options))
    server.start()
    return server


@pytest.fixture
def server() -> Iterator[PoolingServer]:
    server = serve()
    yield server
    assert server.stop(), "calls were left in flight"


def in_threads(target: str, seeds: list[list[int]], on_call: Callable[[], None]) -> None:
    """Pool the tensors of each list in a thread of one blocking client."""
    with PoolingClient(target, timeout=LIMIT_S) as client, ThreadPoolExecutor(len(seeds)) as pool:

        def call_all(own: list[int]) -> None:
            for seed in own:
                x = tensor(seed)
                np.testing.assert_array_equal(client.forward(x, SPEC).output, expected(x))
                on_call()

        list(pool.map(call_all, seeds))


def in_tasks(target: str, seeds: list[list[int]], on_call: Callable[[], None]) -> None:
    """Pool the tensors of each list in a task of one asyncio client."""

    async def main() -> None:
        async with AsyncPoolingClient(target, timeout=LIMIT_S) as client:

            async def call_all(own: list[int]) -> None:
                for seed in own:
                    x = tensor(seed)
                    result = await client.forward(x, SPEC)
                    np.testing.assert_array_equal(result.output, expected(x))
                    on_call()

            await asyncio.gather(*map(call_all, seeds))

    asyncio.run(main())


both_clients = pytest.mark.parametrize("callers", [in_threads, in_tasks])
SEEDS = [list(range(1000 * caller, 1000 * caller + CALLS)) for caller in range(CALLERS)]


@both_clients
def test_each_caller_gets_its_own_results(server: PoolingServer, callers: Any) -> None:
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, server.executor.in_flight)

    callers(server.address, SEEDS, count)
    assert 1 <= most < CALLERS, "the calls did not share a stream"


@both_clients
def test_a_drained_server_loses_no_call(callers: Any) -> None:
    servers = [serve(listen="127.0.0.1:0")]
    address = servers[0].address
    calls = iter(range(CALLERS * CALLS))
    restarting = threading.Thread(target=lambda: restart(servers, address))

    def count() -> None:
        if next(calls) == 100:
            restarting.start()

    callers(address, SEEDS, count)
    restarting.join()
    assert servers[1].stop()


def restart(servers: list[PoolingServer], address: str) -> None:
    assert servers[0].stop()
    servers.append(serve(listen=address))


SERVE = """
import sys
from pooling_server import PoolingServer, ServerConfig
server = PoolingServer(ServerConfig(listen=sys.argv[1], backend="numpy"))
server.start()
print(server.address, flush=True)
sys.stdin.read()
"""


def serve_in_process(address: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", SERVE, address]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


@both_clients
def test_a_killed_server_loses_no_call(callers: Any) -> None:
    process, address = serve_in_process("127.0.0.1:0")
    processes = [process]
    calls = iter(range(CALLERS * CALLS))

    def kill() -> None:
        process.kill()
        process.wait()
        processes.append(serve_in_process(address)[0])

    killing = threading.Thread(target=kill)

    def count() -> None:
        if next(calls) == 100:
            killing.start()

    try:
        callers(address, SEEDS, count)
        killing.join()
    finally:
        for each in processes:
            each.kill()
            each.communicate()


@both_clients
def test_a_stream_that_the_server_ended_is_replaced(callers: Any) -> None:
    server = serve(stream_idle_s=0.05)
    calls = iter(range(1, 100))

    def wait_for_end() -> None:
        if next(calls) % 4 == 0:
            wait_for_in_flight(server, 0)

    callers(server.address, [list(range(12))], wait_for_end)
    assert server.stop()


def test_an_idle_stream_is_closed(server: PoolingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_shared, "IDLE_S", 0.5)  # the calls must be more frequent
    with PoolingClient(server.address) as client:
        for seed in range(3):
            client.forward(tensor(seed), SPEC)
        wait_until(lambda: server.executor.resting == 1, "no stream is open")
        wait_for_in_flight(server, 0)


def test_an_idle_stream_of_tasks_is_closed(
    server: PoolingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio_shared, "IDLE_S", 0.5)

    async def main() -> None:
        async with AsyncPoolingClient(server.address) as client:
            for seed in range(3):
                await client.forward(tensor(seed), SPEC)
            wait_until(lambda: server.executor.resting == 1, "no stream is open")
            await asyncio.to_thread(wait_for_in_flight, server, 0)

    asyncio.run(main())


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PoolingServer, Gate]]:
    """A server with one slot behind an open gate."""
    gate = Gate()
    monkeypatch.setattr(pooling_engine, "run", gate)
    monkeypatch.setattr(duration, "INLINE_US", -1)
    gate.open()
    server = serve(threads=1)
    yield server, gate
    gate.open()
    assert server.stop()


def test_a_call_that_times_out_disturbs_no_other(gated: Any) -> None:
    server, gate = gated
    x, y = tensor(1), tensor(2)
    wanted = expected(y)
    with PoolingClient(server.address, timeout=LIMIT_S) as client, ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            client.forward(x, SPEC)
        gate.close()
        late = [pool.submit(client.forward, x, SPEC, timeout=0.05) for _ in range(2)]
        patient = [pool.submit(client.forward, y, SPEC) for _ in range(2)]
        for each in late:
            with pytest.raises(DeadlineError):
                each.result(LIMIT_S)
        gate.open()
        for each in patient:
            np.testing.assert_array_equal(each.result(LIMIT_S).output, wanted)


def test_a_cancelled_task_disturbs_no_other(gated: Any) -> None:
    server, gate = gated
    x, y = tensor(1), tensor(2)
    wanted = expected(y)

    async def main() -> None:
        async with AsyncPoolingClient(server.address, timeout=LIMIT_S) as client:
            for _ in range(4):
                await client.forward(x, SPEC)
            gate.close()
            cancelled = [asyncio.create_task(client.forward(x, SPEC)) for _ in range(2)]
            late = asyncio.create_task(client.forward(x, SPEC, timeout=0.05))
            patient = [asyncio.create_task(client.forward(y, SPEC)) for _ in range(2)]
            with pytest.raises(DeadlineError):
                await late
            for each in cancelled:
                each.cancel()
            for each in cancelled:
                with pytest.raises(asyncio.CancelledError):
                    await each
            gate.open()
            for each in patient:
                np.testing.assert_array_equal((await each).output, wanted)

    asyncio.run(main())


def test_an_interrupt_disturbs_no_later_call(
    server: PoolingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come after gRPC has delivered an event, and before anybody has seen it."""
    x, is_armed = tensor(1), threading.Event()
    next_event = polled_stream.PolledStream.next_event

    def interrupted(stream: polled_stream.PolledStream) -> Any:
        event = next_event(stream)
        if is_armed.is_set() and event[0] == polled_stream.REPLY:
            is_armed.clear()
            raise KeyboardInterrupt
        return event

    monkeypatch.setattr(polled_stream.PolledStream, "next_event", interrupted)
    with PoolingClient(server.address, timeout=LIMIT_S / 4) as client:
        for _ in range(2):
            for _ in range(3):
                np.testing.assert_array_equal(client.forward(x, SPEC).output, expected(x))
            is_armed.set()
            with pytest.raises(KeyboardInterrupt):
                client.forward(x, SPEC)
        np.testing.assert_array_equal(client.forward(x, SPEC).output, expected(x))


def test_errors_are_those_of_unary_calls(server: PoolingServer) -> None:
    x = np.full((1, 1, 4, 4), np.nan, np.float32)
    spec = PoolSpec("max", 2, nan_policy="error")
    errors = []
    for is_shared in (False, True):
        with PoolingClient(server.address, shared_streams=is_shared) as client:
            for _ in range(3):
                with pytest.raises(InvalidTensorError) as caught:
                    client.forward(x, spec)
            errors.append((str(caught.value), caught.value.field, caught.value.facts))
    assert errors[0] == errors[1]


def test_closing_the_client_ends_its_calls(gated: Any) -> None:
    server, gate = gated
    x = tensor(1)
    client = PoolingClient(server.address, timeout=LIMIT_S)
    for _ in range(4):
        client.forward(x, SPEC)
    gate.close()
    while gate.was_entered():
        pass
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(client.forward, x, SPEC) for _ in range(2)]
        gate.wait_entered()
        client.close()
        for call in calls:
            with pytest.raises((UnavailableError, ValueError)):
                call.result(LIMIT_S)
    with pytest.raises(ValueError, match="closed"):
        client.forward(x, SPEC)


class OtherServer:
    """Server or proxy that answers unary calls only.

    Attributes:
        unary: number of unary calls.
        streams: number of streams.
    """

    def __init__(self, stream: Callable[..., Any] | None) -> None:
        self.unary = self.streams = 0
        self._stream = stream
        handlers: dict[str, Any] = {"Forward": grpc.unary_unary_rpc_method_handler(self.answer)}
        if stream is not None:
            handlers["ForwardStream"] = grpc.stream_stream_rpc_method_handler(self.open)
        self._server = grpc.server(ThreadPoolExecutor(8))
        generic = grpc.method_handlers_generic_handler(pooling_wire.SERVICE_NAME, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def answer(self, request: bytes, _: Any) -> bytes:
        self.unary += 1
        call, _ = FORWARD.decode_request(request)
        return FORWARD.encode_response(pooling_engine.forward(call.input, call.spec))

    def open(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.streams += 1
        assert self._stream is not None
        return iter(self._stream(requests, context))

    def stop(self) -> None:
        self._server.stop(None).wait()


def buffering(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """Hold back all replies until the end of the requests."""
    replies = []
    for item in requests:
        id_, call, *_ = FORWARD.decode_item(item)
        assert not isinstance(call, pooling_engine.PoolingError)
        result = pooling_engine.forward(call.input, call.spec)
        replies.append(FORWARD.encode_reply(id_, result))
    return iter(replies)


@both_clients
@pytest.mark.parametrize("stream", [None, buffering])
def test_without_a_working_stream_calls_are_unary(
    callers: Any, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_calls, "SILENCE_S", 0.2)
    other = OtherServer(stream)
    try:
        callers(other.address, [list(range(10)), list(range(10, 20))], lambda: None)
        assert other.unary == 20
        assert other.streams <= 2
    finally:
        other.stop()


def test_other_ids_are_an_error(server: PoolingServer) -> None:
    def confused(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for item in requests:
            id_, call, *_ = FORWARD.decode_item(item)
            assert not isinstance(call, pooling_engine.PoolingError)
            result = pooling_engine.forward(call.input, call.spec)
            yield FORWARD.encode_reply(id_ + 1, result)

    other = OtherServer(confused)
    try:
        with PoolingClient(other.address) as client:
            client.forward(tensor(1), SPEC)
            with pytest.raises(pooling_engine.InternalError, match="reply to item"):
                client.forward(tensor(1), SPEC)
    finally:
        other.stop()


def test_shared_streams_can_be_turned_off() -> None:
    other = OtherServer(buffering)
    try:
        with PoolingClient(other.address, shared_streams=False) as client:
            for seed in range(5):
                client.forward(tensor(seed), SPEC)
        with PoolingClient(other.address, metadata=dict) as client:  # metadata of each call
            for seed in range(5):
                client.forward(tensor(seed), SPEC)
        assert (other.unary, other.streams) == (10, 0)
    finally:
        other.stop()


EXITS = """
import sys
import numpy as np
from pooling_client import PoolingClient, PoolSpec
client = PoolingClient(sys.argv[1])
for _ in range(5):
    client.forward(np.ones((1, 1, 8, 8), np.float32), PoolSpec("max", 2))
print("done")
"""


def test_a_program_ends_with_its_stream_open(server: PoolingServer) -> None:
    command = [sys.executable, "-c", EXITS, server.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
