"""Servers that freeze, restart or fail over: every call keeps its deadline, or is answered."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest

from pooling_client import (
    AsyncPoolingClient,
    DeadlineError,
    ForwardCall,
    OverloadedError,
    PoolingClient,
    PoolingError,
    PoolSpec,
    UnavailableError,
)
from pooling_client._steps import Run, Send
from pooling_client._transports import drivers
from pooling_wire import FORWARD
from tests.support.processes import address_in, process
from tests.support.waiting import LIMIT_S, quiet_port, wait_until

SPEC = PoolSpec("max", 2)
SMALL = np.ones((1, 1, 8, 8), np.float32)
SHARED = np.ones((1, 8, 256, 256), np.float32)  # 2 MiB
CHUNKED = np.ones((1, 16, 512, 512), np.float32)  # 16 MiB
FLAGS = ("--backend", "numpy", "--no-warm-up")
CALLS: dict[str, Callable[[PoolingClient, float], Any]] = {
    "info": lambda client, timeout: client.info(timeout=timeout),
    "small": lambda client, timeout: client.forward(SMALL, SPEC, timeout=timeout),
    "shared": lambda client, timeout: client.forward(SHARED, SPEC, timeout=timeout),
    "chunked": lambda client, timeout: client.forward(CHUNKED, SPEC, timeout=timeout),
    "many": lambda client, timeout: list(
        client.forward_many([ForwardCall(SMALL, SPEC)] * 3, timeout=timeout)
    ),
}


def freeze(server: subprocess.Popen[str]) -> None:
    """Stop all threads of a process."""
    server.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{server.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")


@pytest.fixture(params=["tcp", "unix"])
def running(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address."""
    listen = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/socket"
    with process(*FLAGS, "--listen", listen) as (server, banner):
        yield server, address_in(banner)
        server.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "new"])
def test_a_frozen_server_does_not_extend_a_deadline(
    is_connected: bool, name: str, running: tuple[subprocess.Popen[str], str]
) -> None:
    server, address = running
    with PoolingClient(address) as client:
        if is_connected:
            client.info()
            client.forward(SHARED, SPEC)
        freeze(server)
        begin = time.monotonic()
        with pytest.raises(DeadlineError) as caught:
            CALLS[name](client, 1.0)
        assert time.monotonic() - begin < LIMIT_S / 2
    sentence = "was connected, but did not answer" if is_connected else "no connection to"
    assert sentence in str(caught.value)


def test_the_event_loop_runs_while_a_server_is_frozen(
    running: tuple[subprocess.Popen[str], str],
) -> None:
    """The loop counts while the calls wait, also while memory is leased."""
    server, address = running

    async def call() -> tuple[list[Any], int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        async with AsyncPoolingClient(address) as client:
            await client.info()
            freeze(server)
            counting = asyncio.create_task(count())
            outcomes = await asyncio.gather(
                *(client.forward(x, SPEC, timeout=1.0) for x in (SMALL, SHARED, CHUNKED)),
                return_exceptions=True,
            )
            counting.cancel()
        return outcomes, turns

    outcomes, turns = asyncio.run(call())
    assert [type(outcome) for outcome in outcomes] == [DeadlineError] * 3
    assert turns > 20


@pytest.mark.parametrize("timeout", [0.5, 2.0])
def test_a_peer_that_never_speaks_is_not_connected(timeout: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = "{}:{}".format(*silent.getsockname())
        with PoolingClient(target) as client, pytest.raises(DeadlineError, match="no connection"):
            client.forward(SMALL, SPEC, timeout=timeout)


class Refusals:
    """Listener that closes each connection immediately, and counts them."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.count = 0
        self._listener = socket.create_server((host, int(port)))
        self._thread = threading.Thread(target=self._refuse)

    def _refuse(self) -> None:
        with suppress(OSError):  # it was shut down
            while True:
                self._listener.accept()[0].close()
                self.count += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT_S)
        self._listener.close()


def test_calls_wait_for_a_server_that_restarts() -> None:
    address = f"127.0.0.1:{quiet_port()}"
    outcomes: dict[str, Any] = {}
    with PoolingClient(address) as client:
        with process(*FLAGS, "--listen", address):
            client.info()

        def call(name: str) -> None:
            try:
                outcomes[name] = CALLS[name](client, LIMIT_S)
            except PoolingError as error:
                outcomes[name] = error

        threads = [threading.Thread(target=call, args=(name,)) for name in CALLS]
        with Refusals(address) as refusals:
            for thread in threads:
                thread.start()
            wait_until(lambda: refusals.count >= 3, "no attempt follows the first ones")
            assert not outcomes
        with process(*FLAGS, "--listen", address):
            for thread in threads:
                thread.join(LIMIT_S)
    assert sorted(outcomes) == sorted(CALLS)
    assert not [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]


def test_a_stream_without_a_deadline_gives_up_after_the_timeout_of_the_client() -> None:
    with (
        PoolingClient(f"127.0.0.1:{quiet_port()}", timeout=1.0) as client,
        pytest.raises(UnavailableError, match="no server answers"),
    ):
        list(client.forward_many([ForwardCall(SMALL, SPEC)]))


def test_more_callers_than_the_server_admits_are_all_served() -> None:
    x, spec = np.ones((1, 16, 256, 256), np.float32), PoolSpec("max", 5, 1)
    flags = (*FLAGS, "--max-in-flight", "2", "--threads", "1", "--listen", "127.0.0.1:0")
    with process(*flags) as (_, banner), PoolingClient(address_in(banner)) as client:
        client.info()
        with ThreadPoolExecutor(12) as pool:
            calls = [pool.submit(client.forward, x, spec, timeout=LIMIT_S) for _ in range(24)]
            assert all(call.result().output.mean() == 1 for call in calls)


class _Answer(grpc.GenericRpcHandler):
    """Server that ends every call with one status."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self.calls = 0
        self._status = code, text

    def service(self, _: Any) -> Any:
        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls += 1
            context.abort(*self._status)

        return grpc.unary_unary_rpc_method_handler(answer)


def test_a_rate_limit_without_a_delay_is_not_retried() -> None:
    handler = _Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit")
    server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with PoolingClient(f"127.0.0.1:{port}") as client, pytest.raises(OverloadedError):
        client.info()
    server.stop(None).wait()
    assert handler.calls == 1


def test_calls_are_spread_over_several_servers_and_fail_over() -> None:
    listen = ("--listen", "127.0.0.1:0")
    with (
        process(*FLAGS, *listen, "--max-in-flight", "11") as (one, first),
        process(*FLAGS, *listen, "--max-in-flight", "12") as (_, second),
    ):
        target = f"ipv4:{address_in(first)},{address_in(second)}"
        with PoolingClient(target, connections=2) as client:
            seen: list[int] = []

            def has_both() -> bool:
                seen.append(client.info().limits.max_in_flight)
                return set(seen[-8:]) == {11, 12}

            wait_until(has_both, "the calls reach one server only")
            one.kill()
            one.wait()
            assert {client.info(timeout=10).limits.max_in_flight for _ in range(20)} == {12}


class Blocked(grpc.GenericRpcHandler):
    """Server that answers nothing until it is released.

    Attributes:
        address: its address.
    """

    def __init__(self) -> None:
        self._arrived, self._released = threading.Semaphore(0), threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=(self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def service(self, details: Any) -> Any:
        def block(*_: Any) -> Any:
            self._arrived.release()
            self._released.wait(LIMIT_S)
            return iter(()) if is_stream else b""

        is_stream = details.method.endswith("Stream")
        if is_stream:
            return grpc.stream_stream_rpc_method_handler(block)
        return grpc.unary_unary_rpc_method_handler(block)

    def wait_for_call(self) -> None:
        """Wait until one more call has arrived."""
        assert self._arrived.acquire(timeout=LIMIT_S)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.stop(None).wait(LIMIT_S)


@pytest.mark.parametrize("name", ["small", "chunked", "many"])
def test_close_ends_calls_in_flight(name: str) -> None:
    with Blocked() as server, ThreadPoolExecutor(1) as pool:
        client = PoolingClient(server.address)
        call = pool.submit(CALLS[name], client, 2 * LIMIT_S)
        server.wait_for_call()
        client.close()
        with pytest.raises(UnavailableError, match="the client was closed during the call"):
            call.result(LIMIT_S)
        with pytest.raises(ValueError, match="the client is closed"):
            CALLS[name](client, 1.0)


def test_close_between_the_steps_of_a_call() -> None:
    """A call in several steps, such as those in shared memory, ends like one that waits."""

    def steps(client: Any) -> Iterator[Any]:
        yield Run(client.close)
        yield Send(FORWARD.path, b"", 1.0)

    client = PoolingClient("127.0.0.1:1")
    with pytest.raises(UnavailableError, match="the client was closed during the call"):
        drivers.run(steps(client), client._transport)
    with pytest.raises(ValueError, match="the client is closed"):
        client.info()


def test_closing_an_asyncio_client_does_not_cancel_the_tasks_of_the_caller() -> None:
    async def call(server: Blocked) -> list[Any]:
        client = AsyncPoolingClient(server.address)
        calls = [asyncio.create_task(client.forward(x, SPEC)) for x in (SMALL, CHUNKED)]
        for _ in calls:
            await asyncio.to_thread(server.wait_for_call)
        await client.close()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(ValueError, match="the client is closed"):
            await client.info()
        return outcomes

    with Blocked() as server:
        outcomes = asyncio.run(call(server))
    for outcome in outcomes:
        assert type(outcome) is UnavailableError
        assert "the client was closed during the call" in str(outcome)


def test_one_asyncio_client_serves_several_event_loops(
    running: tuple[subprocess.Popen[str], str],
) -> None:
    _, address = running
    client = AsyncPoolingClient(address)  # outside of any event loop

    async def call() -> float:
        results = [await client.forward(x, SPEC) for x in (SMALL, SMALL, SHARED)]
        return float(np.mean([result.output.mean() for result in results]))

    assert [asyncio.run(call()) for _ in range(3)] == [1.0] * 3
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(lambda _: asyncio.run(call()), range(6))] == [1.0] * 6
    asyncio.run(client.close())
