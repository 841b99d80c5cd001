"""Bare loops of a client, without a schedule, columns or checks.

They print calls/s and the processor time per call in microseconds.

    python -m benchmarks.loadtest.bare futures ADDRESS 1,16,14,14 16 2
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import grpc
import numpy as np

from pooling_client import ForwardCall, PoolingClient, PoolSpec
from pooling_wire import FORWARD

SPEC = PoolSpec("max", 3, 2, padding=1)


def futures(address: str, call: ForwardCall, callers: int, seconds: float) -> int:
    """Return the number of calls of gRPC's futures: each reply starts the next call."""
    request, over, count = FORWARD.encode_request(call), threading.Semaphore(0), 0
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(FORWARD.path)
        end = time.perf_counter() + seconds

        def done(_: Any) -> None:
            nonlocal count
            count += 1
            if time.perf_counter() < end:
                method.future(request, timeout=30).add_done_callback(done)
            else:
                over.release()

        for _ in range(callers):
            method.future(request, timeout=30).add_done_callback(done)
        for _ in range(callers):
            over.acquire()
        return count


def client(address: str, call: ForwardCall, callers: int, seconds: float) -> int:
    """Return the number of calls of threads that call our client."""
    counts: list[int] = []
    with PoolingClient(address, shared_streams=False) as pooling:
        start = time.perf_counter()

        def work() -> None:
            count = 0
            while time.perf_counter() < start + seconds:
                pooling.forward(call.input, SPEC)
                count += 1
            counts.append(count)

        threads = [threading.Thread(target=work) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts)


def main() -> None:
    """Measure one loop after a short warm-up."""
    kind, address, shape, callers, seconds = sys.argv[1:]
    x = np.random.default_rng(0).standard_normal(tuple(map(int, shape.split(","))), np.float32)
    loop = {"futures": futures, "client": client}[kind]
    loop(address, ForwardCall(x, SPEC), int(callers), 0.2)
    cpu, start = time.process_time(), time.perf_counter()
    calls = loop(address, ForwardCall(x, SPEC), int(callers), float(seconds))
    took_s, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(calls / took_s, cpu / calls * 1e6)


if __name__ == "__main__":
    main()
