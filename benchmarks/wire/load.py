"""Measure a server under load: calls per second, mixed load, health checks, idle clients.

The echo server has four threads, pools nothing, and replies with as many bytes. Servers take turns
within each round. Writes load.json and load.md.

    python -m benchmarks.wire.load
    python -m benchmarks.wire.load --rounds 1 --output /tmp
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import report
from benchmarks.wire import idle_cost, load_report
from benchmarks.wire.load_tools import (
    ECHO_PATH,
    RATE,
    SIZES,
    beside,
    body_of,
    echo_server,
    h2load,
    latencies,
    request,
)
from benchmarks.wire.servers import Server, pooling_server, started
from pooling_client import ForwardCall, PoolingClient, PoolSpec
from pooling_server import ServerConfig
from pooling_server.processes.process import exit_process, run
from pooling_wire import FORWARD

LOADS = {"16 on one connection": (1, 16), "16 connections": (16, 1)}
HEALTH_RATE = 50
H2LOAD_S, BESIDE_S, CALLS = 1, 4, 500
PERCENTILES = 50, 99, 99.9, 100
ITEMS, SPEC = 2000, PoolSpec("max", 3, 2, padding=1)
MIXED = ("saturate", "large", "large", "stream")

Row = dict[str, Any]


def throughput(servers: dict[str, Server], rounds: int) -> list[Row]:
    """Return the calls per second of ours and of the echo server, and their ratio."""
    rows = []
    for size, (load, (connections, streams)) in itertools.product(SIZES, LOADS.items()):
        row: Row = {"what": "throughput", "size": size, "load": load}
        if shutil.which("h2load") is None:
            rows.append(row | {"skipped": "h2load (Debian's nghttp2-client) is not installed"})
            continue
        with body_of(size) as body:

            def measure(name: str) -> float:
                path = ECHO_PATH if name == "echo" else FORWARD.path
                address = servers[name].addresses[0]
                taken = h2load(address, path, body, connections, streams, H2LOAD_S)  # noqa: B023
                return taken["calls_per_s"]

            taken = report.interleaved(["inline", "echo"], rounds, measure)
        ratios = [ours / echo for ours, echo in zip(*taken.values(), strict=True)]
        ours, echo = (report.spread(taken[name]) for name in ("inline", "echo"))
        rows.append(row | {"ours": ours, "echo": echo, "ratio": report.spread(ratios)})
        print(rows[-1], flush=True)
    return rows


def one_caller(servers: dict[str, Server], rounds: int) -> list[Row]:
    """Return the p50 of one unary caller, and its ratio to the p50 of calls in threads."""
    rows = []
    for size in SIZES:
        data = request(size)

        def measure(name: str) -> float:
            with grpc.insecure_channel(servers[name].addresses[0]) as channel:
                call = channel.unary_unary(FORWARD.path)
                report.samples(lambda: call(data), 20)  # noqa: B023
                return statistics.median(report.samples(lambda: call(data), CALLS))  # noqa: B023

        taken = report.interleaved(["inline", "threads"], rounds, measure)
        pairs = zip(taken["inline"], taken["threads"], strict=True)
        row = {"what": "one caller", "size": size}
        row |= {name: report.spread(values) for name, values in taken.items()}
        rows.append(row | {"ratio": report.spread(ours / threads for ours, threads in pairs)})
        print(rows[-1], flush=True)
    return rows


def stream_items(servers: dict[str, Server], rounds: int) -> list[Row]:
    """Return the items per second of one stream, and the ratio to a server with threads."""
    calls = [ForwardCall(np.ones((1, 3, 32, 32), np.float32), SPEC)] * ITEMS

    def measure(name: str) -> float:
        with PoolingClient(servers[name].addresses[0]) as client:
            client.forward(calls[0].input, SPEC)
            start = time.perf_counter()
            assert sum(1 for _ in client.forward_many(calls)) == ITEMS
            return ITEMS / (time.perf_counter() - start)

    taken = report.interleaved(["inline", "threads"], rounds, measure)
    pairs = zip(taken["inline"], taken["threads"], strict=True)
    row: Row = {"what": "stream items"}
    row |= {name: report.spread(values) for name, values in taken.items()}
    return [row | {"ratio": report.spread(ours / threads for ours, threads in pairs)}]


def beside_others(server: Server, rounds: int) -> list[Row]:
    """Return percentiles of small calls beside large ones, and of health checks at saturation."""
    address, data = server.addresses[0], request("12.5 KB")
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(FORWARD.path)
        check = health_pb2_grpc.HealthStub(channel).Check

        def small(*roles: str) -> list[float]:
            with beside(address, *roles):
                return latencies(lambda: call(data), RATE, BESIDE_S)

        def health() -> list[float]:
            with beside(address, "saturate"):
                return latencies(
                    lambda: check(health_pb2.HealthCheckRequest()), HEALTH_RATE, BESIDE_S
                )

        taken = {
            "12.5 KB calls beside two callers of 26 MB": [
                small("large", "large") for _ in range(rounds)
            ],
            "health checks beside 16 saturating callers": [health() for _ in range(rounds)],
        }
    rows = []
    for what, each in taken.items():
        row: Row = {"what": "beside", "calls": what}
        for p in (50, 99, 100):
            row[f"p{p}_ms"] = report.spread(float(np.percentile(values, p)) for values in each)
        rows.append(row)
        print(row, flush=True)
    return rows


def stalls() -> list[Row]:
    """Return how long the polling thread was busy with one event, beside all other load."""
    with tempfile.NamedTemporaryFile() as file:
        with started("-m", "benchmarks.wire.load", "--stalls", file.name) as server:
            address = server.addresses[0]
            with grpc.insecure_channel(address) as channel, beside(address, *MIXED):
                check = health_pb2_grpc.HealthStub(channel).Check
                latencies(lambda: check(health_pb2.HealthCheckRequest()), HEALTH_RATE, BESIDE_S)
        taken = np.loadtxt(file.name)
    rows = []
    for of, times in zip(("duration", "processor time"), taken.T, strict=True):
        row: Row = {"what": "stalls", "of": of, "events": len(taken)}
        row |= {f"p{p}_ms": round(float(np.percentile(times, p)), 3) for p in PERCENTILES}
        rows.append(row)
    return rows


def serve_timed(path: str) -> None:
    """Serve until SIGTERM; then write two times of each event of the polling thread.

    They are its duration and the processor time of the thread, in milliseconds.
    """
    from grpc import _server

    process, taken = _server._process_event_and_continue, []

    def timed(*arguments: Any) -> bool:
        start, processor = time.perf_counter(), time.thread_time()
        should_continue: bool = process(*arguments)
        processor = time.thread_time() - processor
        taken.append(((time.perf_counter() - start) * 1e3, processor * 1e3))
        return should_continue

    _server._process_event_and_continue = timed
    code = run(ServerConfig(listen="127.0.0.1:0"))
    np.savetxt(path, list(taken))
    exit_process(code)


def main() -> None:
    """Measure, print and write the result file and its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    parser.add_argument("--stalls", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stalls:
        serve_timed(arguments.stalls)
    measure_all(arguments.rounds, arguments.output)


def measure_all(rounds: int, output: Path) -> None:
    """Start the servers, measure and write the results."""
    with contextlib.ExitStack() as ends:
        servers = {
            "inline": ends.enter_context(pooling_server(inline_calls=True)),
            "threads": ends.enter_context(pooling_server(inline_calls=False)),
            "echo": ends.enter_context(echo_server()),
        }
        rows = one_caller(servers, rounds) + stream_items(servers, rounds)
        rows += throughput(servers, rounds)
        rows += beside_others(servers["inline"], rounds)
    rows += stalls() + idle_cost.rows()
    command = f"python -m benchmarks.wire.load --rounds {rounds}"
    path = report.write("load", command, rows, output, rounds=rounds)
    path.with_suffix(".md").write_text(load_report.markdown(path))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
