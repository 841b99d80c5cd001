"""Compare small calls over shared streams with unary calls and with a raw unary echo.

One client process calls from one caller, 16 threads or 16 asyncio tasks. Echo calls use gRPC's
client without ours. All clients take turns within each round. Writes callers.json.

    python -m benchmarks.wire.callers
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks import report
from benchmarks.wire.servers import other_server, pooling_server
from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient, PoolSpec
from pooling_client._connection import CHANNEL_OPTIONS

SHAPES = {"12.5 KB": (1, 16, 14, 14), "125 KB": (1, 10, 56, 56)}
SPEC = PoolSpec("max", 3, 2, padding=1)
CALLERS, SECONDS, MANY = 16, 0.4, 500
ECHO, UNARY, SHARED = "echo server (unary)", "ours (unary)", "ours (shared stream)"
FORWARD_MANY = "ours (forward_many)"
GOALS = {"p50, one thread": 0.8, "calls/s, 16 threads": 1.2, "calls/s, 16 tasks": 1.2}
Call = Callable[[], Any]
AsyncCall = Callable[[], Awaitable[Any]]
Row = dict[str, Any]


def p50_us(call: Call) -> float:
    """Return the median microseconds of calls in a row."""
    taken, end = [], time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        call()
        taken.append((time.perf_counter() - start) * 1e6)
    return statistics.median(taken)


def of_threads(call: Call) -> float:
    """Return the calls per second of many threads."""
    end = time.perf_counter() + SECONDS
    counts: list[int] = []

    def work() -> None:
        count = 0
        while time.perf_counter() < end:
            call()
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(CALLERS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


async def of_tasks(call: AsyncCall, count: int) -> float:
    """Return the calls per second of `count` tasks."""
    start = time.perf_counter()
    calls = 0

    async def work() -> None:
        nonlocal calls
        while time.perf_counter() < start + SECONDS:
            await call()
            calls += 1

    await asyncio.gather(*(work() for _ in range(count)))
    return calls / (time.perf_counter() - start)


def measure_threads(x: Any, ours: str, other: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the figures of each round, by load and client."""
    with (
        PoolingClient(ours, shared_streams=False) as unary,
        PoolingClient(ours) as shared,
        grpc.insecure_channel(other, options=CHANNEL_OPTIONS) as channel,
    ):
        request, echo = echo_request(x, unary), channel.unary_unary("/bench/Echo")
        calls: dict[str, Call] = {
            ECHO: lambda: echo(request, timeout=60),
            UNARY: lambda: unary.forward(x, SPEC),
            SHARED: lambda: shared.forward(x, SPEC),
        }

        def many() -> float:
            start = time.perf_counter()
            for _ in shared.forward_many(ForwardCall(x, SPEC) for _ in range(MANY)):
                pass
            return MANY / (time.perf_counter() - start)

        names, figures = list(calls), {}
        for load, measure in (("p50, one thread", p50_us), ("calls/s, 16 threads", of_threads)):
            taken = report.interleaved(names, rounds, lambda name, m=measure: m(calls[name]))
            figures[load] = taken
        unary_s = [1e6 / p50 for p50 in figures["p50, one thread"][UNARY]]
        figures["calls/s, many tensors"] = {
            UNARY: unary_s,
            FORWARD_MANY: [many() for _ in range(rounds)],
        }
        return figures


async def measure_tasks(x: Any, ours: str, other: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the figures of each round, by load and client."""
    async with (
        AsyncPoolingClient(ours, shared_streams=False) as unary,
        AsyncPoolingClient(ours) as shared,
        grpc.aio.insecure_channel(other, options=CHANNEL_OPTIONS) as channel,
    ):
        with PoolingClient(ours) as client:
            request = echo_request(x, client)
        echo: Any = channel.unary_unary("/bench/Echo")
        calls: dict[str, AsyncCall] = {
            ECHO: lambda: echo(request, timeout=60),
            UNARY: lambda: unary.forward(x, SPEC),
            SHARED: lambda: shared.forward(x, SPEC),
        }
        figures: dict[str, dict[str, Any]] = {}
        for load, count in (("calls/s, one task", 1), ("calls/s, 16 tasks", CALLERS)):
            taken: dict[str, list[float]] = {name: [] for name in calls}
            for round_ in range(rounds):
                for name in list(calls) if round_ % 2 else reversed(list(calls)):
                    taken[name].append(await of_tasks(calls[name], count))
            figures[load] = taken
        return figures


def echo_request(x: Any, client: PoolingClient) -> bytes:
    """Return an echo request of the size of ours, for a reply of the size of ours."""
    reply_bytes = client.forward(x, SPEC).output.nbytes + 40
    return reply_bytes.to_bytes(8, "little") + bytes(x.nbytes + 32)


def rows_of(payload: str, figures: dict[str, dict[str, Any]]) -> list[Row]:
    """Return a row for each load and client, with ratios to the first client in each round."""
    rows = []
    for load, taken in figures.items():
        base = next(iter(taken.values()))
        for client, values in taken.items():
            ratios = [value / first for value, first in zip(values, base, strict=True)]
            rows.append(
                {
                    "payload": payload,
                    "load": load,
                    "client": client,
                    "rounds": [round(value, 1) for value in values],
                    "relative": report.spread(ratios),
                    "goal": GOALS.get(load) if client == SHARED else None,
                }
            )
    return rows


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    rows: list[Row] = []
    with pooling_server() as ours, other_server("grpc") as other:
        with PoolingClient(ours.addresses[0]) as client:
            while "numba" not in {backend.name for backend in client.info().backends}:
                time.sleep(0.1)
        addresses = ours.addresses[0], other.addresses[0]
        for payload, shape in SHAPES.items():
            x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            figures = measure_threads(x, *addresses, arguments.rounds)
            figures |= asyncio.run(measure_tasks(x, *addresses, arguments.rounds))
            rows += rows_of(payload, figures)
    for row in rows:
        relative = "{median:.2f} ({min:.2f} to {max:.2f})".format(**row["relative"])
        median = statistics.median(row["rounds"])
        print(row["payload"], row["load"], row["client"], round(median), relative, sep=" | ")
    command = f"python -m benchmarks.wire.callers --rounds {arguments.rounds}"
    report.write("callers", command, rows, arguments.output, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
