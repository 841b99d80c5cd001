"""Several workers: all of them answer, one that dies is replaced, a stop loses no reply."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from pooling_client import PoolingClient
from pooling_engine import PoolSpec, UnavailableError, forward
from pooling_server import ServerConfig
from pooling_server.processes.process import RELOAD
from pooling_server.processes.supervisor import Supervisor, worker_configs
from pooling_server.processes.worker import Worker
from tests.support.processes import SERVE, process, wait_until_draining
from tests.support.waiting import LIMIT_S, wait_until

FLAGS = ("--backend", "numpy", "--workers", "2", "--listen", "127.0.0.1:0")
X = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
SPEC = PoolSpec("max", kernel=2)
MANY = 24  # connections: the probability that one of two workers gets none is 2**-23


def address_of(banner: str) -> str:
    found = re.search(r"listening on (\S+:\d+)", banner)
    assert found, banner
    return found[1]


def workers_of(server: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return sorted(map(int, children))


def connections_of(pid: int, address: str) -> int:
    """Return how many connections to the address a process has accepted."""
    port = f"{int(address.rpartition(':')[2]):04X}"
    rows = [
        line.split()
        for table in ("tcp", "tcp6")  # gRPC also connects to 127.0.0.1 through IPv6
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    accepted = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "01"}
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(str(entry.readlink()))
    return len(accepted & own)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def answers(target: str) -> bool:
    with PoolingClient(target) as client:
        try:
            return np.array_equal(client.forward(X, SPEC).output, forward(X, SPEC).output)
        except UnavailableError:
            return False


def test_all_workers_answer_on_one_port_and_stop_together(socket_path: Path) -> None:
    with process(*FLAGS, "--threads", "3", "--listen", f"unix:{socket_path}") as (server, banner):
        assert re.fullmatch(
            rf"pooling \S+ listening on 127\.0\.0\.1:\d+ and unix:{socket_path}, "
            r"computing with numpy \(CPU, 2 threads\), 2 workers on 3 threads",
            banner,
        ), banner
        address, workers = address_of(banner), workers_of(server)
        assert len(workers) == 2
        with PoolingClient(address, connections=MANY) as client:
            for _ in range(MANY):
                output = client.forward(X, SPEC).output
                np.testing.assert_array_equal(output, forward(X, SPEC).output)
            shares = [connections_of(worker, address) for worker in workers]
        assert all(shares), shares
        assert sum(shares) == MANY
        with PoolingClient(f"unix:{socket_path}") as client:
            assert client.info().backends[0].devices == ("CPU, 2 threads",)
        server.terminate()
        assert server.communicate(timeout=LIMIT_S) == ("", "")
        assert server.returncode == 0
    assert not any(map(is_running, workers))
    assert not socket_path.exists()


def test_a_killed_worker_is_replaced(socket_path: Path) -> None:
    with process(*FLAGS, "--listen", f"unix:{socket_path}") as (server, banner):
        address, before = address_of(banner), workers_of(server)
        os.kill(before[0], signal.SIGKILL)
        with PoolingClient(address) as client:
            for _ in range(20):  # the other or the new worker answers
                client.forward(X, SPEC)
        wait_until(lambda: len(workers_of(server)) == 2 and workers_of(server) != before)
        wait_until(
            lambda: answers(f"unix:{socket_path}")
        )  # the socket of the first worker, whichever died
        server.terminate()
        _, err = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0
    (line,) = err.splitlines()
    text = rf"worker \d \(process {before[0]}\) was killed by SIGKILL; restarting it in 0\.1 s"
    assert re.search(text, line), line


def test_a_second_sighup_restarts_every_worker_again() -> None:
    """SIGHUP during a rolling restart: the workers that have restarted may hold old files."""
    with process(*FLAGS) as (server, _):
        seen = set(workers_of(server))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: set(workers_of(server)) - seen)
        seen |= set(workers_of(server))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: len(now := workers_of(server)) == 2 and not seen & set(now))
        server.terminate()
        _, log = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0
    assert log.count("restarting the workers one by one") == 2
    assert len(log.splitlines()) == 2


def test_sighup_starts_a_worker_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    actions: list[tuple[str, int]] = []
    for name in ("start", "stop"):
        monkeypatch.setattr(
            Worker, name, lambda each, name=name: actions.append((name, each.number))
        )
    supervisor = Supervisor(ServerConfig(workers=2), ["127.0.0.1:1"], None)  # type: ignore[arg-type]
    supervisor._handle(RELOAD)
    assert not actions, "the server has not started yet"
    ours, theirs = Pipe()
    with ours, theirs:
        for worker in supervisor._workers:
            worker.banner = "serving"
        supervisor._workers[1].connection = ours
        supervisor._on_ready()
        assert actions == [("start", 0)]
        supervisor._workers[0].started_at = time.monotonic()
        supervisor._renew_next()
        assert actions == [("start", 0), ("stop", 1)]


def test_a_stop_under_load_loses_no_reply() -> None:
    x = np.random.default_rng(0).standard_normal((4, 16, 56, 56), dtype=np.float32)
    expected = forward(x, SPEC).output
    correct, rejected, failures = [], [], []
    with process(*FLAGS) as (server, banner):
        stopping = threading.Event()

        def call_until_rejected() -> None:
            with PoolingClient(address_of(banner), connections=4) as client:
                while not failures:
                    try:
                        correct.append(np.array_equal(client.forward(x, SPEC).output, expected))
                    except UnavailableError:
                        assert stopping.is_set()
                        rejected.append(True)
                        return
                    except Exception as error:
                        failures.append(error)

        threads = [threading.Thread(target=call_until_rejected) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(correct) < 12 and not failures:
            stopping.wait(0.02)
        stopping.set()
        server.terminate()
        for thread in threads:
            thread.join(LIMIT_S)
        _, err = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0, err
    assert not failures
    assert len(rejected) == 4
    assert all(correct)


def test_workers_exit_if_the_supervisor_is_killed() -> None:
    with process(*FLAGS) as (server, _):
        workers = workers_of(server)
        assert len(workers) == 2
        server.kill()
        server.wait(LIMIT_S)
        wait_until(lambda: not any(map(is_running, workers)))


def test_a_second_signal_ends_all_workers_immediately(socket_path: Path) -> None:
    with process(*FLAGS, "--drain-delay-s", "60") as (server, banner):
        workers = workers_of(server)
        server.terminate()
        wait_until_draining(address_of(banner))
        server.terminate()
        assert server.wait(LIMIT_S) == 1
    assert not any(map(is_running, workers))


def test_a_signal_to_a_worker_does_not_abort_the_stop() -> None:
    """Some service managers signal the workers as well as the supervisor."""
    with process(*FLAGS, "--drain-delay-s", "1") as (server, _):
        workers = workers_of(server)
        for pid in (*workers, server.pid, *workers):
            os.kill(pid, signal.SIGTERM)
        assert server.wait(LIMIT_S) == 0


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--backend", "abacus"], 1, "error: backend is 'abacus'; it must be one of \"auto\", "),
        (
            ["--listen", "192.0.2.1:50051", "--allow-plaintext"],
            1,
            "error: cannot listen on 192.0.2.1:50051: ",
        ),
        (["--listen", "unix:/no/such/s"], 1, "error: cannot listen on unix:/no/such/s: "),
        (["--workers", "0"], 2, "workers is 0; it must be at least 1"),
    ],
)
def test_a_failed_first_start_is_one_error_without_restarts(
    flags: list[str], code: int, text: str
) -> None:
    done = subprocess.run([*SERVE, *FLAGS, *flags], capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert code == 2 or len(done.stderr.splitlines()) == 1


def test_unix_sockets_alone_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="workers is 2, but a Unix socket cannot be shared"):
        ServerConfig(workers=2, listen="unix:/a")


@pytest.mark.parametrize("second", [FLAGS, ("--backend", "numpy")])
def test_a_port_that_workers_share_is_in_use(second: tuple[str, ...]) -> None:
    with process(*FLAGS) as (_, banner):
        address = address_of(banner)
        listen = ("--listen", address)
        command = [*SERVE, *(word for word in second if word not in ("--listen", "127.0.0.1:0"))]
        done = subprocess.run([*command, *listen], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert done.stderr == f"error: cannot listen on {address}: Address already in use\n"


@pytest.mark.parametrize(
    ("threads", "workers", "expected"),
    [(4, 2, [2, 2]), (3, 2, [2, 1]), (1, 3, [1, 1, 1]), (7, 3, [3, 2, 2])],
)
def test_threads_are_divided_among_workers(threads: int, workers: int, expected: list[int]) -> None:
    config = ServerConfig(threads=threads, workers=workers, max_in_flight=5)
    shares = worker_configs(config, ["127.0.0.1:1", "unix:/a"])
    assert [share.threads for share in shares] == expected
    assert [share.listen for share in shares] == ["127.0.0.1:1,unix:/a"] + ["127.0.0.1:1"] * (
        workers - 1
    )
    assert {(share.workers, share.max_in_flight) for share in shares} == {(1, 5)}


def test_restarts_are_delayed_with_exponential_back_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    worker = Worker(0, ServerConfig())
    worker.started_at = now
    delays = [worker.schedule_restart() for _ in range(2000)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(delays) == delays[-1] == 30
    now += 61  # after more than a minute of uptime
    assert worker.schedule_restart() == 0.1


def test_a_process_that_cannot_be_started_counts_as_one_that_exited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The supervisor starts it again later; an error here would end the other workers."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", fail)
    worker = Worker(3, ServerConfig())
    worker.start()
    assert worker.receive()
    assert not worker.exited_cleanly()
    assert worker.error == "cannot start a process: Cannot allocate memory"
    assert worker.describe_exit() == f"worker 3: {worker.error}"


def test_the_supervisor_does_not_wait_for_a_process_that_does_not_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU driver may block the exit of a process whose connection is already closed."""
    monkeypatch.setattr("pooling_server.processes.worker._EXIT_S", 0.1)
    worker = Worker(3, ServerConfig())
    worker.connection, theirs = Pipe()
    with subprocess.Popen(["sleep", "3600"]) as process:
        worker.process = process
        theirs.close()
        assert worker.receive()
        name = f"worker 3 (process {process.pid})"
        closed = f"{name} closed its connection, but its process is still running"
        assert worker.describe_exit() == closed
        assert not worker.exited_cleanly()
        process.kill()
