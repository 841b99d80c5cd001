"""Measure streams: large tensors in chunks, and many small ones through one stream (ADR 6).

A server with the compiled backend and an echo server without pooling are separate processes; one
client alternates between them.

    python -m benchmarks.decisions.streams_0006
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

import pooling_engine
from benchmarks import report
from pooling_client import ForwardCall, PoolingClient, _limits
from pooling_engine import PoolSpec
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc

MIB = 1 << 20
SPEC = PoolSpec("max", kernel=3, stride=2, padding=1)
LAYER = (32, 64, 112, 112)  # 103 MB of float32
CHUNKS_MIB = (0.25, 0.5, 1, 2, 4, 8)
THRESHOLD_MIB = (4, 8, 16, 32)
SMALL, SMALL_CALLS = (1, 3, 32, 32), 1000  # 12 KB
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def serve_echo(ready: object) -> None:
    """Reply to a message of N bytes with N / 4 zero bytes."""
    replies: dict[int, bytes] = {}

    def answer(requests: Iterator[bytes], _: object) -> Iterator[bytes]:
        for request in requests:
            yield replies.setdefault(len(request) // 4, bytes(len(request) // 4))

    server = grpc.server(ThreadPoolExecutor(4), options=UNLIMITED)
    method = grpc.stream_stream_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench", {"Echo": method}),)
    )
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    ready.recv()


@contextlib.contextmanager
def pooling_server() -> Iterator[tuple[str, int]]:
    """Start a server, and return its address and process id once it is warmed up."""
    command = [sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        banner = server.stdout.readline()
        yield re.search(r"listening on (\S+),", banner)[1], server.pid
    finally:
        server.terminate()
        server.wait(30)


def peak_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024


def reset_peak(pid: int) -> float:
    """Reset the peak to the resident memory, and return that in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_mib(pid)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict]:
    """Return the milliseconds of each call, alternating; the first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, work in calls.items():
            value = seconds(work) * 1e3
            if round_:
                taken[name].append(value)
    return {name: report.spread(values) for name, values in taken.items()}


def echo_stream(channel: grpc.Channel, x: np.ndarray, chunk: int, window: int) -> None:
    """Send a tensor in messages of `chunk` bytes, and receive a quarter of its bytes."""
    room = threading.Semaphore(window)
    data = memoryview(x.reshape(-1).view(np.uint8))

    def requests() -> Iterator[bytes]:
        for at in range(0, len(data), chunk):
            room.acquire()
            yield bytes(data[at : at + chunk])

    for _ in channel.stream_stream("/bench/Echo")(requests()):
        room.release()


def naive(stub: pooling_pb2_grpc.PoolingServiceStub, x: np.ndarray) -> np.ndarray:
    """Make one unary call with the generated classes, as a tutorial would."""
    window = pb.Window(kernel=3, stride=2, padding_before=1, padding_after=1)
    spec = pb.PoolSpec(mode=pb.MODE_MAX, sliding_windows=pb.SlidingWindows(axes=[window, window]))
    tensor = pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
    output = stub.Forward(pb.ForwardRequest(spec=spec, input=tensor)).output
    return np.frombuffer(output.data, np.float32).reshape(output.shape).copy()


def stream_of(client: PoolingClient, x: np.ndarray, chunk: int, out: np.ndarray) -> None:
    _limits.CHUNK_BYTES, _limits.STREAM_BYTES = chunk, 0
    client.forward(x, SPEC, out=out, timeout=120)


def unary_of(client: PoolingClient, x: np.ndarray, out: np.ndarray) -> None:
    _limits.STREAM_BYTES = 1 << 40
    client.forward(x, SPEC, out=out, timeout=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    echo = spawn.Process(target=serve_echo, args=(theirs,), daemon=True)
    echo.start()
    echo_channel = grpc.insecure_channel(f"127.0.0.1:{ours.recv()}", options=UNLIMITED)
    rows = []
    with pooling_server() as (address, pid), PoolingClient(address) as client:
        stub = pooling_pb2_grpc.PoolingServiceStub(
            grpc.insecure_channel(address, options=UNLIMITED)
        )
        rows += large_rows(client, stub, echo_channel, pid, rounds)
        rows += threshold_rows(client, rounds)
        rows += small_rows(client, echo_channel, rounds)
    ours.send(None)
    path = report.write("streams", "python -m benchmarks.decisions.streams_0006", rows)
    print(f"wrote {path}")


def large_rows(client, stub, echo_channel, pid, rounds):
    x = np.random.default_rng(0).standard_normal(LAYER, dtype=np.float32)
    out = np.empty(pooling_engine.plan(SPEC, x.shape, x.dtype).output_shape, np.float32)
    calls = {}
    idle = reset_peak(pid)
    for chunk in CHUNKS_MIB:
        size = int(chunk * MIB)
        calls[f"stream {chunk} MiB"] = lambda size=size: stream_of(client, x, size, out)
        calls[f"echo {chunk} MiB"] = lambda size=size: echo_stream(
            echo_channel, x, size, _limits.CHUNK_WINDOW
        )
    peaks = {}
    for name, work in calls.items():
        if name.startswith("stream"):
            reset_peak(pid)
            work()
            peaks[name] = round(peak_mib(pid) - idle, 1)
    calls["unary"] = lambda: unary_of(client, x, out)
    calls["naive gRPC service"] = lambda: naive(stub, x)
    rows = []
    for name, ms in interleaved(calls, rounds).items():
        row = {"what": "103 MB forward", "transport": name, "ms": ms}
        if name in peaks:
            row["server_peak_above_idle_mib"] = peaks[name]
        print(row, flush=True)
        rows.append(row)
    return rows


def threshold_rows(client, rounds):
    rows = []
    for mib in THRESHOLD_MIB:
        x = np.ones((mib, 64, 64, 64), np.float32)
        out = np.empty((mib, 64, 32, 32), np.float32)
        calls = {
            "unary": lambda x=x, out=out: unary_of(client, x, out),
            "stream": lambda x=x, out=out: stream_of(client, x, 4 * MIB, out),
        }
        row = {"what": f"{mib} MiB forward", **interleaved(calls, 2 * rounds)}
        print(row, flush=True)
        rows.append(row)
    return rows


def small_rows(client, echo_channel, rounds):
    x = np.random.default_rng(0).standard_normal(SMALL, dtype=np.float32)
    message = x.tobytes()

    def unary() -> None:
        for _ in range(SMALL_CALLS):
            client.forward(x, SPEC)

    def stream() -> None:
        for _ in client.forward_many(ForwardCall(x, SPEC) for _ in range(SMALL_CALLS)):
            pass

    _limits.STREAM_BYTES = 1 << 40
    calls = {"unary": unary, "stream": stream}
    whole = np.frombuffer(message * SMALL_CALLS, np.uint8)
    calls["echo stream"] = lambda: echo_stream(echo_channel, whole, len(message), 16)
    row = {"what": f"{SMALL_CALLS} x 12 KB forward", **interleaved(calls, rounds)}
    print(row, flush=True)
    return [row]


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
