"""Time one call again and again, as the controller asks on standard input.

Run as a script by the Python of either checkout, so it uses the public API alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import pooling_engine
from pooling_client import ForwardCall, PoolingClient
from pooling_engine import PoolSpec

LEAST_S = 0.02  # of calls that one sample covers
MANY, AT_ONCE = 200, 16


def engine_call(case: dict[str, Any]) -> Callable[[], object]:
    """Return one engine call that writes into an array which is there."""
    spec, dtype = PoolSpec(**case["spec"]), np.dtype(case["dtype"])
    x = normal(0, case["shape"], case["spec"]["layout"], dtype)
    options: dict[str, Any] = {}
    if case["operation"] == "backward max":
        options["return_indices"] = True
    forward = pooling_engine.forward(x, spec, **options)
    if case["operation"].startswith("forward"):
        y = np.zeros_like(forward.output)
        has_indices = case["operation"] == "forward max with indices"
        return lambda: pooling_engine.forward(x, spec, return_indices=has_indices, out=y)
    dx = np.zeros_like(x)
    sent = {"input_shape": x.shape, "indices": forward.indices}
    return lambda: pooling_engine.backward(forward.output, spec, **sent, out=dx)


def normal(seed: int, shape: list[int], layout: str, dtype: np.dtype) -> np.ndarray:
    """Return random numbers of a channels-first shape in the layout."""
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if layout == "channels_last":
        values = np.moveaxis(values, 1, -1)
    return np.ascontiguousarray(values, dtype=dtype)


class Wire:
    """A server in a process of its own, and clients over TCP and a Unix socket."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="compare-")
        code = (
            "import sys, signal, pooling_server as p; "
            "c = p.ServerConfig(listen=sys.argv[1], max_tensor_bytes=1 << 29, "
            "shared_memory_bytes=2 << 30); "
            "s = p.PoolingServer(c); s.start(); print(s.address, flush=True); sys.stdin.read()"
        )
        path = f"unix:{self._folder.name}/pooling.sock"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, f"127.0.0.1:0,{path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        address = self._process.stdout.readline().split(" and ")[0].split(",")[0].strip()
        self.tcp, self.unix = PoolingClient(address, timeout=60), PoolingClient(path, timeout=60)
        self._threads = ThreadPoolExecutor(AT_ONCE)

    def call(self, case: dict[str, Any]) -> Callable[[], object]:
        """Return one call, or a batch of calls, of the case."""
        spec = PoolSpec(**case["spec"])
        x = np.random.default_rng(0).standard_normal(case["shape"], dtype=np.float32)
        if case["way"] == "unary at 16":
            return lambda: list(
                self._threads.map(lambda _: self.tcp.forward(x, spec), range(4 * AT_ONCE))
            )
        if case["way"] == "many":
            return lambda: list(self.tcp.forward_many(ForwardCall(x, spec) for _ in range(MANY)))
        if case["way"] == "shared memory":
            shared = self.unix.empty(x.shape, x.dtype)
            shared[...] = x
            return lambda: self.unix.forward(shared, spec)
        return lambda: self.tcp.forward(x, spec)

    def close(self) -> None:
        """Stop clients and server."""
        self._threads.shutdown()
        self.tcp.close()
        self.unix.close()
        self._process.communicate(timeout=60)
        self._folder.cleanup()


def repeats(call: Callable[[], object]) -> int:
    """Return how many calls one sample needs, after calls that warm up."""
    start = time.perf_counter()
    call()
    call()
    once = max((time.perf_counter() - start) / 2, 1e-7)
    return max(1, min(1000, round(LEAST_S / once)))


def milliseconds(call: Callable[[], object], count: int) -> float:
    """Return the median duration of `count` calls."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2] * 1e3


def main() -> None:
    """Answer requests until standard input ends; the first prepares a call."""
    wire: Wire | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "prepare":
            if request["kind"] == "engine":
                call = engine_call(request)
            else:
                wire = wire or Wire()
                call = wire.call(request)
            count = repeats(call)
            print(json.dumps(count), flush=True)
        else:
            print(json.dumps(milliseconds(call, count)), flush=True)
    if wire is not None:
        wire.close()


if __name__ == "__main__":
    main()
