"""The server as a process: start, banner, invalid options, graceful and immediate stop."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pooling_client import PoolingClient
from pooling_engine import PoolSpec, UnavailableError, forward
from pooling_engine.backends import BACKENDS, available_backends
from pooling_server import ServerConfig
from pooling_server.processes import worker
from pooling_server.processes.process import (
    ABORT,
    Events,
    _end_thread,
    _end_unstarted_thread,
    _warm_up,
    system_error_text,
)
from tests.support.processes import SERVE, address_in, process, wait_until_draining
from tests.support.waiting import LIMIT_S, quiet_port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_from_the_banner_to_a_clean_stop(number: signal.Signals) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    spec = PoolSpec("max", kernel=2)
    with process("--listen", "127.0.0.1:0") as (server, banner):
        with PoolingClient(address_in(banner)) as client:
            np.testing.assert_array_equal(client.forward(x, spec).output, forward(x, spec).output)
        server.send_signal(number)
        out, err = server.communicate(timeout=LIMIT_S)
        assert (server.returncode, out, err) == (0, "", "")


def test_a_stop_under_load_loses_no_reply() -> None:
    """Every call returns the correct result or UnavailableError."""
    x = np.random.default_rng(0).standard_normal((8, 64, 56, 56), dtype=np.float32)
    spec = PoolSpec("max", kernel=3, stride=2, padding=1)
    expected = forward(x, spec).output
    correct, rejected, failures = [], [], []
    with process("--listen", "127.0.0.1:0") as (server, banner):
        address = address_in(banner)
        stopping = threading.Event()

        def call_until_rejected() -> None:
            with PoolingClient(address) as client:
                while not rejected:
                    try:
                        correct.append(np.array_equal(client.forward(x, spec).output, expected))
                    except UnavailableError:
                        assert stopping.is_set()
                        rejected.append(True)
                    except Exception as error:
                        failures.append(error)
                        return

        threads = [threading.Thread(target=call_until_rejected) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(correct) < 6 and not failures:
            stopping.wait(0.02)
        stopping.set()
        server.terminate()
        for thread in threads:
            thread.join(LIMIT_S)
        _, err = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0, err
    assert not failures
    assert rejected
    assert all(correct)


def test_a_second_signal_ends_the_process_immediately() -> None:
    flags = ("--backend", "numpy", "--listen", "127.0.0.1:0", "--drain-delay-s", "60")
    with process(*flags) as (server, banner):
        server.terminate()
        wait_until_draining(address_in(banner))  # which takes a minute
        with grpc.insecure_channel(address_in(banner)) as channel:
            request = health_pb2.HealthCheckRequest(service="liveness")
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=LIMIT_S)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        server.terminate()
        assert server.wait(LIMIT_S) == 1


def test_flags_override_the_environment() -> None:
    with (
        process(
            "--max-in-flight", "7", POOLING_LISTEN="127.0.0.1:0", POOLING_MAX_IN_FLIGHT="9"
        ) as (_, banner),
        PoolingClient(address_in(banner)) as client,
    ):
        assert client.info().limits.max_in_flight == 7


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--max-in-flight", "0"], 2, "max_in_flight is 0; it must be at least 1"),
        (["--max-message-bytes", "5000000000"], 2, "it must be at most 1073741824"),
        (["--threads", "many"], 2, "'many' is not a valid integer"),
        (["--log-level", "loud"], 2, "log_level is 'loud'"),
        (["--no-such-flag"], 2, "No such option"),
        (["--backend", "abacus"], 1, "backend is 'abacus'; it must be one of \"auto\", "),
        (["--stream-idle-s", "nan"], 2, "stream_idle_s is nan; it must be a finite number"),
        (["--arena-bytes", "-1"], 2, "arena_bytes is -1; it must be at least 0"),
        (["--listen", "nowhere"], 2, "listen is 'nowhere'; it must be HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--listen", "b"], 2, "listen is 'b'; it must be HOST:PORT"),
        (
            ["--listen", "unix:sock"],
            2,
            "'unix:sock'; a Unix socket must be unix:/PATH, with an absolute",
        ),
        (
            ["--listen", "unix-abstract:a:5"],
            2,
            "abstract sockets are not supported, because any user could connect",
        ),
        (
            ["--listen", f"unix:/{'a' * 100}"],
            2,
            "the path of a Unix socket must have at most 100 bytes",
        ),
        (
            ["--listen", "unix:/no/such/folder/s"],
            1,
            "cannot listen on unix:/no/such/folder/s: No such file or directory",
        ),
        (
            ["--socket-mode", "rw"],
            2,
            "socket_mode is 'rw'; it must be three octal digits, such as 660",
        ),
        (
            ["--listen", "127.0.0.1:99999"],
            2,
            "it must be HOST:PORT, with a port from 0 to 65535, or unix:/PATH",
        ),
        (["--listen", "192.0.2.1:50051"], 2, "can reach without TLS"),
        (
            ["--listen", "192.0.2.1:50051", "--allow-plaintext"],
            1,
            "cannot listen on 192.0.2.1:50051: Cannot assign requested address",
        ),
    ],
)
def test_invalid_options_are_reported_in_one_line(flags: list[str], code: int, text: str) -> None:
    done = subprocess.run([*SERVE, *flags], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["auto", *available_backends()])
def test_info_lists_the_backends_that_are_used(backend: str) -> None:
    """The banner names the selected backend; the list also has its fallbacks."""
    with (
        process("--listen", "127.0.0.1:0", "--backend", backend) as (_, banner),
        PoolingClient(address_in(banner)) as client,
    ):
        listed = [info.name for info in client.info().backends]
    names = available_backends()
    first = names[0] if backend == "auto" else backend
    assert listed == list(names[names.index(first) :])
    assert f"computing with {first} " in banner
    assert listed[-1] == list(BACKENDS)[-1] == "numpy", "the last backend must support every call"


THREADS = "error: the server cannot start a thread; its limit of memory or of threads is too low"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_limit_of_memory_ends_the_start_with_one_line(workers: str) -> None:
    """The limit is enough for the program, and not for the stacks of its threads."""
    command = ["-m", "pooling_server", "--listen", "127.0.0.1:0", "--workers", workers]
    done = subprocess.run(
        [
            "sh",
            "-c",
            'ulimit -s 262144; ulimit -v 2097152; exec "$@"',
            "sh",
            sys.executable,
            *command,
        ],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{THREADS}\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "error: the server is out of memory"),
        (RuntimeError("can't start new thread"), THREADS),
        (OSError(12, "Cannot allocate memory"), "error: [Errno 12] Cannot allocate memory"),
    ],
)
def test_a_warm_up_that_cannot_run_ends_the_server_with_one_line(
    error: Exception, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    events: list[bytes] = []
    server, queue = SimpleNamespace(warm_up=fail), SimpleNamespace(post=events.append)
    _warm_up(server, queue)  # type: ignore[arg-type]
    assert events == [ABORT]
    assert capsys.readouterr().err == f"{text}\n"


def test_the_objects_of_the_start_are_exempt_from_garbage_collection() -> None:
    """A collection of all of them would stop every thread of a serving process."""
    events: list[bytes] = []
    server, queue = SimpleNamespace(warm_up=lambda: None), SimpleNamespace(post=events.append)
    try:
        _warm_up(server, queue)  # type: ignore[arg-type]
        assert gc.get_freeze_count() > len(gc.get_objects(generation=2))
    finally:
        gc.unfreeze()
    assert len(events) == 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_worker_reports_why_it_cannot_start(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    ours, theirs = Pipe()
    ours.send(ServerConfig())
    codes: list[int] = []
    monkeypatch.setattr(worker, "check_threads", fail)
    monkeypatch.setattr(worker, "Connection", lambda _: theirs)
    monkeypatch.setattr(worker, "Events", lambda *_: None)
    monkeypatch.setattr(worker, "exit_process", codes.append)
    monkeypatch.setattr(sys, "argv", ["worker", "0"])
    worker.main()
    assert ours.recv() == (worker.FAILED, system_error_text(error))
    assert codes == [1]


def test_a_port_in_use_is_an_error() -> None:
    with process("--listen", "127.0.0.1:0") as (_, banner):
        address = address_in(banner)
        done = subprocess.run(
            [*SERVE, "--listen", address], capture_output=True, text=True, timeout=LIMIT_S
        )
    assert done.returncode == 1
    assert done.stderr == f"error: cannot listen on {address}: Address already in use\n"


def test_healthcheck_distinguishes_serving_from_absent() -> None:
    address = f"127.0.0.1:{quiet_port()}"
    command = [sys.executable, "-m", "pooling_server.healthcheck", "--target"]
    limit = ("--timeout", str(LIMIT_S))
    with process("--listen", address):
        serving = subprocess.run(
            [*command, address, *limit], capture_output=True, text=True, timeout=LIMIT_S
        )
    absent = subprocess.run(
        [*command, address, *limit], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert (serving.returncode, serving.stdout) == (0, "SERVING\n")
    assert (absent.returncode, absent.stderr) == (1, f"error: {address}: UNAVAILABLE\n")


def test_a_log_that_nobody_reads_does_not_block_the_server() -> None:
    """A full pipe blocks its writer; gRPC's polling thread must not be the one that writes."""
    flags = ("--listen", "127.0.0.1:0", "--backend", "numpy", "--log-level", "info")
    x = np.ones((1, 1, 4, 4), np.float32)
    with process(*flags) as (server, banner):
        with grpc.insecure_channel(address_in(banner)) as channel:
            call = channel.unary_unary("/pooling.v1.PoolingService/Forward")
            for _ in range(1000):  # their log lines exceed the 64 KiB of a pipe
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"\xff", timeout=LIMIT_S)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with PoolingClient(address_in(banner)) as client:
            client.forward(x, PoolSpec("max", kernel=2))
        server.terminate()
        assert server.wait(LIMIT_S) == 0


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_thread_without_memory_ends_the_process(error: Exception, capsys: Any) -> None:
    events = Events()
    ended = threading.ExceptHookArgs((type(error), error, None, None))
    _end_thread(events, ended)
    assert events.next() == ABORT
    assert capsys.readouterr().err.startswith("error: the server")


def test_a_thread_that_cannot_begin_ends_the_process(capsys: Any) -> None:
    events = Events()

    class Unusable(threading.Thread):
        def _bootstrap(self) -> None:  # called first in a new thread
            raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", partial(_end_unstarted_thread, events))
        threading.Thread(target=Unusable().start, daemon=True).start()
        assert events.next() == ABORT
    assert capsys.readouterr().err.startswith("error: the server is out of memory")


def test_a_process_exits_if_no_thread_can_be_started() -> None:
    program = """
import threading
from pooling_server.processes.process import exit_process
threading.Thread.start = lambda _: threading.Event().wait()
print("the rest")
exit_process(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "the rest\n", "")
