"""Compare small calls in gRPC's polling thread with calls in threads (ADR 13).

Two servers differ in `--inline-calls` alone; an echo server with four threads pools nothing. They
take turns within each round. h2load (Debian's nghttp2-client) sends unary calls; then a process
sends small calls at a fixed rate beside large ones, and health checks beside saturation.

    python -m benchmarks.decisions.polling_thread_0013
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import report
from benchmarks.wire.load_tools import (
    ECHO_PATH,
    LOADS,
    RATE,
    SIZES,
    beside,
    body_of,
    echo_server,
    h2load,
    latencies,
    request,
)
from benchmarks.wire.servers import Server, pooling_server
from pooling_wire import FORWARD


def throughput(servers: dict[str, Server], rounds: int) -> list[dict[str, Any]]:
    """Return the rows of unary calls, with ratios to the echo server and to threads."""
    rows = []
    for size in SIZES:
        with body_of(size) as body:
            for load, (connections, streams) in LOADS.items():

                def measure(name: str) -> dict[str, float]:
                    path = ECHO_PATH if name == "echo" else FORWARD.path
                    address = servers[name].addresses[0]
                    return h2load(address, path, body, connections, streams)  # noqa: B023

                taken = report.interleaved(list(servers), rounds, measure)
                rows.append({"size": size, "load": load} | ratios(taken))
                print(rows[-1]["size"], load, rows[-1]["calls_per_s"], flush=True)
    return rows


def ratios(taken: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the spreads of each server, and of the ratios within each round."""
    rates = {name: [each["calls_per_s"] for each in rounds] for name, rounds in taken.items()}
    pairs = (("inline", "threads"), ("inline", "echo"), ("threads", "echo"))
    return {
        "calls_per_s": {name: report.spread(values) for name, values in rates.items()},
        "mean_ms": {
            name: report.spread(each["mean_ms"] for each in rounds)
            for name, rounds in taken.items()
        },
        "ratios": {
            f"{a} over {b}": report.spread(x / y for x, y in zip(rates[a], rates[b], strict=True))
            for a, b in pairs
        },
    }


def mixed(servers: dict[str, Server], rounds: int) -> list[dict[str, Any]]:
    """Return percentiles of small calls beside large ones, and of health checks at saturation."""
    data = request("12.5 KB")
    names = [name for name in servers if name != "echo"]
    rows = []

    def small(name: str) -> list[float]:
        address = servers[name].addresses[0]
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(FORWARD.path)
            with beside(address, "large", "large"):
                return latencies(lambda: call(data), RATE, 5)

    def health(name: str) -> list[float]:
        address = servers[name].addresses[0]
        with grpc.insecure_channel(address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            with beside(address, "saturate"):
                return latencies(lambda: check(health_pb2.HealthCheckRequest()), 50, 4)

    for what, measure in (
        ("12.5 KB calls beside two callers of 26 MB", small),
        ("health checks beside 16 saturating callers", health),
    ):
        taken = report.interleaved(names, rounds, measure)
        row: dict[str, Any] = {"what": what}
        for name, each in taken.items():
            row[name] = {
                f"p{p}_ms": report.spread(float(np.percentile(values, p)) for values in each)
                for p in (50, 99, 100)
            }
        rows.append(row)
        print(row, flush=True)

    return rows


def rate_table(result: dict[str, Any]) -> str:
    """Return the table of calls per second in ADR 13."""
    head = ["request", "load", "polling thread", "threads", "echo server"]
    head += ["over threads", "over echo server", "mean of a call, ms: polling thread", "threads"]
    lines = [
        [
            row["size"],
            row["load"],
            *(
                f"{row['calls_per_s'][name]['median']:.0f}"
                for name in ("inline", "threads", "echo")
            ),
            _ratio(row["ratios"]["inline over threads"]),
            _ratio(row["ratios"]["inline over echo"]),
            *(f"{row['mean_ms'][name]['median']:.2f}" for name in ("inline", "threads")),
        ]
        for row in result["rows"]
    ]
    return report.table(head, lines, "---:")


def beside_table(result: dict[str, Any]) -> str:
    """Return the table of calls beside other load in ADR 13."""
    head = ["calls", "percentile", "polling thread, ms", "threads, ms"]
    lines = [
        [row["what"], f"p{p}" if p < 100 else "slowest"]
        + [_ratio(row[name][f"p{p}_ms"]) for name in ("inline", "threads")]
        for row in result["beside_others"]
        for p in (50, 99, 100)
    ]
    return report.table(head, lines, "---:")


def _ratio(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    measure_all(arguments.rounds, arguments.output)


def measure_all(rounds: int, output: Path) -> None:
    """Start the servers, measure and write the result file."""
    if shutil.which("h2load") is None:
        sys.exit("h2load is not installed; it is in Debian's nghttp2-client")
    with contextlib.ExitStack() as ends:
        servers = {
            "inline": ends.enter_context(pooling_server(inline_calls=True)),
            "threads": ends.enter_context(pooling_server(inline_calls=False)),
            "echo": ends.enter_context(echo_server()),
        }
        rows = throughput(servers, rounds)
        beside_others = mixed(servers, rounds)
    command = f"python -m benchmarks.decisions.polling_thread_0013 --rounds {rounds}"
    path = report.write("polling-thread", command, rows, output, beside_others=beside_others)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
