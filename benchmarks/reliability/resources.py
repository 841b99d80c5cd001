"""Full disks, and limits of descriptors.

Limits are those of the kernel (`prlimit`). A limit of zero bytes for files stands for a full disk:
every write to a file fails.
"""

from __future__ import annotations

import signal
import socket
import tempfile
from contextlib import ExitStack

import numpy as np

from benchmarks.reliability.load import ANSWERS, SMALL, SPEC, Load
from benchmarks.reliability.restarts import counts, wait_for_calls
from benchmarks.reliability.serving import LIMIT_S, Row, row, serving, settled
from pooling_client import PoolingClient

REQUIRED = "a clear refusal or a clean restart; never a wrong answer"


def resources(calls: int = 400) -> list[Row]:
    """Take away disk and descriptors, each from another server."""
    return [full_disk(calls), no_descriptors()]


def full_disk(calls: int) -> Row:
    """Serve while no file can be written: neither the log nor a cache of kernels."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"NUMBA_CACHE_DIR": folder, "POOLING_LOG_LEVEL": "info"}
        with serving(prefix=("prlimit", "--fsize=0"), environment=environment) as server:
            with Load(server.address) as load:
                wait_for_calls(load, calls)
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(LIMIT_S)
    is_met, text = counts(load)
    text = f"{text}; SIGTERM ends it with exit code {code}"
    return row(
        "resources", "full disk", REQUIRED, is_met and code == 0, text, **load.figures(), code=code
    )


def no_descriptors(limit: int = 80, connections: int = 120) -> Row:
    """Open more connections than the server has descriptors, beside an open client."""
    with (
        serving(prefix=("prlimit", f"--nofile={limit}")) as server,
        PoolingClient(server.address) as client,
    ):
        client.forward(SMALL, SPEC)
        before = server.descriptors()
        host, _, port = server.address.rpartition(":")
        right = 0
        with ExitStack() as opened:
            for _ in range(connections):
                opened.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT_S))
            for _ in range(20):
                result = client.forward(SMALL, SPEC)
                right += np.array_equal(result.output, ANSWERS["small"])
        left = settled(server.descriptors, before + 2, "descriptors stay open") - before
        with PoolingClient(server.address, timeout=LIMIT_S) as new:
            is_new_right = np.array_equal(new.forward(SMALL, SPEC).output, ANSWERS["small"])
    text = (
        f"{connections} connections to {limit} descriptors: {right} of 20 calls of an open client "
        f"right; afterwards a new client {'works' if is_new_right else 'fails'}"
    )
    is_met = right == 20 and is_new_right and left <= 2
    return row("resources", "no descriptors", REQUIRED, is_met, text, right=right, left=left)
