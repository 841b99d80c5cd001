"""Kernels are compiled before health reports SERVING; calls are answered meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import pooling_engine
from pooling_client import PoolingClient
from pooling_engine import PoolSpec
from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import app
from tests.support.waiting import LIMIT_S, wait_until

SPEC = PoolSpec("max", kernel=2)
X = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health_of(address: str, service: str = "") -> int:
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=LIMIT_S).status)


class SlowWarmUp:
    """Replacement of `pooling_engine.warm_up` that blocks until `go` is set."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any]] = []
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, backend: str = "auto", *, background: bool = False) -> None:
        self.calls.append((backend, background))
        self.began.set()
        assert self.go.wait(LIMIT_S)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowWarmUp:
    slow = SlowWarmUp()
    monkeypatch.setattr(pooling_engine, "warm_up", slow)
    return slow


def test_health_waits_for_the_warm_up_but_calls_do_not(slow: SlowWarmUp) -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy"))
    starting = threading.Thread(target=server.start)
    starting.start()
    assert slow.began.wait(LIMIT_S)
    assert health_of(server.address) == NOT_SERVING
    assert health_of(server.address, "pooling.v1.PoolingService") == NOT_SERVING
    assert health_of(server.address, "liveness") == SERVING
    with PoolingClient(server.address) as client:
        output = client.forward(X, SPEC).output
    np.testing.assert_array_equal(output, pooling_engine.forward(X, SPEC).output)
    assert starting.is_alive()
    slow.go.set()
    starting.join(LIMIT_S)
    assert health_of(server.address) == SERVING
    assert health_of(server.address, "pooling.v1.PoolingService") == SERVING
    assert slow.calls == [("numpy", True)]
    assert server.stop()


def test_numpy_computes_until_the_warm_up_is_done(
    slow: SlowWarmUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both methods use the backend that compiles nothing."""
    used: list[str] = []
    compute = pooling_engine.run

    def watched(*arguments: Any, backend: str) -> Any:
        used.append(backend)
        return compute(*arguments, backend=backend)

    monkeypatch.setattr(pooling_engine, "run", watched)
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0"))
    starting = threading.Thread(target=server.start)
    starting.start()
    assert slow.began.wait(LIMIT_S)
    with PoolingClient(server.address) as client:
        for expected in ("numpy", "auto"):
            output = client.forward(X, SPEC).output
            client.backward(output, SPEC, input=X)
            assert used == [expected] * 2
            used.clear()
            slow.go.set()
            starting.join(LIMIT_S)
    assert server.stop()


def test_a_server_that_stops_while_it_warms_up_never_serves(slow: SlowWarmUp) -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", drain_delay_s=0.0))
    starting = threading.Thread(target=server.start)
    starting.start()
    assert slow.began.wait(LIMIT_S)
    watched: list[int] = []
    with grpc.insecure_channel(server.address) as channel:
        changes = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        watched.append(next(changes).status)
        assert server.stop()
        slow.go.set()
        starting.join(LIMIT_S)
        with pytest.raises(grpc.RpcError):
            watched.extend(change.status for change in changes)
    assert set(watched) == {NOT_SERVING}


def test_a_long_warm_up_is_logged(
    slow: SlowWarmUp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_LONG_WARM_UP_S", 0.0)
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy"))
    starting = threading.Thread(target=server.start)
    starting.start()
    wait_until(lambda: "compiling kernels, which takes a minute or more" in caplog.text)
    assert f"calls to {server.address} are computed by NumPy" in caplog.text
    slow.go.set()
    starting.join(LIMIT_S)
    assert server.stop()


def test_no_warm_up(slow: SlowWarmUp) -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", warm_up=False))
    server.start()
    assert health_of(server.address) == SERVING
    assert not slow.calls
    assert server.stop()


def test_a_failed_warm_up_is_logged_and_the_server_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(pooling_engine, "warm_up", fail)
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0"))
    server.start()
    assert health_of(server.address) == SERVING
    assert "no compiler found" in caplog.text
    assert server.stop()


ENDLESS = """
import threading, pooling_engine
from pooling_server.__main__ import main

def warm_up(*_, **__):
    wait = threading.Event().wait
    threading.Thread(target=wait, daemon=False).start()  # a normal exit would wait for it
    wait()

pooling_engine.warm_up = warm_up
main()
"""


@contextmanager
def endless(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server process that never finishes its warm-up; yield it and its address."""
    server = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "--listen", "127.0.0.1:0", "--log-level", "info", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        line = server.stderr.readline().strip()
        assert "listening on" in line
        yield server, line.rpartition(" ")[2]
    finally:
        server.kill()
        server.communicate(timeout=LIMIT_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_stops_while_it_warms_up(number: signal.Signals) -> None:
    with endless() as (server, address):
        assert health_of(address) == NOT_SERVING
        with PoolingClient(address) as client:
            output = client.forward(X, SPEC).output
        np.testing.assert_array_equal(output, pooling_engine.forward(X, SPEC).output)
        server.send_signal(number)
        out, _ = server.communicate(timeout=LIMIT_S)
        assert (server.returncode, out) == (0, "")


def test_the_container_health_check_fails_during_the_warm_up() -> None:
    with endless() as (_, address):
        command = [sys.executable, "-m", "pooling_server.healthcheck"]
        command += ["--target", address, "--timeout", str(LIMIT_S)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        assert (done.returncode, done.stdout) == (1, "NOT_SERVING\n")
        command += ["--service", "liveness"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
