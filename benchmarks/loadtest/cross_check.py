"""Closed loop of `pooling loadtest` beside h2load, at equal concurrency.

Against a server that answers every call after 20 ms, both must find the same rate on any machine.
Against the real server, both programs and the server share the processor; h2load needs less of it.

Run with `python -m benchmarks.loadtest.cross_check`. It needs h2load, of Debian's package
nghttp2-client. CI does not time anything: it does not run this.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import pooling_engine
from benchmarks import report
from pooling_cli.demo.server import address_in, running_server
from pooling_engine import ForwardCall, PoolSpec
from pooling_loadtest.running import run_test
from pooling_loadtest.settings import KindOfCall, LoadTest
from pooling_wire import FORWARD

SPEC = {"mode": "max", "kernel": 3, "stride": 2, "padding": 1}
SMALL = (1, 16, 14, 14)
SHAPES = {"12.5 KB": SMALL, "401 KB": (1, 32, 56, 56), "3.2 MB": (1, 64, 112, 112)}
CALLERS = (1, 4, 16)
DELAY_S = 0.02
ROUNDS, SECONDS = 5, 1
LIMIT = 0.15


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.bin"
        with delaying_server() as target:
            write_frame(target, SMALL, frame)
            for callers in CALLERS:
                rows.append(compared(target, "answers after 20 ms", SMALL, callers, frame))
        with running_server() as banner:
            target = address_in(banner)
            for size, shape in SHAPES.items():
                write_frame(target, shape, frame)
                rows.append(compared(target, f"pools {size}", shape, 4, frame))
    more = {"rounds": ROUNDS, "seconds": SECONDS, "limit": LIMIT, "h2load": h2load_version()}
    command = "python -m benchmarks.loadtest.cross_check"
    print(report.write("loadtest-h2load", command, rows, **more))


@contextmanager
def delaying_server() -> Iterator[str]:
    """Serve Forward for inputs of one shape: the right reply, after 20 ms."""
    replies: dict[bytes, bytes] = {}

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request not in replies:
            call = FORWARD.decode_request(request).call
            replies[request] = FORWARD.encode_response(pooling_engine.run(call))
        time.sleep(DELAY_S)
        return replies[request]

    service, _, name = FORWARD.path.strip("/").partition("/")
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.server(ThreadPoolExecutor(max(CALLERS)))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {name: handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def write_frame(target: str, shape: tuple[int, ...], path: Path) -> None:
    """Write a request as a gRPC frame, after one call whose answer is checked.

    h2load takes an HTTP status of 200 for success, and does not see the status of gRPC.
    """
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    call = ForwardCall(x, PoolSpec(**SPEC))
    request = FORWARD.encode_request(call)
    with grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)]) as channel:
        reply = channel.unary_unary(FORWARD.path)(request)
    assert reply == FORWARD.encode_response(pooling_engine.run(call)), "the answer is wrong"
    path.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)


def compared(
    target: str, server: str, shape: tuple[int, ...], callers: int, frame: Path
) -> dict[str, Any]:
    """Return the rates of both programs, and the ratios of neighbouring runs."""

    def measure(name: str) -> tuple[float, float]:
        if name == "h2load":
            return h2load(target, callers, frame)
        return ours(target, shape, callers)

    taken = report.interleaved(["h2load", "pooling loadtest"], ROUNDS, measure)
    pairs = list(zip(taken["pooling loadtest"], taken["h2load"], strict=True))
    ratios = [mine[0] / other[0] for mine, other in pairs]
    row = {
        "server": server,
        "callers": callers,
        "h2load_calls_per_s": report.spread(rate for rate, _ in taken["h2load"]),
        "ours_calls_per_s": report.spread(rate for rate, _ in taken["pooling loadtest"]),
        "h2load_mean_ms": report.spread(mean for _, mean in taken["h2load"]),
        "ours_mean_ms": report.spread(mean for _, mean in taken["pooling loadtest"]),
        "ratio": report.spread(ratios),
        "agrees": abs(statistics.median(ratios) - 1) <= LIMIT,
    }
    print(row, flush=True)
    return row


def h2load(target: str, callers: int, frame: Path) -> tuple[float, float]:
    """Return calls/s and the mean latency in ms."""
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    load = ("-c", "1", "-t", "1", "-m", callers, "-D", SECONDS, "-d", frame)
    windows = ("-w", "30", "-W", "30")  # of flow control; the defaults are 64 KB
    command = ("h2load", *load, *windows, *headers, f"http://{target}{FORWARD.path}")
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, check=True
    )
    found = re.search(r"finished in \S+, ([\d.]+) req/s", done.stdout)
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)
    mean = re.search(r"time for request: +(\S+) +(\S+) +(\S+)", done.stdout)
    assert found, done.stdout
    assert failed, done.stdout
    assert mean, done.stdout
    assert set(failed.groups()) == {"0"}, done.stdout
    return float(found[1]), milliseconds(mean[3])


def milliseconds(text: str) -> float:
    """Return a time that h2load printed."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    assert found, text
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def ours(target: str, shape: tuple[int, ...], callers: int) -> tuple[float, float]:
    """Return calls/s and the mean latency in ms."""
    test = LoadTest(
        title="cross check",
        targets=(target,),
        kinds=(KindOfCall(name="forward", shape=shape, spec=SPEC),),
        schedule=None,
        callers=callers,
        duration_s=SECONDS,
    )
    results = run_test(test)
    calls = results.calls
    assert calls.is_ok.all()
    return len(calls) / results.run.elapsed_s, float(calls.latency_ns.mean()) / 1e6


def h2load_version() -> str:
    done = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
