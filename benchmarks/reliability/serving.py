"""Server processes of the experiments, and the resources that they use."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

Row = dict[str, Any]

LIMIT_S = 50.0  # for an event that normally takes seconds
SERVE = [sys.executable, "-m", "pooling_server", "--backend", "numpy", "--no-warm-up"]


class Server:
    """Running server process.

    Attributes:
        process: the process; with several workers, their supervisor.
        addresses: its listening addresses.
    """

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        assert process.stdout is not None
        self.process, self._log = process, log
        banner = process.stdout.readline()
        found = re.search(r"listening on (.+?),", banner)
        if found is None:
            raise RuntimeError(f"the server did not start: {banner}{self.log()}")
        self.addresses = found[1].split(" and ")

    @property
    def address(self) -> str:
        """The first address."""
        return self.addresses[0]

    def pids(self) -> list[int]:
        """Return the ids of the process and of its workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def workers(self) -> list[int]:
        """Return the ids of the worker processes."""
        return self.pids()[1:]

    def memory_bytes(self) -> int:
        """Return the resident memory of all processes, without shared memory of clients."""
        return sum(_status_kib(pid, "RssAnon") << 10 for pid in self.pids())

    def address_space(self, pid: int) -> int:
        """Return the bytes of the address space of a process."""
        return _status_kib(pid, "VmSize") << 10

    def descriptors(self) -> int:
        """Return the number of open descriptors of all processes."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids())

    def log(self) -> str:
        """Return the text that the server wrote to stderr."""
        self._log.seek(0)
        return self._log.read()


@contextmanager
def serving(
    *flags: str, prefix: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server, on a free TCP port unless `flags` name another address.

    Args:
        flags: options of the server.
        prefix: command that starts the server's command.
        environment: further environment variables.
    """
    listen = () if "--listen" in flags else ("--listen", "127.0.0.1:0")
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*prefix, *SERVE, *listen, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | dict(environment or {}),
        )
        try:
            yield Server(process, log)
        finally:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """End a process and its workers."""
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(LIMIT_S / 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition holds.

    Raises:
        TimeoutError: it did not hold within `LIMIT_S`.
    """
    until = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.01)


def metric(url: str, name: str) -> float:
    """Return the sum of a metric over all its labels."""
    with urllib.request.urlopen(url, timeout=LIMIT_S) as reply:
        text = reply.read().decode()
    values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M)
    return sum(map(float, values))


def _status_kib(pid: int, field: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
        return int(found[1]) if found else 0
    return 0


def settled(read: Callable[[], int], baseline: int, what: str) -> int:
    """Wait until a count is back at its baseline; return the count, at most `LIMIT_S` later."""
    with suppress(TimeoutError):
        wait_until(lambda: read() <= baseline, what)
    return read()


def row(group: str, fault: str, required: str, is_met: bool, measured: str, **figures: Any) -> Row:
    """Return a row of the table.

    Args:
        group: name of the experiment.
        fault: the fault that was injected.
        required: the requirement.
        is_met: whether the figures meet it.
        measured: the figures as text.
        figures: the figures.
    """
    row = {"group": group, "fault": fault, "required": required, "met": is_met}
    return row | {"measured": measured, "figures": figures}


def free_port() -> int:
    """Return a port that no process listens on, outside the range for port 0."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(max(1024, first - 12000), first)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
