"""Waiting for events, and free ports, on a machine that other processes use."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 50  # for an event that normally takes seconds; less than pytest's own limit of a test


def wait_until(condition: Callable[[], object], what: str = "it did not happen in time") -> None:
    """Wait until the condition holds.

    Raises:
        AssertionError: it did not hold within `LIMIT_S`; the text is `what`.
    """
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def quiet_port() -> int:
    """Return a free port outside the range that the system assigns for port 0."""
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = max(1024, given - 12000)
    while True:
        port = random.randrange(first, max(given, first + 1000))
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
