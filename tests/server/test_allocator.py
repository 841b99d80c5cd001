"""A server's messages come in memory that it has had before: it asks the system for none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pooling_client import PoolingClient
from pooling_engine import PoolSpec

SHAPE = (8, 64, 112, 112)  # 26 MB of float32, 6272 pages
GLIBC = {"MALLOC_ARENA_TEST": "8"}  # its default, said aloud: the server keeps its hands off


def pages_cleared(pid: int) -> int:
    """How many pages the system has given to a process so far."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.parametrize(("env", "is_kept"), [({}, True), (GLIBC, False)], ids=["ours", "glibc's"])
def test_freed_memory_is_used_again(env: dict[str, str], is_kept: bool) -> None:
    command = [sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(
        [*command, "--backend", "numpy", "--no-warm-up"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )
    assert server.stdout is not None
    address = re.search(r"listening on (\S+),", server.stdout.readline())
    assert address is not None
    fresh: list[int] = []
    with PoolingClient(address[1]) as client:
        for _ in range(4):
            before = pages_cleared(server.pid)
            for _ in range(3):
                client.forward(np.ones(SHAPE, np.float32), PoolSpec("max", 2))
            fresh.append((pages_cleared(server.pid) - before) // 3)
    server.terminate()
    server.communicate(timeout=20)
    assert (min(fresh) < 1500) is is_kept, fresh
