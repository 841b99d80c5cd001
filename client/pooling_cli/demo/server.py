"""The demo's temporary server process."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from pooling_engine import UnavailableError

# NumPy has no kernels to compile at the first start, and its results are bit-identical.
COMMAND = (
    *(sys.executable, "-m", "pooling_server"),
    *("--listen", "127.0.0.1:0", "--backend", "numpy"),
)
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0  # longer than the server's own limits for stopping


@contextmanager
def running_server(
    command: Sequence[str] = COMMAND,
    start_timeout_s: float = START_TIMEOUT_S,
    stop_timeout_s: float = STOP_TIMEOUT_S,
) -> Iterator[str]:
    """Run a server process, yield the line that it prints, and stop it.

    Args:
        command: the program and its arguments.
        start_timeout_s: seconds until a server that prints no line is killed.
        stop_timeout_s: seconds until a server that does not stop is killed.

    Raises:
        UnavailableError: the server did not start.
    """
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield _banner(process, log, start_timeout_s)
        finally:
            _stop(process, stop_timeout_s)


def address_in(banner: str) -> str:
    """Return the address in the line that a server prints.

    Raises:
        UnavailableError: the line has no address.
    """
    found = re.search(r"listening on (\S+:\d+)", banner)
    if found is None:
        raise UnavailableError(f"the demo's server printed {banner!r}, without its address")
    return found[1]


def _banner(process: subprocess.Popen[str], log: IO[str], timeout_s: float) -> str:
    assert process.stdout is not None
    guard = threading.Timer(timeout_s, process.kill)  # ends the wait for the line
    guard.start()
    try:
        banner = process.stdout.readline().strip()
    finally:
        guard.cancel()
    if banner:
        return banner
    log.seek(0)
    lines = log.read().strip().splitlines() or [f"no output within {timeout_s:g} s"]
    raise UnavailableError(f"the demo's server did not start: {lines[-1]}")


def _stop(process: subprocess.Popen[str], timeout_s: float) -> None:
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
