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
from tests.support.waiting import LIMIT_S

SHAPE = (8, 64, 112, 112)  # 26 MB of float32, 6272 pages
TOLD = {"MALLOC_ARENA_TEST": "8"}  # glibc's own default, said aloud
LARGEST_MIB = 24
# Each block is larger than those before: by default glibc takes such blocks from the system.
GROWING_BLOCKS = f"""
import ctypes, resource
from pooling_server.processes.allocator import keep_freed_memory

c = ctypes.CDLL(None)
c.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KiB on every machine
c.malloc.restype = ctypes.c_void_p
c.malloc.argtypes, c.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
is_kept = keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for mib in range(4, {LARGEST_MIB} + 1):
    block = c.malloc(mib << 20)
    ctypes.memset(block, 1, mib << 20)
    c.free(block)
print(is_kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_cleared(pid: int) -> int:
    """How many pages the system has given to a process so far."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.parametrize(
    ("env", "is_kept", "mib"),
    [({}, True, LARGEST_MIB), (TOLD, False, sum(range(4, LARGEST_MIB + 1)))],
    ids=["ours", "told"],
)
def test_freed_blocks_are_used_again_unless_the_environment_says_what_to_do(
    env: dict[str, str], is_kept: bool, mib: int
) -> None:
    command = [sys.executable, "-c", GROWING_BLOCKS]
    said, pages = subprocess.check_output(command, text=True, env=os.environ | env).split()
    assert said == str(is_kept)
    assert int(pages) == pytest.approx(mib * 256, abs=256)


def test_a_server_uses_the_memory_of_freed_messages_again() -> None:
    command = [sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(
        [*command, "--backend", "numpy", "--no-warm-up"], stdout=subprocess.PIPE, text=True
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
    server.communicate(timeout=LIMIT_S)
    assert min(fresh) < 1500, fresh
