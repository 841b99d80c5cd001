"""Callers that verify every reply, and latencies of calls beside a fault."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

import pooling_engine
from pooling_client import ForwardCall, PoolingClient, PoolSpec
from pooling_wire import FORWARD

SPEC = PoolSpec("max", kernel=3, stride=2, padding=1)
RNG = np.random.default_rng(11)
SMALL = RNG.standard_normal((1, 8, 20, 20), dtype=np.float32)  # 12.8 KB
LARGE = RNG.standard_normal((1, 8, 160, 160), dtype=np.float32)  # 819 KB: shared over a socket
CALLS = {name: ForwardCall(x, SPEC) for name, x in (("small", SMALL), ("large", LARGE))}
ANSWERS = {name: pooling_engine.forward(call.input, SPEC).output for name, call in CALLS.items()}
MANY = 4


def small(client: PoolingClient) -> bool:
    """Call with one small message; return whether the result is right."""
    return np.array_equal(client.forward(SMALL, SPEC).output, ANSWERS["small"])


def large(client: PoolingClient) -> bool:
    """Call with a large tensor, which is shared over a Unix socket."""
    return np.array_equal(client.forward(LARGE, SPEC).output, ANSWERS["large"])


def many(client: PoolingClient) -> bool:
    """Call with a stream."""
    results = list(client.forward_many([CALLS["small"]] * MANY))
    return len(results) == MANY and all(
        np.array_equal(result.output, ANSWERS["small"]) for result in results
    )


MIXED: tuple[Callable[[PoolingClient], bool], ...] = (small, small, large, many)


class Load:
    """Threads that call a server one after the other and verify every reply.

    Args:
        target: address of the server.
        callers: number of threads, each with its own client.
        kinds: calls, in turn.
        options: options of the clients.

    Attributes:
        right: number of calls with the right result.
        wrong: number of calls with another result.
        failed: number of calls that raised, by the name of the error.
    """

    def __init__(
        self,
        target: str,
        callers: int = 4,
        kinds: tuple[Callable[[PoolingClient], bool], ...] = MIXED,
        **options: Any,
    ) -> None:
        self.right = self.wrong = 0
        self.failed: Counter[str] = Counter()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._target, self._kinds, self._options = target, kinds, options
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the calls, and wait for those in flight."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def figures(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "calls": self.right + self.wrong + self.failed.total(),
            "failed": self.failed.total(),
            "wrong": self.wrong,
        }

    def _call(self) -> None:
        with PoolingClient(self._target, **({"timeout": 40.0} | self._options)) as client:
            number = 0
            while not self._over.is_set():
                kind = self._kinds[number % len(self._kinds)]
                number += 1
                try:
                    is_right = kind(client)
                except Exception as error:
                    with self._lock:
                        self.failed[type(error).__name__] += 1
                    continue
                with self._lock:
                    self.right += is_right
                    self.wrong += not is_right


class Neighbour:
    """A client that makes small unary calls at a constant rate on its own connection.

    Attributes:
        rejected: number of attempts that the server rejected because it was overloaded.
    """

    def __init__(self, target: str) -> None:
        self.rejected = 0
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(target, options)
        self._call = self._channel.unary_unary(FORWARD.path)
        self._request = FORWARD.encode_request(CALLS["small"])
        self.reply = self._call(self._request, timeout=40, wait_for_ready=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def latencies_ms(self, seconds: float, rate: float = 50.0, calls: int = 0) -> list[float]:
        """Return the milliseconds of each call, from the moment it was due.

        Args:
            seconds: duration.
            rate: calls per second.
            calls: number of calls, in place of `seconds`.

        Raises:
            grpc.RpcError: a call failed.
            ValueError: a reply is wrong.
        """
        taken = []
        for due in _due(calls or int(seconds * rate), rate):
            reply = self._reply()
            taken.append((time.perf_counter() - due) * 1e3)
            if FORWARD.decode_response(reply).output.tobytes() != ANSWERS["small"].tobytes():
                raise ValueError("a reply is wrong")
        return taken

    def _reply(self) -> bytes:
        """Call until the server has a free slot, at the intervals that it states."""
        while True:
            try:
                reply: bytes = self._call(self._request, timeout=40)
                return reply
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                self.rejected += 1
                time.sleep(0.1)


def _due(count: int, rate: float) -> Iterator[float]:
    start = time.perf_counter()
    for number in range(count):
        due = start + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        yield due


def percentile(values: list[float], p: float) -> float:
    """Return a percentile with three significant digits; 0 of no values."""
    return float(f"{np.percentile(values, p):.3g}") if values else 0.0
