"""The command `pooling loadtest`: its output, its exit codes, and what survives an early end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pooling_cli.main import cli
from pooling_loadtest import results
from tests.cli.support import pooling
from tests.loadtest.servers import Answers, fake_server
from tests.support.processes import address_in, process
from tests.support.waiting import LIMIT_S, quiet_port, wait_until

SMALL = ("--shape", "1,2,8,8", "--kernel", "2", "--duration", "0.5")


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with process("--listen", "127.0.0.1:0", "--backend", "numpy") as (_, banner):
        yield address_in(banner)


def test_a_run_prints_a_summary_and_writes_the_folder(target: str, tmp_path: Path) -> None:
    flags = ("--rate", 200, "--verify", 0.5, "--slo", "p99<60s", "--output", "run", *SMALL)
    done = pooling("loadtest", target, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("forward max: open loop, poisson arrivals at 200 calls/s\n")
    assert "objective   p99<60s: met" in done.stdout
    assert "replies, 0 wrong" in done.stdout
    assert all(len(line) <= 120 for line in done.stdout.splitlines())
    read = results.read(tmp_path / "run")
    assert read.run.command[1:3] == ["loadtest", target]
    assert read.run.kinds[0].spec == {"mode": "max", "kernel": 2}
    assert read.run.verify["wrong"] == 0 < read.run.verify["checked"]
    assert f"calls       {len(read.calls)} in" in done.stdout


def test_a_missed_objective_is_exit_code_1(target: str, tmp_path: Path) -> None:
    done = pooling("loadtest", target, "--slo", "p50<1us", *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "objective   p50<1us: MISSED" in done.stdout


def test_the_capacity_is_searched_until_windows_agree(target: str, tmp_path: Path) -> None:
    flags = ("--find-capacity", "--slo", "p99<1us", "--rate", 2, *SMALL)
    done = pooling("loadtest", target, *flags, "--output", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "p99<1us was not met at any rate" in done.stdout
    run = results.read(tmp_path / "run").run
    assert run.capacity is not None
    assert [window["rate"] for window in run.capacity["windows"]] == [2, 1, 0.5]
    assert [segment["rate"] for segment in run.schedule["segments"]] == [2, 1, 0.5]


def test_an_empty_name_of_a_folder_is_rejected() -> None:
    done = CliRunner().invoke(cli, ["loadtest", "127.0.0.1:1", "--output", ""])
    assert done.exit_code == 2
    assert done.stderr.endswith("Error: Invalid value for '--output': '' is no folder\n")


class Counted:
    """Right answers, counted."""

    def __init__(self) -> None:
        self._answers = Answers()
        self.calls = 0

    def __call__(self, number: int, request: bytes, context: Any) -> bytes:
        self.calls = max(self.calls, number)
        return self._answers(number, request, context)


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    counted = Counted()
    flags = ("--rate", 100, "--duration", 600)
    with fake_server(counted) as (target, _), started(tmp_path, target, *flags) as running:
        wait_until(lambda: counted.calls > 20)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=LIMIT_S)
    assert (running.returncode, stderr) == (0, "")
    assert "stopped     interrupted" in stdout
    read = results.read(tmp_path / "run")
    assert read.run.stopped == "interrupted"
    assert 20 <= len(read.calls) < 60_000
    is_sent = read.calls.sent_ns >= 0
    assert read.calls.is_ok[is_sent].all()
    assert np.count_nonzero(~is_sent) <= 1  # one may have become due at that moment


@pytest.mark.parametrize("load", [("--rate", 100), ("--callers", 2)])
def test_a_server_that_dies_ends_the_test_and_keeps_the_results(
    load: tuple[Any, ...], tmp_path: Path
) -> None:
    counted = Counted()
    flags = (*load, "--duration", 600, "--give-up", 0.3)
    with fake_server(counted) as (target, server), started(tmp_path, target, *flags) as running:
        wait_until(lambda: counted.calls > 20)
        server.stop(0)
        stdout, stderr = running.communicate(timeout=LIMIT_S)
    assert (running.returncode, stderr) == (1, "")
    assert "stopped     the server became unavailable about" in stdout
    assert "  UNAVAILABLE " in stdout
    calls = results.read(tmp_path / "run").calls
    assert np.count_nonzero(calls.is_ok) >= 18
    assert np.count_nonzero(calls.status == 14) > 1


def test_a_generator_process_that_is_killed_leaves_its_calls(tmp_path: Path) -> None:
    counted = Counted()
    flags = ("--rate", 100, "--duration", 600, "--processes", 2)
    with fake_server(counted) as (target, _), started(tmp_path, target, *flags) as running:
        wait_until(lambda: counted.calls > 40)
        os.kill(children(running.pid)[1], signal.SIGKILL)
        stdout, stderr = running.communicate(timeout=LIMIT_S)
    assert (running.returncode, stderr) == (1, "")
    assert "stopped     generator process 1 was killed by SIGKILL " in stdout
    calls = results.read(tmp_path / "run").calls
    for number in (0, 1):
        assert np.count_nonzero(calls.is_ok & (calls.process == number)) > 10
    assert (np.diff(calls.scheduled_ns) >= 0).all()


@pytest.mark.parametrize("load", [("--rate", 100), ("--callers", 2)])
def test_the_calls_of_the_only_process_are_left_too(load: tuple[Any, ...], tmp_path: Path) -> None:
    counted = Counted()
    flags = (*load, "--duration", 600)
    with fake_server(counted) as (target, _), started(tmp_path, target, *flags) as running:
        wait_until(lambda: counted.calls > 20)
        os.kill(children(running.pid)[0], signal.SIGKILL)
        stdout, stderr = running.communicate(timeout=LIMIT_S)
    assert (running.returncode, stderr) == (1, "")
    assert "stopped     generator process 0 was killed by SIGKILL " in stdout
    assert np.count_nonzero(results.read(tmp_path / "run").calls.is_ok) > 10


def children(pid: int) -> list[int]:
    """Return the child processes of a process, in the order of their start."""
    found = (task / "children" for task in Path(f"/proc/{pid}/task").iterdir())
    return sorted(int(child) for file in found for child in file.read_text().split())


def test_a_full_disk_is_one_line_after_the_summary(target: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/calls.npz").symlink_to("/dev/full")
    done = pooling("loadtest", target, *SMALL, "--output", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "Error: cannot write run: No space left on device\n"
    assert done.stdout.startswith("forward max: open loop")


def test_a_server_with_another_protocol_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = f"127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
        done = pooling("loadtest", other, "--timeout", 5, *SMALL, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: kind 'forward max': ")
    assert other in done.stderr
    assert done.stderr.count("\n") == 1


def greet(listener: socket.socket) -> None:
    """Answer each connection like a mail server."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.sendall(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ((), 1, "no server answers at 127.0.0.1:{port}"),
        (("--rate", -3), 2, "rate is -3; it must be a number of calls/s above 0"),
        (("--rate", 1e9), 2, "at most 20,000,000"),
        (("--slo", "fast"), 2, "slo has 'fast'; it must consist of terms such as"),
        (("--scenario", "x.yaml"), 2, "scenario is 'x.yaml', which cannot be read"),
        (("--output", "/proc/x"), 2, "output is /proc/x: No such file or directory"),
        (("--shape", "1,-1,4,4"), 2, "the shape is (1, -1, 4, 4); N may be zero"),
        (("--shape", "99999,9999,9999,9999"), 2, "must fit in the memory of the generator"),
        (("--shape", "9999999999,9999999999,4,4"), 2, "may exceed 2^63 - 1 bytes"),
        (("--kernel", 50), 2, "the window spans 50 positions"),
        (("--verify", 2), 2, "verify is 2; it must be a fraction from 0 to 1"),
        (("--processes", 0), 2, "processes is 0; it must be at least 1"),
        (("--processes", 65), 2, "processes is 65; it must be at most 64"),
        (("--metrics-url", "http://127.0.0.1:{port}"), 1, "{port}: [Errno 111] Connection refused"),
        (("--callers", 1, "--processes", 2), 2, "callers is 1; it must be at least processes, 2"),
        (("--find-capacity", "--callers", 4), 2, "find-capacity chooses its rates; callers"),
        (("--find-capacity", "--schedule", "step"), 2, "callers and schedule do not apply"),
        (("--callers", 4, "--rate", 10), 2, "callers is for the closed loop; rate and schedule"),
        (("--scenario", "few-large", "--kernel", 3), 2, "kernel describes one kind of call, but"),
        (("--protocol", "oip-rest", "--model", "m", "--tls"), 2, "oip-rest has no TLS"),
        (("--transport", "shared-memory"), 2, "shared memory needs unix:/PATH"),
        (("--model", "m"), 2, "model is for the protocols oip-grpc and oip-rest"),
        (("--protocol", "oip-rest", "--transport", "many"), 2, "oip-rest has unary calls only"),
        (
            ("--protocol", "oip-grpc", "--model", "m", "--direction", "backward"),
            2,
            "a model named by --model has one input and one output",
        ),
        (("--protocol", "oip-grpc", "--parameter", "kernel=3"), 2, "parameter is for a model"),
        (("--parameter", "kernel=3"), 2, "parameter is for the protocols oip-grpc and oip-rest"),
        (("--seed", -1), 2, "seed is -1; it must be at least 0"),
        (("--timeout", 0), 2, "timeout is 0; it must be a number of seconds above 0"),
        (("--give-up", "nan"), 2, "give-up is nan; it must be a number of seconds above 0"),
        (("unix:",), 2, "target is 'unix:': the path is missing"),
        (("",), 2, "target is '': not an address"),
        (("--metrics-url", "ftp://x"), 2, "metrics-url is 'ftp://x'; it must begin with http://"),
    ],
)
def test_errors_are_one_line(flags: tuple[Any, ...], code: int, says: str) -> None:
    port = quiet_port()
    done = CliRunner().invoke(
        cli, ["loadtest", f"127.0.0.1:{port}", *(str(each).format(port=port) for each in flags)]
    )
    assert done.exit_code == code
    assert says.format(port=port) in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


@contextmanager
def started(folder: Path, target: str, *flags: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a load test that writes to "run", and end it afterwards."""
    command = [sys.executable, "-m", "pooling_cli.main", "loadtest", target, "--output", "run"]
    running = subprocess.Popen(
        [*command, *SMALL, *map(str, flags)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=LIMIT_S)
