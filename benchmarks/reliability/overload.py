"""Offered load of one, two and three times the capacity of a server.

Calls are sent at random moments, without retries, whatever the server answers. Each call takes a
compute slot for some milliseconds, so that the sender is not the bottleneck.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.reliability.load import percentile
from benchmarks.reliability.serving import LIMIT_S, Row, row, serving
from pooling_client import ForwardCall, PoolSpec
from pooling_wire import FORWARD

X = np.ones((1, 4, 160, 160), np.float16)  # 205 KB
SPEC = PoolSpec("lp", kernel=25, norm_p=2.5, stride=1, padding=12)
REQUEST = FORWARD.encode_request(ForwardCall(X, SPEC))
FLAGS = ("--threads", "1", "--max-in-flight", "16")
REQUIRED = (
    "goodput at 3x at least 90 % of the peak; p99 of admitted calls at 3x at most three times that "
    "at 1x; flat memory; health within 100 ms"
)


class Offered(NamedTuple):
    """Outcome of calls at a constant rate.

    Attributes:
        goodput: answered calls per second.
        admitted_ms: time of each answered call.
        rejected: calls with RESOURCE_EXHAUSTED.
        other: other failures, by status and text.
    """

    goodput: float
    admitted_ms: list[float]
    rejected: int
    other: Counter[str]


def offered(call: Any, rate: float, seconds: float) -> Offered:
    """Send calls at random moments (Poisson) of a rate, without waiting for replies."""
    admitted, rejected = [], 0
    other: Counter[str] = Counter()
    lock, pending = threading.Lock(), threading.Semaphore(0)

    def done(sent: float, future: Any) -> None:
        nonlocal rejected
        took, code = (time.perf_counter() - sent) * 1e3, future.code()
        with lock:
            if code is grpc.StatusCode.OK:
                admitted.append(took)
            elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                rejected += 1
            else:
                other[f"{code.name}: {future.details()}"[:120]] += 1
        pending.release()

    start, count = time.perf_counter(), int(rate * seconds)
    for due in start + np.cumsum(np.random.default_rng(5).exponential(1 / rate, count)):
        time.sleep(max(0.0, due - time.perf_counter()))
        sent = time.perf_counter()
        future = call.future(REQUEST, timeout=LIMIT_S)
        future.add_done_callback(lambda future, sent=sent: done(sent, future))
    for _ in range(count):
        pending.acquire(timeout=LIMIT_S)
    return Offered(len(admitted) / (time.perf_counter() - start), admitted, rejected, other)


def capacity(call: Any, seconds: float) -> float:
    """Return the calls per second of four callers that wait for their replies."""
    until = time.perf_counter() + seconds

    def calls(_: int) -> int:
        count = 0
        while time.perf_counter() < until:
            call(REQUEST, timeout=LIMIT_S)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(calls, range(4))) / seconds


@contextmanager
def health_checks(address: str) -> Iterator[list[float]]:
    """Check health twenty times a second meanwhile; yield the list of milliseconds."""
    taken: list[float] = []
    over = threading.Event()

    def checks() -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
            while not over.wait(0.05):
                begin = time.perf_counter()
                reply = check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
                taken.append((time.perf_counter() - begin) * 1e3)

    thread = threading.Thread(target=checks)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


def offered_load(seconds: float = 6.0) -> list[Row]:
    """Measure goodput, latency, memory and health at 1x, 2x and 3x of the capacity."""
    with serving(*FLAGS) as server, grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(FORWARD.path)
        call(REQUEST, wait_for_ready=True, timeout=LIMIT_S)
        most = capacity(call, min(seconds, 4.0))
        loads: dict[int, Offered] = {}
        memory = []
        with health_checks(server.address) as health_ms:
            for factor in (1, 2, 3, 3):
                loads[factor] = offered(call, factor * most, seconds)
                memory.append(server.memory_bytes())
    peak = max(load.goodput for load in loads.values())
    share = loads[3].goodput / peak
    p99 = {factor: percentile(load.admitted_ms, 99) for factor, load in loads.items()}
    ratio = p99[3] / p99[1] if p99[1] else 0.0
    other = sum((load.other for load in loads.values()), Counter())
    health_p99 = percentile(health_ms, 99)
    growth = (memory[-1] - memory[-2]) / 1e6
    is_met = share >= 0.9 and ratio <= 3 and health_p99 <= 100 and growth < 8 and not other
    measured = (
        f"goodput at 3x {share:.0%} of the peak ({peak:.0f} calls/s); p99 "
        f"{' / '.join(f'{p99[factor]:.0f}' for factor in p99)} ms at 1x / 2x / 3x; memory "
        f"{growth:+.1f} MB in {seconds:g} s at 3x; health p99 {health_p99:.0f} ms, "
        f"at most {max(health_ms, default=0):.0f} ms; {other.total()} other failures"
    )
    figures = {
        "capacity": round(most, 1),
        "goodput": {factor: round(load.goodput, 1) for factor, load in loads.items()},
        "rejected": {factor: load.rejected for factor, load in loads.items()},
        "p99_ms": p99,
        "health_p99_ms": health_p99,
        "memory_growth_mb": round(growth, 2),
        "other": dict(other),
    }
    fault = "offered load of 1x, 2x, 3x of the capacity"
    return [row("overload", fault, REQUIRED, is_met, measured, **figures)]
