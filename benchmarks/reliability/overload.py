"""Offered load of one, two and three times the capacity of a server.

The server has one core, and the senders another. Calls are sent at random moments, without
retries, whatever the server answers. The loads alternate, and medians of the rounds count.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.reliability.load import percentile
from benchmarks.reliability.sending import Sent, sending
from benchmarks.reliability.serving import LIMIT_S, Row, row, serving
from pooling_client import ForwardCall, PoolSpec
from pooling_wire import FORWARD

_LARGE = np.ones((1, 4, 160, 160), np.float16)
_SMALL = np.ones((1, 8, 20, 20), np.float32)
CALLS = {
    "205 KB, computed in a thread": ForwardCall(
        _LARGE, PoolSpec("lp", kernel=25, norm_p=2.5, stride=1, padding=12)
    ),
    "12.8 KB, computed in a thread": ForwardCall(
        _SMALL, PoolSpec("lp", kernel=11, norm_p=2.5, stride=1, padding=5)
    ),
    "12.8 KB, computed in the polling thread": ForwardCall(
        _SMALL, PoolSpec("max", kernel=3, stride=2, padding=1)
    ),
}
FACTORS = (1, 2, 3)
IN_FLIGHT = 24  # in the measurement of the capacity; fewer than the limit of the server
CANCELLED = "1"  # gRPC has more calls than it keeps for the server
REQUIRED = (
    "goodput at 3x at least 90 % of the peak; p99 of admitted calls at 3x at most three times that "
    "at 1x; flat memory; health within 100 ms"
)


@contextmanager
def separate_cores() -> Iterator[tuple[str, ...]]:
    """Move this process to the first core; yield the command that gives a server the last one."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    try:
        yield ("taskset", "-c", str(cores[-1]))
    finally:
        os.sched_setaffinity(0, cores)


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


def offered_load(
    seconds: float = 1.5, rounds: int = 3, names: tuple[str, ...] = tuple(CALLS)
) -> list[Row]:
    """Measure goodput, latency, memory and health at 1x, 2x and 3x of the capacity."""
    return [_offered(name, seconds, rounds) for name in names]


def _offered(name: str, seconds: float, rounds: int) -> Row:
    with separate_cores() as prefix, tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request"
        request.write_bytes(FORWARD.encode_request(CALLS[name]))
        with serving("--threads", "1", prefix=prefix) as server:
            sending(server.address, request, 0, 0.3, in_flight=IN_FLIGHT)
            loads: dict[int, list[Sent]] = {factor: [] for factor in (0, *FACTORS)}
            memory: list[int] = []
            with health_checks(server.address) as health_ms:
                for _ in range(rounds):
                    closed = sending(server.address, request, 0, seconds, in_flight=IN_FLIGHT)
                    loads[0].append(closed)
                    for factor in FACTORS:
                        rate = factor * closed.goodput
                        loads[factor].append(sending(server.address, request, rate, seconds))
                    memory.append(server.memory_bytes())
    return _row(name, loads, memory, health_ms)


def _row(name: str, loads: dict[int, list[Sent]], memory: list[int], health_ms: list[float]) -> Row:
    """Return the row; `loads[0]` are the measurements of the capacity, one a round."""
    peaks = [max(each.goodput for each in turn) for turn in zip(*loads.values(), strict=True)]
    shares = [each.goodput / peak for each, peak in zip(loads[3], peaks, strict=True)]
    share, peak = statistics.median(shares), statistics.median(peaks)
    p99 = {f: statistics.median(percentile(e.answered_ms, 99) for e in loads[f]) for f in FACTORS}
    other: Counter[str] = Counter()
    for each in (each for sents in loads.values() for each in sents):
        other.update(each.other)
    cancelled = other.pop(CANCELLED, 0)
    rejected = sum(len(each.rejected_ms) for sents in loads.values() for each in sents)
    growth = (memory[-1] - memory[0]) / 1e6
    health_p99 = percentile(health_ms, 99)
    is_met = (
        share >= 0.9 and p99[3] <= 3 * p99[1] and health_p99 <= 100 and growth < 8 and not other
    )
    measured = (
        f"goodput at 3x {share:.0%} of the peak ({min(shares):.0%} to {max(shares):.0%}; "
        f"{peak:,.0f} calls/s); p99 "
        f"{' / '.join(f'{p99[factor]:.0f}' for factor in FACTORS)} ms at 1x / 2x / 3x; memory "
        f"{growth:+.1f} MB from the first to the last round at 3x; health p99 {health_p99:.0f} ms, "
        f"at most {max(health_ms, default=0):.0f} ms; {rejected:,} rejected, {cancelled:,} "
        f"cancelled by gRPC, {other.total()} other failures"
    )
    figures = {
        "goodput": {f: [round(each.goodput, 1) for each in loads[f]] for f in loads},
        "p99_ms": {f: [percentile(each.answered_ms, 99) for each in loads[f]] for f in FACTORS},
        "rejected": {f: sum(len(each.rejected_ms) for each in loads[f]) for f in FACTORS},
        "most_late_ms": {f: max(round(e.most_late_ms, 1) for e in loads[f]) for f in FACTORS},
        "sender_share": {f: max(round(e.sender_share, 2) for e in loads[f]) for f in FACTORS},
        "cancelled": cancelled,
        "health_p99_ms": health_p99,
        "memory_growth_mb": round(growth, 2),
        "other": dict(other),
    }
    fault = f"offered load of 1x, 2x, 3x of the capacity: {name}"
    return row("overload", fault, REQUIRED, is_met, measured, **figures)
