"""Full disks, and limits of descriptors and of memory.

Limits are those of the kernel (`prlimit`). A limit of zero bytes for files stands for a full disk:
every write to a file fails.
"""

from __future__ import annotations

import resource
import signal
import socket
import tempfile
from collections import Counter
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import numpy as np

import pooling_wire
from benchmarks.reliability.load import ANSWERS, SMALL, SPEC, Load, small
from benchmarks.reliability.restarts import WORKERS, counts, wait_for_calls
from benchmarks.reliability.serving import LIMIT_S, Row, row, serving, settled, wait_until
from pooling_client import (
    BackwardCall,
    DeviceMemoryError,
    ForwardCall,
    OverloadedError,
    PoolingClient,
    PoolSpec,
    UnavailableError,
)
from pooling_wire import BACKWARD, FORWARD

REQUIRED = "a clear rejection or a clean restart; never a wrong answer"


def resources(calls: int = 400) -> list[Row]:
    """Take away disk, descriptors and memory, each from another server."""
    return [full_disk(calls), no_descriptors(), no_memory(1 + calls // 400)]


def full_disk(calls: int) -> Row:
    """Serve while no file can be written: neither the log nor a cache of kernels."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"NUMBA_CACHE_DIR": folder, "POOLING_LOG_LEVEL": "info"}
        with serving(prefix=("prlimit", "--fsize=0"), environment=environment) as server:
            with Load(server.address) as load:
                wait_for_calls(load, calls)
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(LIMIT_S)
    is_met, text = counts(load)
    text = f"{text}; SIGTERM ends it with exit code {code}"
    return row(
        "resources", "full disk", REQUIRED, is_met and code == 0, text, **load.figures(), code=code
    )


def no_descriptors(limit: int = 80, connections: int = 120) -> Row:
    """Open more connections than the server has descriptors, beside an open client."""
    with (
        serving(prefix=("prlimit", f"--nofile={limit}")) as server,
        PoolingClient(server.address) as client,
    ):
        client.forward(SMALL, SPEC)
        before = server.descriptors()
        host, _, port = server.address.rpartition(":")
        right = 0
        with ExitStack() as opened:
            for _ in range(connections):
                opened.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT_S))
            for _ in range(20):
                result = client.forward(SMALL, SPEC)
                right += np.array_equal(result.output, ANSWERS["small"])
        left = settled(server.descriptors, before + 2, "descriptors stay open") - before
        with PoolingClient(server.address, timeout=LIMIT_S) as new:
            is_new_right = np.array_equal(new.forward(SMALL, SPEC).output, ANSWERS["small"])
    text = (
        f"{connections} connections to {limit} descriptors: {right} of 20 calls of an open client "
        f"right; afterwards a new client {'works' if is_new_right else 'fails'}"
    )
    is_met = right == 20 and is_new_right and left <= 2
    return row("resources", "no descriptors", REQUIRED, is_met, text, right=right, left=left)


def no_memory(times: int, spare_mib: tuple[int, ...] = (8, 64)) -> Row:
    """Make calls of 32 and 64 MiB to workers that have less memory to spare, beside small calls.

    A worker with little to spare cannot receive a request, one with more cannot hold the result.
    """
    outcomes: Counter[str] = Counter()
    with serving(*WORKERS) as server, Load(server.address, kinds=(small,)) as load:
        wait_for_calls(load, 20)
        for spare in spare_mib * times:
            wait_until(lambda: len(server.workers()) == 2, "a worker is not restarted")
            for pid in server.workers():
                with suppress(ProcessLookupError):
                    used = server.address_space(pid)
                    limits = used + (spare << 20), resource.RLIM_INFINITY
                    resource.prlimit(pid, resource.RLIMIT_AS, limits)
            for method, request, answer in _large_calls():
                outcomes[_large_outcome(server.address, method, request, answer)] += 1
        wait_for_calls(load, 50)
        log = server.log()
    is_met, text = counts(load)
    errors = DeviceMemoryError, OverloadedError, UnavailableError
    allowed = {"right", *(error.__name__ for error in errors)}
    restarts = log.count("restarting it in")
    seen = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    text = f"large calls: {seen}; {restarts} workers restarted; small calls beside them: {text}"
    is_met = is_met and outcomes.keys() <= allowed
    return row("resources", "no memory", REQUIRED, is_met, text, outcomes=outcomes)


def _large_calls() -> list[tuple[Any, bytes, float]]:
    """Return a method, a request and the value of every element of its result."""
    x, gradient = np.ones((1, 8, 1024, 1024), np.float32), np.ones((1, 16, 1, 1), np.float32)
    whole = PoolSpec("sum", global_window=True)
    forward, backward = ForwardCall(x, SPEC), BackwardCall(gradient, whole, (1, 16, 1024, 1024))
    return [
        (FORWARD, FORWARD.encode_request(forward), 1.0),
        (BACKWARD, BACKWARD.encode_request(backward), 1.0),
    ]


def _large_outcome(address: str, method: Any, request: bytes, answer: float) -> str:
    """Send a request as one message, which the client would divide; return the outcome."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        call = channel.unary_unary(method.path)
        try:
            result = method.decode_response(call(request, timeout=LIMIT_S, wait_for_ready=True))
        except grpc.RpcError as error:
            return type(pooling_wire.decode_error(error, address)).__name__
    array = result if method is BACKWARD else result.output
    return "right" if (array == answer).all() else "wrong"
