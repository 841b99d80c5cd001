"""A tensor much larger than the memory of the server, generated and reduced to sums.

1 GiB in `make test`; POOLING_TEST_STREAM_MIB=8192 for 8 GiB against a server below 1 GiB.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import pooling_engine
from pooling_client import ForwardCall, PoolingClient
from pooling_engine import PoolSpec
from tests.support.waiting import LIMIT_S

TOTAL_MIB = int(os.environ.get("POOLING_TEST_STREAM_MIB", "1024"))
SPEC = PoolSpec("max", kernel=3, stride=2, padding=1)
CHUNK = (1, 16, 256, 256)  # 4 MiB of float32
MIB = 1 << 20


def resident_mib(pid: int, what: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def test_the_server_holds_a_few_chunks_of_an_endless_tensor() -> None:
    base = np.random.default_rng(0).standard_normal(CHUNK, dtype=np.float32)
    expected = pooling_engine.forward(base, SPEC).output
    count = TOTAL_MIB * MIB // base.nbytes

    def chunks() -> Iterator[ForwardCall]:
        for number in range(count):
            yield ForwardCall(base * np.float32(2.0 ** (number % 8)), SPEC)

    command = [sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split("listening on ")[1].split(",")[0]
        idle = resident_mib(server.pid, "VmRSS")
        start = time.perf_counter()
        with PoolingClient(address) as client:
            for number, result in enumerate(client.forward_many(chunks())):
                sums = result.output.sum(dtype=np.float64)
                scale = 2.0 ** (number % 8)  # exact: the sum checks every bit of the output
                assert sums == (expected * np.float32(scale)).sum(dtype=np.float64)
        assert number == count - 1
        peak = resident_mib(server.pid, "VmHWM")
        took = time.perf_counter() - start
        print(f"{TOTAL_MIB} MiB in {took:.1f} s; server idle {idle:.0f}, peak {peak:.0f} MiB")
        assert peak - idle < min(TOTAL_MIB / 2, 512)
        assert peak < 1024
    finally:
        server.terminate()
        server.communicate(timeout=LIMIT_S)
