"""Compare small calls over shared streams with unary calls and with a raw unary echo.

One client process calls from one caller, 16 threads or 16 asyncio tasks. Echo calls use gRPC's
client without ours. All clients take turns within each round, one caller every 20 calls. Writes
callers.json and callers.md.

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
BLOCKS, CALLS = 25, 20  # of one caller: the clients take turns after each block of calls
ECHO, UNARY, SHARED = "echo server (unary)", "ours (unary)", "ours (shared stream)"
FORWARD_MANY = "ours (forward_many)"
P50 = "p50, one thread"  # microseconds; all other loads are calls per second
GOALS = {  # load, client: limit of the ratio to the first client of the load
    (P50, SHARED): ("at most", 0.8),
    ("calls/s, 16 threads", SHARED): ("at least", 1.2),
    ("calls/s, 16 tasks", SHARED): ("at least", 1.2),
    ("calls/s, many tensors", FORWARD_MANY): ("at least", 4.0),
}
INTRODUCTION = """\
Each ratio relates a client to the first one of its load, within a round: median (smallest-largest).
`p50` is the duration of one call; the other loads are calls per second.
"""
Call = Callable[[], Any]
AsyncCall = Callable[[], Awaitable[Any]]
Row = dict[str, Any]


def p50_us(calls: dict[str, Call]) -> dict[str, float]:
    """Return the median microseconds of calls in a row, by client."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(BLOCKS):
        for name, call in calls.items():
            call()
            taken[name] += report.samples(call, CALLS)
    return {name: statistics.median(each) * 1e3 for name, each in taken.items()}


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

        p50s = [p50_us(calls) for _ in range(rounds)]
        tensors = report.interleaved(
            [UNARY, FORWARD_MANY],
            rounds,
            lambda name: (
                many() if name == FORWARD_MANY else 1e6 / p50_us({UNARY: calls[UNARY]})[UNARY]
            ),
        )
        return {
            P50: {name: [each[name] for each in p50s] for name in calls},
            "calls/s, 16 threads": report.interleaved(
                list(calls), rounds, lambda name: of_threads(calls[name])
            ),
            "calls/s, many tensors": tensors,
        }


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
            has_goal = client != FORWARD_MANY or payload == "12.5 KB"  # larger ones share nothing
            ratios = [value / first for value, first in zip(values, base, strict=True)]
            rows.append(
                {
                    "payload": payload,
                    "load": load,
                    "client": client,
                    "rounds": [round(value, 1) for value in values],
                    "relative": report.spread(ratios),
                    "goal": GOALS.get((load, client)) if has_goal else None,
                }
            )
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    return report.table(
        ["load", "client", "requests", "measured", "ratio", "goal", "verdict"],
        [
            [
                row["load"],
                row["client"],
                row["payload"],
                f"{statistics.median(row['rounds']):.0f}" + (" µs" if row["load"] == P50 else ""),
                report.cell(row["relative"]),
                *_verdict(row),
            ]
            for row in rows
        ],
        "---:",
    )


def _verdict(row: Row) -> list[str]:
    if row["goal"] is None:
        return ["—", "—"]
    bound, limit = row["goal"]
    median = row["relative"]["median"]
    is_met = median <= limit if bound == "at most" else median >= limit
    return [f"{bound} {limit}", "met" if is_met else "**missed**"]


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
    text = table(rows)
    print(text)
    command = f"python -m benchmarks.wire.callers --rounds {arguments.rounds}"
    path = report.write("callers", command, rows, arguments.output, rounds=arguments.rounds)
    head = f"# Small calls of several kinds of callers\n\nWritten by `{command}`.\n{INTRODUCTION}\n"
    path.with_suffix(".md").write_text(head + text)


if __name__ == "__main__":
    main()
