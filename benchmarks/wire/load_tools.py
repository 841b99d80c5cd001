"""Load generators: h2load, calls at a fixed rate, large calls, saturation, and an echo server.

h2load is in Debian's nghttp2-client. The roles run as processes beside a measurement, and end when
their standard input ends:

    python -m benchmarks.wire.load_tools --role large --address 127.0.0.1:50051
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from benchmarks.wire.servers import Server, started
from pooling_client import ForwardCall, PoolingClient, PoolSpec
from pooling_wire import FORWARD

ECHO_THREADS = 4
ECHO_PATH = "/bench/Echo"
SIZES = {"12.5 KB": ((1, 3, 32, 32), 1), "125 KB": ((10, 16, 14, 14), 0)}
LOADS = {"1 in flight": (1, 1), "16 on one connection": (1, 16), "16 connections": (16, 1)}
LARGE, LARGE_SPEC = (32, 64, 56, 56), PoolSpec("max", 3, 2, padding=1)  # 26 MB
RATE, CALLERS = 640, 8  # small calls per second beside other load, and threads that make them
LARGE_RATE = 2  # 26 MB calls per second of each of two callers
MODULE = "benchmarks.wire.load_tools"
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


def stream(address: str) -> None:
    """Send chunks of 1 MiB over a stream, and read their replies, until standard input ends."""
    end = ended()
    call = ForwardCall(np.ones((1, 16, 128, 128), np.float32), PoolSpec("max", 3, 2, padding=1))
    with PoolingClient(address) as client:
        for _ in client.forward_many(iter(lambda: None if end.is_set() else call, None)):
            if not end.is_set():
                print("started", flush=True)


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


def echo_server() -> contextlib.AbstractContextManager[Server]:
    """Start an echo server with `ECHO_THREADS` threads."""
    return started("-m", MODULE, "--role", "echo")


def main() -> None:
    """Play a role until standard input ends."""
    roles = {"large": call_large, "saturate": saturate, "stream": stream}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--role", choices=("echo", *roles), required=True)
    parser.add_argument("--address")
    arguments = parser.parse_args()
    if arguments.role == "echo":
        serve_echo()
    else:
        roles[arguments.role](arguments.address)


if __name__ == "__main__":
    main()
