"""Workers that are killed, and servers that are absent, restart or stop under load."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import grpc

from benchmarks.reliability.load import ANSWERS, CALLS, Load
from benchmarks.reliability.serving import LIMIT_S, Row, free_port, row, serving, wait_until
from pooling_wire import FORWARD

WORKERS = ("--workers", "2")
NONE_FAILS = "0 failed, 0 wrong"


def counts(load: Load) -> tuple[bool, str]:
    """Return whether every call was right, and the counts as text."""
    figures = load.figures()
    errors = ", ".join(f"{name} {count}" for name, count in load.failed.items())
    text = f"{figures['calls']:,} calls: {figures['failed']} failed, {figures['wrong']} wrong"
    return not (figures["failed"] or figures["wrong"]), f"{text} ({errors})" if errors else text


def wait_for_calls(load: Load, count: int) -> None:
    """Wait until a load has made that many further calls."""
    reached = load.right + count
    wait_until(lambda: load.right >= reached or load.failed or load.wrong, "no call is answered")


def killed_workers(seconds: float = 60.0, pause_s: float = 2.0) -> list[Row]:
    """Kill a worker with SIGKILL under load, again and again, with pauses in between."""
    kills = 0
    with serving(*WORKERS) as server, Load(server.address) as load:
        wait_for_calls(load, 20)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            wait_until(lambda: len(server.workers()) == 2, "a worker is not restarted")
            os.kill(server.workers()[kills % 2], signal.SIGKILL)
            kills += 1
            wait_for_calls(load, 10)
            time.sleep(max(0.0, min(pause_s, until - time.monotonic())))
    is_met, text = counts(load)
    fault = f"kill -9 of a worker at least {pause_s:g} s after the last, {seconds:g} s under load"
    figures = load.figures() | {"kills": kills}
    return [row("kills", fault, NONE_FAILS, is_met, f"{kills} kills; {text}", **figures)]


def absent_server(seconds: float = 5.0) -> list[Row]:
    """Kill the only server under load, and start it again some seconds later."""
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    with serving(*listen) as first, Load(first.address) as load:
        wait_for_calls(load, 20)
        first.process.kill()
        first.process.wait()
        time.sleep(seconds)
        with serving(*listen):
            wait_for_calls(load, 40)
            load.stop()
    is_met, text = counts(load)
    fault = f"no server for {seconds:g} s"
    return [row("restarts", fault, "0 failed with retries", is_met, text, **load.figures())]


def rolling_restart(times: int = 1) -> list[Row]:
    """Restart the workers one after the other by SIGHUP under load."""
    with serving(*WORKERS) as server, Load(server.address) as load:
        for _ in range(times):
            wait_for_calls(load, 20)
            before = set(server.workers())
            server.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda before=before: len(now := server.workers()) == 2 and not before & set(now),
                "the workers are not restarted",
            )
        wait_for_calls(load, 20)
    is_met, text = counts(load)
    fault = "rolling restart (SIGHUP)"
    return [row("restarts", fault, "0 failed with retries", is_met, text, **load.figures())]


def stopped_server(times: int = 3) -> list[Row]:
    """Stop a server by SIGTERM under load: calls with retries continue on another server."""
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    with ExitStack() as servers:
        server = servers.enter_context(serving(*listen))
        load = servers.enter_context(Load(server.address))
        for _ in range(times):
            wait_for_calls(load, 20)
            server.process.terminate()
            server.process.wait(LIMIT_S)
            server = servers.enter_context(serving(*listen))
        wait_for_calls(load, 20)
        load.stop()
    is_met, text = counts(load)
    fault = f"SIGTERM under load, {times} times, with retries"
    rows = [row("restarts", fault, "0 failed with retries", is_met, text, **load.figures())]
    return rows + accepted_calls(times)


def accepted_calls(times: int) -> list[Row]:
    """Stop a server by SIGTERM while callers without retries call it."""
    outcomes: Counter[str] = Counter()
    for _ in range(times):
        with serving() as server:
            threads = [
                threading.Thread(target=_call_until_refused, args=(server.address, outcomes))
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            target = outcomes["right"] + 40
            wait_until(lambda target=target: outcomes["right"] >= target, "no call is answered")
            server.process.terminate()
            for thread in threads:
                thread.join(LIMIT_S)
            server.process.wait(LIMIT_S)
    lost = sum(outcomes.values()) - outcomes["right"] - outcomes["rejected"]
    text = f"{outcomes['right']:,} answered, {outcomes['rejected']} rejected, {lost} lost or wrong"
    fault = f"SIGTERM under load, {times} times, without retries"
    required = "0 accepted calls lost"
    return [row("restarts", fault, required, lost == 0, text, **outcomes, lost=lost)]


def _call_until_refused(address: str, outcomes: Counter[str]) -> None:
    request = FORWARD.encode_request(CALLS["large"])
    options: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    with grpc.insecure_channel(address, options) as channel:
        call = channel.unary_unary(FORWARD.path)
        while True:
            try:
                output = FORWARD.decode_response(call(request, timeout=LIMIT_S)).output
            except grpc.RpcError as error:
                # A server that stops says so, or does not accept the connection any more.
                is_rejected = error.code() is grpc.StatusCode.UNAVAILABLE and (
                    "shutting down" in error.details() or "connect" in error.details()
                )
                outcomes["rejected" if is_rejected else error.details()[:80]] += 1
                return
            is_right = output.tobytes() == ANSWERS["large"].tobytes()
            outcomes["right" if is_right else "wrong"] += 1
