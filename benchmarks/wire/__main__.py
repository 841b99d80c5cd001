"""Measure the service beside echo servers, Arrow Flight, a naive gRPC service and the engine.

Servers are separate processes on loopback; one client process alternates between the transports.
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
from benchmarks.report import interleaved, samples
from benchmarks.wire import memory as wire_memory
from benchmarks.wire import report as wire_report
from benchmarks.wire import servers as wire_servers
from benchmarks.wire import suite, transports
from benchmarks.wire.suite import Payload
from benchmarks.wire.transports import Call, Connections

Row = dict[str, Any]
NAME = "wire"
LONGEST_S = 7 * 60 + 50  # the run ends then, finished or not
POOLING = {*suite.TRANSPORTS} - {suite.ECHO, suite.ECHO_STREAM, suite.FLIGHT}
LOADED = {*suite.TRANSPORTS} - {suite.ECHO_STREAM, suite.STREAM, suite.LOCAL}


def check(calls: dict[str, Call]) -> None:
    """Call each transport twice; end the run if a pooled result differs from the engine's."""
    expected = calls[suite.LOCAL]()
    for name, call in calls.items():
        for _ in range(2):
            answer = call()
            if name in POOLING and not np.array_equal(answer, expected):
                sys.exit(f"{name}: the result differs from that of the engine in process")


def one_call_rows(payload: Payload, at: Connections, rounds: int) -> list[Row]:
    """Measure latency and throughput of all transports for one payload, and of plain copies."""
    calls = transports.calls_for(payload, at)
    check(calls)
    copies = transports.copies(payload) if payload is suite.LAYER else {}
    every = calls | copies
    taken = interleaved(list(every), rounds, lambda name: samples(every[name], payload.calls))
    about = {"request_bytes": payload.request_bytes, "reply_bytes": payload.reply_bytes}
    rows = []
    for name, of_rounds in taken.items():
        p50s = [statistics.median(each) for each in of_rounds]
        row = {"what": "copy" if name in copies else "one call", "group": payload.name}
        row |= {"transport": name, **about, "rounds": rounded(p50s)}
        if name in calls:
            row["p99_ms"] = round(float(np.percentile(np.concatenate(of_rounds), 99)), 4)
            moved = payload.request_bytes + payload.reply_bytes
            row["gb_per_s"] = round(moved / statistics.median(p50s) / 1e6, 5)
        rows.append(row)
        print(f"{payload.name:>7} {name:36} {statistics.median(p50s):10.3f} ms", flush=True)
    return rows


def load(calls: list[Call], seconds: float) -> tuple[float, list[float]]:
    """Return the calls per second with one thread per entry, and the milliseconds of each call."""
    taken: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds

    def work(call: Call, own: list[float]) -> None:
        while time.perf_counter() < end:
            own += samples(call, 1)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(calls, taken, strict=True)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    every = [each for own in taken for each in own]
    return len(every) / elapsed, every


def load_rows(payload: Payload, at: Connections, rounds: int, seconds: float) -> list[Row]:
    """Measure calls per second at each concurrency; threads do not share tensors."""
    sets = [transports.calls_for(payload, at) for _ in range(max(suite.CONCURRENCIES))]
    names = [name for name in sets[0] if name in LOADED]
    rows = []
    for concurrency in suite.CONCURRENCIES:
        taken = interleaved(
            names,
            rounds,
            lambda name, own=sets[:concurrency]: load([calls[name] for calls in own], seconds),
        )
        for name, of_rounds in taken.items():
            rates = [rate for rate, _ in of_rounds]
            every = np.concatenate([times for _, times in of_rounds])
            row = {"what": "load", "group": f"{payload.name} at {concurrency}", "transport": name}
            row |= {"payload": payload.name, "concurrency": concurrency}
            row |= {"rounds": rounded(rates), "calls_per_s": round(statistics.median(rates), 1)}
            row |= {f"p{p}_ms": round(float(np.percentile(every, p)), 4) for p in (50, 99)}
            rows.append(row)
            print(f"{row['group']:>12} {name:36} {row['calls_per_s']:8} calls/s", flush=True)
    return rows


def rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def measured(rounds: int, seconds: float) -> list[Row]:
    with contextlib.ExitStack() as stack:
        pooling = stack.enter_context(wire_servers.pooling_server())
        others = stack.enter_context(wire_servers.other_server("grpc"))
        flight = None
        if transports.has_flight():
            flight = stack.enter_context(wire_servers.other_server("flight"))
        at = transports.connect(pooling, others, flight)
        stack.callback(transports.close, at)
        rows = []
        for payload in suite.PAYLOADS:
            rows += one_call_rows(payload, at, rounds)
            gc.collect()
        for payload in (suite.SMALL, suite.SEED):
            rows += load_rows(payload, at, rounds, seconds)
    return rows


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="two rounds, to check that the benchmark runs"
    )
    parser.add_argument(
        "--output", type=Path, default=report.RESULTS, help="folder of the result files"
    )
    return parser.parse_args()


def stop(number: int, _: object) -> None:
    sys.exit(f"stopped by {signal.Signals(number).name}")


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
    wire_report.write(path)
    print(f"wrote {path}, its .md and two .png, after {about['seconds']} s")


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
