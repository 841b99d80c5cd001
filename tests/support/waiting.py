"""What tests need so as not to depend on how busy a machine is, and on what else runs there."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 600  # for what takes seconds, a compilation too, on a machine that has time


def wait_until(condition: Callable[[], object], what: str = "it did not happen in time") -> None:
    """Waits until the condition holds.

    Raises:
        AssertionError: it does not, for `LIMIT_S`; with the text `what`.
    """
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def quiet_port() -> int:
    """A port that is free, and stays so: the system gives it to nobody who asks for any port."""
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = max(1024, given - 12000)
    while True:
        port = random.randrange(first, max(given, first + 1000))
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
