"""Compare small calls in gRPC's polling thread with calls in threads (ADR 13).

Two servers differ in `--inline-calls` alone; an echo server with four threads pools nothing. They
take turns within each round. h2load (Debian's nghttp2-client) sends unary calls; then a process
sends small calls at a fixed rate beside large ones, and health checks beside saturation.

    python -m benchmarks.decisions.polling_thread_0013
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import report
from benchmarks.wire.servers import Server, pooling_server, started
from pooling_client import ForwardCall, PoolingClient, PoolSpec
from pooling_wire import FORWARD

ECHO_THREADS = 4
SIZES = {"12.5 KB": ((1, 3, 32, 32), 1), "125 KB": ((10, 16, 14, 14), 0)}
LOADS = {"1 in flight": (1, 1), "16 on one connection": (1, 16), "16 connections": (16, 1)}
LARGE, LARGE_SPEC = (32, 64, 56, 56), PoolSpec("max", 3, 2, padding=1)  # 26 MB
RATE, CALLERS = 640, 8  # small calls per second beside other load, and threads that make them
LARGE_RATE = 2  # 26 MB calls per second of each of two callers
MODULE = "benchmarks.decisions.polling_thread_0013"
WARM_UP_S, MEASURE_S = 1, 3


def request(size: str) -> bytes:
    """Return a Forward request of a size: maximum, 3x3 windows, stride 2, float32."""
    shape, padding = SIZES[size]
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return FORWARD.encode_request(ForwardCall(x, PoolSpec("max", 3, 2, padding=padding)))


@contextlib.contextmanager
def body_of(size: str) -> Iterator[Path]:
    """Write a request with gRPC's frame to a file."""
    data = request(size)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0" + struct.pack(">I", len(data)) + data)
        file.flush()
        yield Path(file.name)


def h2load(
    address: str, path: str, body: Path, connections: int, streams: int, seconds: int = MEASURE_S
) -> dict[str, float]:
    """Return the calls per second and the mean latency of a few seconds of load."""
    command = ["h2load", "-D", str(seconds), "--warm-up-time", str(WARM_UP_S)]
    command += ["-c", str(connections), "-m", str(streams), "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    done = subprocess.run([*command, f"http://{address}{path}"], capture_output=True, text=True)
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    failed = re.search(r"(\d+) failed, (\d+) errored", done.stdout)
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", done.stdout)
    if rate is None or failed is None or mean is None or failed.groups() != ("0", "0"):
        sys.exit(f"h2load failed: {done.stdout}{done.stderr}")
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[mean[2]]
    return {"calls_per_s": float(rate[1]), "mean_ms": float(mean[1]) * scale}


def throughput(servers: dict[str, Server], rounds: int) -> list[dict[str, Any]]:
    """Return the rows of unary calls, with ratios to the echo server and to threads."""
    rows = []
    for size in SIZES:
        with body_of(size) as body:
            for load, (connections, streams) in LOADS.items():

                def measure(name: str) -> dict[str, float]:
                    path = "/bench/Echo" if name == "echo" else FORWARD.path
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


@contextlib.contextmanager
def beside(address: str, *roles: str) -> Iterator[None]:
    """Run load in one process per role until the block ends."""
    with contextlib.ExitStack() as ends:
        for role in roles:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, "--role", role, "--address", address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ends.callback(process.communicate, timeout=60)  # closes its standard input
            process.stdout.readline()  # it has made its first call
        yield


def ended() -> threading.Event:
    """Return an event that is set when standard input ends."""
    event = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), event.set()), daemon=True).start()
    return event


def call_large(address: str) -> None:
    """Make 26 MB calls at a fixed rate until standard input ends."""
    end = ended()
    x = np.ones(LARGE, np.float32)
    with PoolingClient(address, timeout=60) as client:
        client.forward(x, LARGE_SPEC)
        print("started", flush=True)
        start = time.perf_counter()
        for number in itertools.count(1):
            if end.wait(max(0.0, start + number / LARGE_RATE - time.perf_counter())):
                return
            client.forward(x, LARGE_SPEC)


def saturate(address: str) -> None:
    """Send small calls over 16 connections until standard input ends."""
    end = ended()
    with body_of("12.5 KB") as body:
        h2load(address, FORWARD.path, body, 16, 1, seconds=1)
        print("started", flush=True)
        while not end.is_set():
            h2load(address, FORWARD.path, body, 16, 1, seconds=2)


def latencies(call: Callable[[], object], rate: float, seconds: float) -> list[float]:
    """Return the milliseconds of calls at a fixed rate, counted from their planned start."""
    start = time.perf_counter() + 0.2

    def one(number: int) -> float:
        planned = start + number / rate
        time.sleep(max(0.0, planned - time.perf_counter()))
        call()
        return (time.perf_counter() - planned) * 1e3

    with ThreadPoolExecutor(CALLERS) as threads:
        return list(threads.map(one, range(int(rate * seconds))))


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


def serve_echo() -> None:
    """Serve echoes whose replies have the size of a pooled output, until stdin ends."""
    reply_bytes = {len(request(size)): reply_size(size) for size in SIZES}
    replies = {size: bytes(count) for size, count in reply_bytes.items()}
    handler = grpc.unary_unary_rpc_method_handler(lambda data, _: replies[len(data)])
    server = grpc.server(ThreadPoolExecutor(ECHO_THREADS))
    handlers = grpc.method_handlers_generic_handler("bench", {"Echo": handler})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None).wait()


def reply_size(size: str) -> int:
    """Return the size of the output tensor in bytes."""
    shape, padding = SIZES[size]
    call = ForwardCall(np.zeros(shape, np.float32), PoolSpec("max", 3, 2, padding=padding))
    return call.result_specs["output"].nbytes


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
    parser.add_argument("--role", choices=("echo", "large", "saturate"), help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    if arguments.role == "echo":
        serve_echo()
    elif arguments.role == "large":
        call_large(arguments.address)
    elif arguments.role == "saturate":
        saturate(arguments.address)
    else:
        measure_all(arguments.rounds, arguments.output)


def measure_all(rounds: int, output: Path) -> None:
    """Start the servers, measure and write the result file."""
    if shutil.which("h2load") is None:
        sys.exit("h2load is not installed; it is in Debian's nghttp2-client")
    with contextlib.ExitStack() as ends:
        module = ("-m", MODULE, "--role", "echo")
        servers = {
            "inline": ends.enter_context(pooling_server(inline_calls=True)),
            "threads": ends.enter_context(pooling_server(inline_calls=False)),
            "echo": ends.enter_context(started(*module)),
        }
        rows = throughput(servers, rounds)
        beside_others = mixed(servers, rounds)
    command = f"python -m benchmarks.decisions.polling_thread_0013 --rounds {rounds}"
    path = report.write("polling-thread", command, rows, output, beside_others=beside_others)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
