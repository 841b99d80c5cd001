"""Servers as processes of their own: started, found by their first line, and ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pooling_engine.backends import available_backends

SERVE = [sys.executable, "-m", "pooling_client.cli", "serve"]


@contextmanager
def process(*flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its banner."""
    server = subprocess.Popen(
        [*SERVE, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate(timeout=60)  # its workers have its pipes, too


def address_in(banner: str) -> str:
    found = re.fullmatch(
        r"pooling \S+ listening on (\S+), computing with (\w+) \(CPU, .*\)", banner
    )
    assert found, banner
    assert found[2] in available_backends()
    return found[1]
