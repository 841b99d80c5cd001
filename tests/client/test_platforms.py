"""Calls on systems without the functions of Linux, which the tests remove before the import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pooling_server import PoolingServer, ServerConfig
from tests.support.waiting import LIMIT_S

MACOS = [
    "os.sched_getaffinity",
    "os.sched_setaffinity",
    "os.memfd_create",
    "socket.SOCK_CLOEXEC",
    "socket.SOCK_NONBLOCK",
    "mmap.MAP_POPULATE",
]
WINDOWS = [
    *MACOS,
    "os.fork",
    "os.register_at_fork",
    "socket.AF_UNIX",
    "socket.SOCK_SEQPACKET",
    "socket.recv_fds",
    "select.poll",
    "mmap.MAP_SHARED",
    "mmap.MAP_PRIVATE",
]
CALLS = """
import asyncio, concurrent.futures.thread, logging, mmap, multiprocessing.connection
import os, random, select, socket, subprocess, sys, threading
import grpc, numpy as np

for name in sys.argv[2:]:
    module, _, attribute = name.partition(".")
    if hasattr(globals()[module], attribute):
        delattr(globals()[module], attribute)

from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient, PoolSpec

x = np.ones((3, 4, 512, 512), np.float32)
spec = PoolSpec("max", 2)
with PoolingClient(sys.argv[1]) as client:
    for array in (x[:1, :1, :8, :8], x[:1, :2], x, client.empty((1, 2, 512, 512))):
        array[...] = 1
        assert client.forward(array, spec).output.mean() == 1
    assert len(list(client.forward_many([ForwardCall(x[:1], spec)] * 3))) == 3


async def call():
    async with AsyncPoolingClient(sys.argv[1]) as client:
        for array in (x[:1, :2], x):
            assert (await client.forward(array, spec)).output.mean() == 1


if hasattr(socket, "AF_UNIX"):  # this system's event loop needs it
    asyncio.run(call())
print("works")
"""


def run_without(names: list[str], target: str) -> str:
    """Return the output of calls in a process without these functions."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS, target, *names],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("names", [MACOS, WINDOWS], ids=["macOS", "Windows"])
def test_calls_over_tcp(names: list[str], server: PoolingServer) -> None:
    assert run_without(names, server.address) == "works\n"


@pytest.mark.parametrize("names", [MACOS, ["socket.SOCK_SEQPACKET"]], ids=["macOS", "no packets"])
def test_calls_over_a_unix_socket(names: list[str], tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    server = PoolingServer(ServerConfig(listen=target, backend="numpy"))
    server.start()
    try:
        assert run_without(names, target) == "works\n"
    finally:
        assert server.stop()
