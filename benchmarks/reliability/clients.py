"""Clients that are killed or forked in every state: the server frees all that they held."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.reliability.serving import (
    LIMIT_S,
    Row,
    Server,
    free_port,
    metric,
    row,
    serving,
    settled,
    wait_until,
)

BEGIN = """
import itertools, os, sys, threading
import numpy as np
from pooling_client import ForwardCall, PoolingClient, PoolSpec
target = sys.argv[1]
client = PoolingClient(target, timeout=40)
client.info()
spec, small = PoolSpec("max", 2), np.ones((1, 1, 8, 8), np.float32)
large = np.ones((1, 8, 256, 256), np.float32)
def ready():
    print("ready", flush=True)
"""
STATES = {
    "connected": "client.forward(small, spec); ready(); threading.Event().wait()",
    "leasing shared memory": (
        "held = [client.forward(large, spec).output for _ in range(3)]; ready()\n"
        "threading.Event().wait()"
    ),
    "computing": (
        "x = np.ones((1, 8, 512, 512), np.float16); ready()\n"
        "while True: client.forward(x, PoolSpec('lp', 9, 1, norm_p=2.5))"
    ),
    "streaming": (
        "for number, _ in enumerate(client.forward_many(\n"
        "    ForwardCall(small, spec) for _ in itertools.count())):\n"
        "    number == 20 and ready()"
    ),
    "uploading": (
        "def endless():\n"
        "    for number in itertools.count():\n"
        "        number == 3 and (ready(), threading.Event().wait())\n"
        "        yield ForwardCall(large, spec)\n"
        "list(client.forward_many(endless()))"
    ),
}
FORKS = """
import select, signal, time, warnings
warnings.simplefilter("ignore")
def forked(call):
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = "works" if call() else "wrong"
        except BaseException as error:
            text = type(error).__name__
        os.write(sender, text.encode())
        os._exit(0)
    is_done, _, _ = select.select([receiver], [], [], 45)
    text = os.read(receiver, 99).decode() if is_done else "hangs"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(receiver), os.close(sender)
    return text
def again():
    return bool((client.forward(large, spec, timeout=3).output == 1).all())
held = client.forward(large, spec).output
def overwrite():
    held[...] = 7
    mine = client.empty(large.shape)
    mine[...] = 7
    return bool((client.forward(mine, spec, timeout=3).output == 7).all())
outcomes = [("connected", forked(again)), ("holding shared memory", forked(overwrite))]
stream = client.forward_many(ForwardCall(small, spec) for _ in itertools.count())
for _ in range(TIMES):
    next(stream)
    outcomes.append(("streaming, new call", forked(again)))
    next(stream)
    outcomes.append(("streaming, same stream", forked(lambda: next(stream).output.all())))
outcomes.append(("parent", "works" if again() and (held == 1).all() and next(stream) else "wrong"))
import json
print(json.dumps(outcomes), flush=True)
os._exit(0)
"""


@contextmanager
def watched() -> Iterator[tuple[Server, str]]:
    """Start a server on a TCP port and a Unix socket; yield it and the address of its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = f"127.0.0.1:{free_port()}"
        listen = ("--listen", "127.0.0.1:0", "--listen", f"unix:{folder}/socket")
        with serving(*listen, "--metrics-listen", metrics, "--threads", "1") as server:
            yield server, f"http://{metrics}/metrics"


def in_flight(url: str) -> int:
    """Return the number of calls in flight, according to the metrics."""
    return int(metric(url, "pooling_in_flight_calls"))


def killed_clients(times: int = 5) -> list[Row]:
    """Kill clients by SIGKILL in every state; compare the server's resources with before."""
    left: dict[str, int] = {}
    with watched() as (server, url):
        for state, code in STATES.items():
            for address in server.addresses:
                run_and_kill(address, code)  # opens what stays open
                before = server.descriptors()
                for _ in range(times):
                    run_and_kill(address, code)
                kind = "Unix" if address.startswith("unix:") else "TCP"
                open_now = settled(server.descriptors, before, "descriptors stay open") - before
                left[f"{state}, {kind}"] = max(0, open_now) + settled(
                    lambda: in_flight(url), 0, "calls stay in flight"
                )
    faults = {state: count for state, count in left.items() if count}
    text = f"{times * len(left)} kills in {len(left)} states; left behind: {faults or 'nothing'}"
    fault = "kill -9 of clients in every state"
    required = "descriptors, leases and calls in flight back to the baseline"
    return [row("clients", fault, required, not faults, text, left=left, times=times)]


def run_and_kill(address: str, code: str) -> None:
    """Start a client, wait until it has reached its state, and kill it."""
    command = [sys.executable, "-c", BEGIN + code, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        try:
            if client.stdout.readline() != "ready\n":
                raise RuntimeError("the client did not reach its state")
        finally:
            client.kill()


def forked_clients(times: int = 5) -> list[Row]:
    """Fork clients in every state; child and parent call and write into shared arrays."""
    outcomes: list[list[str]] = []
    with watched() as (server, url):
        for address in server.addresses:
            code = BEGIN + FORKS.replace("TIMES", str(times))
            done = subprocess.run(
                [sys.executable, "-c", code, address],
                capture_output=True,
                text=True,
                timeout=LIMIT_S * (times + 1),
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            outcomes += parsed(done.stdout)
        wait_until(lambda: in_flight(url) == 0, "calls stay in flight")
    seen = {
        state: {text: sum(pair == [state, text] for pair in outcomes) for _, text in outcomes}
        for state, _ in outcomes
    }
    seen = {state: {k: v for k, v in texts.items() if v} for state, texts in seen.items()}
    is_met = not any(text in ("hangs", "wrong") for _, text in outcomes)
    text = "; ".join(f"{state}: {_listed(texts)}" for state, texts in seen.items())
    required = "works or a clear error; nothing shared; the parent continues"
    return [row("clients", "fork of clients in every state", required, is_met, text, seen=seen)]


def _listed(texts: dict[str, int]) -> str:
    return ", ".join(f"{count} {text}" for text, count in texts.items())


def parsed(text: str) -> list[list[str]]:
    """Return the pairs of state and outcome that the client printed."""
    pairs: list[list[str]] = json.loads(text.splitlines()[-1])
    return pairs
