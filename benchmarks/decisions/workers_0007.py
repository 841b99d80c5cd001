"""Measure the gain of a second worker process: calls per second of a small forward call (ADR 7).

Several client processes, each with its own threads and connections, call servers with one and with
two workers in turn. Clients and servers share the cores of one machine.

    python -m benchmarks.decisions.workers_0007
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import subprocess
import sys
import threading
import time

import numpy as np

from benchmarks import report
from pooling_client import PoolingClient
from pooling_engine import PoolSpec

WORKERS = (1, 2)
CLIENTS, THREADS = 4, 4  # concurrency 16
SHAPE = (10, 16, 14, 14)  # 125 KB of float32
SPEC = PoolSpec("max", kernel=3, stride=2)


def start_server(workers: int) -> tuple[subprocess.Popen[str], str]:
    flags = ["--listen", "127.0.0.1:0", "--workers", str(workers)]
    server = subprocess.Popen(
        [sys.executable, "-m", "pooling_server", *flags], stdout=subprocess.PIPE, text=True
    )
    banner = server.stdout.readline()
    return server, re.search(r"listening on (\S+:\d+)", banner)[1]


def count_calls(target: str, seconds: float, start, counts) -> None:
    """Call in a loop once all clients are ready, and put the number of calls into `counts`."""
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    calls = [0] * THREADS
    with PoolingClient(target, connections=THREADS) as client:

        def work(thread: int) -> None:
            while time.monotonic() < end:
                client.forward(x, SPEC)
                calls[thread] += 1

        for _ in range(THREADS):
            client.forward(x, SPEC)
        start.wait(60)
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counts.put(sum(calls))


def measure(target: str, seconds: float) -> float:
    """Return the calls per second of all clients together."""
    spawn = multiprocessing.get_context("spawn")
    start, counts = spawn.Barrier(CLIENTS), spawn.Queue()
    arguments = (target, seconds, start, counts)
    clients = [spawn.Process(target=count_calls, args=arguments) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    total = sum(counts.get(timeout=60 + seconds) for _ in clients)
    for client in clients:
        client.join()
    return total / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    servers = {workers: start_server(workers) for workers in WORKERS}
    try:
        samples = {workers: [] for workers in WORKERS}
        for _ in range(options.rounds):
            for workers, (_, target) in servers.items():
                samples[workers].append(measure(target, options.seconds))
    finally:
        for server, _ in servers.values():
            server.terminate()
            server.wait(60)
    rows = [
        {"workers": workers, "calls_per_s": report.spread(rates)}
        for workers, rates in samples.items()
    ]
    ratios = [two / one for one, two in zip(samples[1], samples[2], strict=True)]
    path = report.write(
        "workers",
        "python -m benchmarks.decisions.workers_0007",
        rows,
        clients=CLIENTS,
        threads_per_client=THREADS,
        two_over_one=report.spread(ratios),
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
