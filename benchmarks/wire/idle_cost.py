"""Cost of idle connections and of idle streams: memory, threads, descriptors, latency of others."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.report import samples
from benchmarks.wire.load_tools import request
from benchmarks.wire.servers import pooling_server
from pooling_client import ForwardCall, PoolSpec
from pooling_wire import FORWARD

MODULE = "benchmarks.wire.idle_cost"
CONNECTIONS, STREAMS, STREAMS_PER_CONNECTION = 10_000, 1_000, 100
CALLS = 2000
# The client's preface of HTTP/2, and an empty SETTINGS frame.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def open_connections(address: str) -> None:
    """Open idle HTTP/2 connections and hold them until standard input ends."""
    host, _, port = address.rpartition(":")
    sockets = []
    for _ in range(CONNECTIONS):
        sockets.append(socket.create_connection((host, int(port))))
        sockets[-1].sendall(PREFACE)
    for each in sockets:
        each.recv(9)  # the server's SETTINGS: the connection is established
    print("started", flush=True)
    sys.stdin.read()


def open_streams(address: str) -> None:
    """Open streams, send one item on each, and hold them until standard input ends."""
    item = FORWARD.encode_item(
        1, ForwardCall(np.ones((1, 3, 32, 32), np.float32), PoolSpec("max", 2))
    )

    async def hold() -> None:
        calls = []
        for number in range(STREAMS):
            if number % STREAMS_PER_CONNECTION == 0:
                options = [("grpc.use_local_subchannel_pool", 1)]
                channel = grpc.aio.insecure_channel(address, options=options)
            calls.append(channel.stream_stream(FORWARD.stream_path)())
            await calls[-1].write(item)
            await calls[-1].read()
        print("started", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        os._exit(0)

    asyncio.run(hold())


@contextlib.contextmanager
def held(role: str, address: str) -> Iterator[None]:
    """Run a role in a process until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, "--role", role, "--address", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        process.stdout.readline()
        yield
    finally:
        process.communicate(timeout=60)


def state(pid: int) -> dict[str, float]:
    """Return the resident memory, the threads and the open descriptors of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        "resident_mib": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024,
        "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
        "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
    }


def rows() -> list[dict[str, Any]]:
    """Return the cost of idle connections and streams, each on a fresh server."""
    found = []
    what = {"connections": CONNECTIONS, "streams": STREAMS}
    for role, count in what.items():
        with (
            pooling_server(max_in_flight=2 * STREAMS) as server,
            grpc.insecure_channel(server.addresses[0]) as channel,
        ):
            call, data = channel.unary_unary(FORWARD.path), request("12.5 KB")
            samples(lambda: call(data), CALLS)  # noqa: B023
            before = state(server.pid) | latency(call, data)
            with held(role, server.addresses[0]):
                after = state(server.pid) | latency(call, data)
        row = {"what": "idle", "of": role, "count": count}
        found.append(row | {"before": before, "with": after})
        print(found[-1], flush=True)
    return found


def latency(call: Any, data: bytes) -> dict[str, float]:
    """Return the percentiles of one caller."""
    taken = samples(lambda: call(data), CALLS)
    return {f"p{p}_ms": round(float(np.percentile(taken, p)), 3) for p in (50, 99)}


def main() -> None:
    """Play a role until standard input ends."""
    roles = {"connections": open_connections, "streams": open_streams}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=roles, required=True)
    parser.add_argument("--address", required=True)
    arguments = parser.parse_args()
    roles[arguments.role](arguments.address)


if __name__ == "__main__":
    main()
