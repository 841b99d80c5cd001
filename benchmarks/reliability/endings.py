"""Calls that end early: four endings of three kinds of calls in three states.

The server has one compute slot. The states are: waiting for the slot, being computed, and replying
to a client that does not read. Replies of calls in shared memory have a few bytes, which fit into
the buffers of the network, so these calls have no third state. An error has no third state either:
it is the reply.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from benchmarks.reliability.clients import in_flight, watched
from benchmarks.reliability.load import ANSWERS, SMALL, SPEC
from benchmarks.reliability.serving import LIMIT_S, Row, Server, metric, row, settled, wait_until
from pooling_client import ForwardCall, PoolingClient, PoolingError, PoolSpec
from tests.support.proxy import Proxy

X = np.ones((1, 6, 512, 512), np.float16)  # 3.1 MB: one message, or shared over a Unix socket
SLOW = PoolSpec("lp", kernel=9, stride=1, norm_p=2.5)  # takes more than 0.1 s
NAN = np.full((1, 4, 512, 512), np.nan, np.float16)
REJECTED = PoolSpec("max", 2, nan_policy="error")
TALL = np.ones((1, 1, 128, 1024), np.float32)
WIDE = PoolSpec("sum", (2, 1), 1, padding=((1000, 1000), (0, 0)), dilation=(1000, 1))  # 4.6 MB
SLACK = 2  # descriptors that gRPC may open meanwhile
REQUIRED = "a clear error or the reply; nothing left behind; the next call is answered"


class Ending(NamedTuple):
    """An ending of a call.

    Attributes:
        act: ends the call.
        expected: outcome of the call: "right", or the name of the error.
        timeout: seconds for the call.
    """

    act: Callable[[PoolingClient, Server], Any]
    expected: str
    timeout: float = LIMIT_S


ENDINGS = {
    "cancel": Ending(lambda client, _: client.close(), "UnavailableError"),
    "deadline": Ending(lambda *_: None, "DeadlineError", timeout=0.1),
    "error": Ending(lambda *_: None, "InvalidTensorError"),
    "shutdown": Ending(lambda _, server: server.process.terminate(), "right"),
}
KINDS = ("unary", "stream", "shared memory")
STATES = ("queued", "computing", "replying")


def endings(names: tuple[str, ...] = tuple(ENDINGS)) -> list[Row]:
    """End calls of every kind in every state."""
    unclean, count = [], 0
    with ExitStack() as servers:
        shared: tuple[Server, str] | None = None
        for name, kind, state in product(names, KINDS, STATES):
            if state == "replying" and (kind == "shared memory" or name == "error"):
                continue
            if shared is None or name == "shutdown":
                shared = servers.enter_context(watched())
            count += 1
            try:
                fault = _outcome(*shared, name, kind, state)
            except TimeoutError as error:
                fault = str(error)
            if fault:
                unclean.append(f"{name} of {kind} while {state}: {fault}")
    text = f"{count} combinations; not as required: {'; '.join(unclean) or 'none'}"
    fault = "cancel, deadline, error, shutdown x unary, stream, shared memory x every state"
    return [row("endings", fault, REQUIRED, not unclean, text, combinations=count, unclean=unclean)]


def _outcome(server: Server, url: str, name: str, kind: str, state: str) -> str:
    """Return what is not as required about one ending; empty if nothing is."""
    ending, outcome = ENDINGS[name], list[str]()
    before = _warm_descriptors(server)
    with ExitStack() as stack:
        address = server.addresses[1 if kind == "shared memory" else 0]
        if state == "replying":
            proxy = stack.enter_context(Proxy(address))
            address = proxy.address
        client = stack.enter_context(PoolingClient(address, wait_for_ready=False))
        client.forward(SMALL, SPEC)
        if state == "replying":
            proxy.hold_replies()
        if state == "queued":
            ahead = threading.Thread(target=_call_ahead, args=(server.address,))
            ahead.start()
            stack.callback(ahead.join)
            wait_until(lambda: in_flight(url) == 1, "the call ahead does not begin")
        calls, started = metric(url, "pooling_calls_total"), in_flight(url)

        def call() -> None:
            outcome.append(_call(client, kind, state, ending.timeout, is_wrong=name == "error"))

        caller = threading.Thread(target=call)
        caller.start()
        if state == "replying":
            wait_until(lambda: outcome or metric(url, "pooling_calls_total") > calls, "no reply")
        else:
            wait_until(lambda: outcome or in_flight(url) > started, "the call does not begin")
        ending.act(client, server)
        if state == "replying" and name == "shutdown":
            proxy.let_replies_go()
        caller.join(LIMIT_S)
    # A request that SIGTERM overtakes on its way is rejected; this client does not retry.
    is_overtaken = name == "shutdown" and outcome == ["UnavailableError"]
    if outcome != [ending.expected] and not is_overtaken:
        return f"{outcome} in place of {ending.expected}"
    if name == "shutdown":
        code = server.process.wait(LIMIT_S)
        return f"exit code {code}" if code else ""
    return _left(server, url, before)


def _warm_descriptors(server: Server) -> int:
    for address in server.addresses:
        with PoolingClient(address) as client:
            client.forward(X, SPEC)
    return server.descriptors()


def _left(server: Server, url: str, before: int) -> str:
    """Return what an ended call has left behind in the server."""
    if count := settled(lambda: in_flight(url), 0, "calls stay in flight"):
        return f"{count} calls in flight"
    with PoolingClient(server.address) as client:
        if not np.array_equal(client.forward(SMALL, SPEC).output, ANSWERS["small"]):
            return "the next answer is wrong"
    left = settled(server.descriptors, before + SLACK, "descriptors stay open") - before
    if left > SLACK:
        return f"{left} descriptors"
    return "an internal error" if "internal" in server.log().lower() else ""


def _call_ahead(address: str) -> None:
    with (
        PoolingClient(address, timeout=LIMIT_S, wait_for_ready=False) as client,
        suppress(PoolingError),  # the server may stop
    ):
        list(client.forward_many([ForwardCall(X, SLOW)] * 3))


def _call(client: PoolingClient, kind: str, state: str, timeout: float, is_wrong: bool) -> str:
    """Return "right", "wrong" or the name of the error of a call."""
    x, spec = (TALL, WIDE) if state == "replying" else (X, SLOW)
    if is_wrong:
        x, spec = NAN, REJECTED
    try:
        if kind == "stream":
            (result,) = client.forward_many([ForwardCall(x, spec)], timeout=timeout)
        else:
            result = client.forward(x, spec, timeout=timeout)
        return "right" if result.output.any() else "wrong"
    except Exception as error:
        return type(error).__name__
