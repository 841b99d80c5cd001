"""Servers that misbehave as a test asks, in a thread of the test."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

import pooling_engine
from pooling_wire import FORWARD

Behave = Callable[[int, bytes, grpc.ServicerContext], bytes]


@contextmanager
def fake_server(
    behave: Behave, path: str = FORWARD.path, threads: int = 16
) -> Iterator[tuple[str, grpc.Server]]:
    """Serve one unary method; yield the address and the server.

    Args:
        behave: returns the reply to a request, from the number of the call and the request.
        path: path of the method.
        threads: number of calls that run at a time.
    """
    numbers = itertools.count()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return behave(next(numbers), request, context)

    service, _, name = path.strip("/").partition("/")
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.server(ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {name: handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        server.stop(0).wait()


class Answers:
    """Right replies to Forward requests, each computed once."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def __call__(self, number: int, request: bytes, context: Any) -> bytes:
        if request not in self._known:
            call = FORWARD.decode_request(request).call
            self._known[request] = FORWARD.encode_response(pooling_engine.run(call))
        return self._known[request]


class PauseOnce:
    """Right replies, but from one call on the server pauses once.

    Attributes:
        begin_unix_ns: time at which the pause began.
        end_unix_ns: time at which it ended.
    """

    def __init__(self, at_call: int, pause_s: float) -> None:
        self._at_call, self._pause_s = at_call, pause_s
        self._answers, self._lock = Answers(), threading.Lock()
        self.begin_unix_ns = self.end_unix_ns = 0

    def __call__(self, number: int, request: bytes, context: Any) -> bytes:
        with self._lock:
            if number == self._at_call:
                self.begin_unix_ns = time.time_ns()
                time.sleep(self._pause_s)  # the pause that is to be measured, not a wait
                self.end_unix_ns = time.time_ns()
            return self._answers(number, request, context)
