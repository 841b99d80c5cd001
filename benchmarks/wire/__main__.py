"""The service against raw echoes, Arrow Flight, textbook gRPC and the engine in process.

Servers are processes of their own on loopback; one client process takes turns between the ways.
Writes wire.json, wire.md, wire-throughput.png and wire-latency.png.

    python -m benchmarks.wire
    python -m benchmarks.wire --quick --output /tmp
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import shlex
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.report import samples, turns
from benchmarks.wire import memory as wire_memory
from benchmarks.wire import plot as wire_plot
from benchmarks.wire import report as wire_report
from benchmarks.wire import servers as wire_servers
from benchmarks.wire import suite
from benchmarks.wire import ways as wire_ways
from benchmarks.wire.suite import Payload
from benchmarks.wire.ways import Connections, Way
from pooling_client import ForwardCall

Row = dict[str, Any]
NAME = "wire"
LONGEST_S = 7 * 60 + 50  # then it ends, whatever is left
POOLING = {*suite.WAYS} - {suite.ECHO, suite.ECHO_STREAM, suite.FLIGHT}
LOADED = {*suite.WAYS} - {suite.ECHO_STREAM, suite.STREAM, suite.LOCAL}


def check(ways: dict[str, Way]) -> None:
    """Calls each way twice; ends the run where one that pools gives other bits."""
    expected = ways[suite.LOCAL]()
    for name, way in ways.items():
        for _ in range(2):
            answer = way()
            if name in POOLING and not np.array_equal(answer, expected):
                sys.exit(f"{name} does not give what the local engine gives")


def one_call_rows(payload: Payload, at: Connections, rounds: int) -> list[Row]:
    """Latency and throughput of every way that can carry the payload, and of bare copies."""
    ways = wire_ways.ways(payload, at)
    check(ways)
    bare = wire_ways.copies(payload) if payload is suite.LAYER else {}
    every = ways | bare
    taken = turns(list(every), rounds, lambda name: samples(every[name], payload.calls))
    about = {"request_bytes": payload.request_bytes, "reply_bytes": payload.reply_bytes}
    rows = []
    for name, of_rounds in taken.items():
        p50s = [statistics.median(each) for each in of_rounds]
        row = {"what": "copy" if name in bare else "one call", "group": payload.name, "way": name}
        row |= {**about, "rounds": rounded(p50s)}
        if name in ways:
            row["p99_ms"] = round(float(np.percentile(np.concatenate(of_rounds), 99)), 4)
            moved = payload.request_bytes + payload.reply_bytes
            row["gb_per_s"] = round(moved / statistics.median(p50s) / 1e6, 5)
        rows.append(row)
        print(f"{payload.name:>7} {name:36} {statistics.median(p50s):10.3f} ms", flush=True)
    return rows


def load(ways: list[Way], seconds: float) -> tuple[float, list[float]]:
    """Calls per second of threads that each call one way, and milliseconds of each call."""
    taken: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + seconds

    def work(way: Way, own: list[float]) -> None:
        while time.perf_counter() < end:
            own += samples(way, 1)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(ways, taken, strict=True)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    every = [each for own in taken for each in own]
    return len(every) / elapsed, every


def load_rows(payload: Payload, at: Connections, rounds: int, seconds: float) -> list[Row]:
    """Calls per second at each concurrency; every thread has tensors of its own."""
    sets = [wire_ways.ways(payload, at) for _ in range(max(suite.CONCURRENCIES))]
    names = [name for name in sets[0] if name in LOADED]
    rows = []
    for concurrency in suite.CONCURRENCIES:
        taken = turns(
            names,
            rounds,
            lambda name, own=sets[:concurrency]: load([ways[name] for ways in own], seconds),
        )
        for name, of_rounds in taken.items():
            rates = [rate for rate, _ in of_rounds]
            every = np.concatenate([calls for _, calls in of_rounds])
            row = {"what": "load", "group": f"{payload.name} at {concurrency}", "way": name}
            row |= {"payload": payload.name, "concurrency": concurrency}
            row |= {"rounds": rounded(rates), "calls_per_s": round(statistics.median(rates), 1)}
            row |= {f"p{p}_ms": round(float(np.percentile(every, p)), 4) for p in (50, 99)}
            rows.append(row)
            print(f"{row['group']:>12} {name:36} {row['calls_per_s']:8} calls/s", flush=True)
    return rows


def many_rows(at: Connections, rounds: int) -> list[Row]:
    """Many small tensors, one after the other: call by call, or through one stream."""
    payload, x = suite.SMALL, suite.SMALL.tensor()
    single = wire_ways.ours(payload, x, at.ours, wire_ways.NEVER)

    def unary() -> None:
        for _ in range(suite.MANY):
            single()

    def stream() -> None:
        calls = (ForwardCall(x, payload.spec) for _ in range(suite.MANY))
        for _ in at.ours.forward_many(calls, timeout=wire_ways.TIMEOUT_S):
            pass

    ways = {suite.UNARY: unary, suite.MANY_STREAM: stream}
    ways[suite.MANY_ECHO] = wire_ways.echo_many(payload, at.raw)
    for way in ways.values():
        way()
    taken = turns(list(ways), rounds, lambda name: suite.MANY * 1e3 / samples(ways[name], 1)[0])
    for name, rates in taken.items():
        print(f"{'many':>12} {name:36} {statistics.median(rates):8.0f} calls/s", flush=True)
    return [
        {"what": "many", "group": "many", "way": name, "rounds": rounded(rates)}
        for name, rates in taken.items()
    ]


def rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def measured(rounds: int, seconds: float) -> list[Row]:
    with contextlib.ExitStack() as stack:
        pooling = stack.enter_context(wire_servers.pooling_server())
        others = stack.enter_context(wire_servers.other_server("grpc"))
        flight = None
        if wire_ways.has_flight():
            flight = stack.enter_context(wire_servers.other_server("flight"))
        at = wire_ways.connect(pooling, others, flight)
        stack.callback(wire_ways.close, at)
        rows = []
        for payload in suite.PAYLOADS:
            rows += one_call_rows(payload, at, rounds)
            gc.collect()
        for payload in (suite.SMALL, suite.SEED):
            rows += load_rows(payload, at, rounds, seconds)
        rows += many_rows(at, rounds)
    return rows


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="a folder")
    return parser.parse_args()


def stop(number: int, _: object) -> None:
    sys.exit(f"ended by {signal.Signals(number).name}")


def main() -> None:
    arguments, load_before = parsed(), round(os.getloadavg()[0], 2)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_S)
    rounds, seconds = (2, 0.1) if arguments.quick else (arguments.rounds, 0.4)
    start = time.monotonic()
    rows = wire_memory.rows(1 if arguments.quick else 3)
    rows += measured(rounds, seconds)
    command = shlex.join(["python", "-m", "benchmarks.wire", *sys.argv[1:]])
    about = {"rounds": rounds, "quick": arguments.quick, "load_before": load_before}
    about["seconds"] = round(time.monotonic() - start)
    path = report.write(NAME, command, rows, arguments.output, **about)
    path.with_suffix(".md").write_text(wire_report.markdown(path))
    wire_plot.draw_throughput(rows, path.with_name(f"{NAME}-throughput.png"))
    wire_plot.draw_latency(rows, path.with_name(f"{NAME}-latency.png"))
    print(f"wrote {path} and, beside it, .md and two .png, after {about['seconds']} s")


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
