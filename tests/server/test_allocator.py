"""The memory of freed messages is reused: the server requests no new pages from the system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from pooling_client import ForwardCall, PoolingClient
from pooling_engine import PoolSpec
from pooling_wire import FORWARD
from tests.support.waiting import LIMIT_S

SHAPE = (8, 64, 112, 112)  # 26 MB of float32, 6272 pages
CONFIGURED = {"MALLOC_ARENA_TEST": "8"}  # the default of glibc, set explicitly
LARGEST_MIB = 24
# Each block is larger than those before; by default, glibc maps such blocks from the system.
GROWING_BLOCKS = f"""
import ctypes, resource
from pooling_server.processes.allocator import tune_allocator

c = ctypes.CDLL(None)
c.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KiB on every machine
c.malloc.restype = ctypes.c_void_p
c.malloc.argtypes, c.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
is_tuned = tune_allocator()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for mib in range(4, {LARGEST_MIB} + 1):
    block = c.malloc(mib << 20)
    ctypes.memset(block, 1, mib << 20)
    c.free(block)
print(is_tuned, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_cleared(pid: int) -> int:
    """Return how many pages the system has given to a process so far."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.parametrize(
    ("env", "is_tuned", "mib"),
    [({}, True, LARGEST_MIB), (CONFIGURED, False, sum(range(4, LARGEST_MIB + 1)))],
    ids=["tuned", "configured"],
)
def test_freed_blocks_are_reused_unless_the_environment_configures_malloc(
    env: dict[str, str], is_tuned: bool, mib: int
) -> None:
    command = [sys.executable, "-c", GROWING_BLOCKS]
    tuned, pages = subprocess.check_output(command, text=True, env=os.environ | env).split()
    assert tuned == str(is_tuned)
    assert int(pages) == pytest.approx(mib * 256, abs=256)


@pytest.mark.parametrize("is_unary", [False, True], ids=["stream", "one message"])
def test_a_server_reuses_the_memory_of_freed_messages(is_unary: bool) -> None:
    command = [sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(
        [*command, "--backend", "numpy", "--no-warm-up"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    address = re.search(r"listening on (\S+),", server.stdout.readline())
    assert address is not None
    fresh: list[int] = []
    call = ForwardCall(np.ones(SHAPE, np.float32), PoolSpec("max", 2))
    request = FORWARD.encode_request(call)
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with PoolingClient(address[1]) as client, grpc.insecure_channel(address[1], limits) as channel:
        unary = channel.unary_unary(FORWARD.path)
        for _ in range(4):
            before = pages_cleared(server.pid)
            for _ in range(3):
                if is_unary:
                    unary(request)
                else:
                    client.forward(call.input, call.spec)
            fresh.append((pages_cleared(server.pid) - before) // 3)
    server.terminate()
    server.communicate(timeout=LIMIT_S)
    assert min(fresh) < 1500, fresh
