"""Locust users that call a pooling server; needs the extra `locust`.

A locustfile:

    from locust import task
    from pooling_client.locust import PoolingUser

    class Layer(PoolingUser):
        @task
        def pool(self):
            self.forward(x, spec)

Importing this module prepares the process for gRPC with gevent. It also makes Locust count
latencies in microseconds below 1 ms, and with three digits above; Locust's own resolution is 1 ms
below 100 ms, and two digits above.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import locust.stats
import numpy as np
from grpc.experimental import gevent as grpc_gevent
from locust import User

import pooling_engine
from pooling_client._connection import CHANNEL_OPTIONS
from pooling_client._sync import PoolingClient
from pooling_engine import ForwardResult, PoolSpec

T = TypeVar("T")


class WrongAnswerError(AssertionError):
    """A reply differs from the result of the local engine."""


def bucket_response_time(response_time: float) -> float:
    """Return the latency under which Locust counts a call: both in ms.

    Whole microseconds below 1 ms, three significant digits above.
    """
    if response_time < 1:
        return round(response_time, 3)
    return round(response_time, 2 - math.floor(math.log10(response_time)))


CHANNEL_OPTIONS.append(("grpc.use_local_subchannel_pool", 1))  # one connection for each client
grpc_gevent.init_gevent()  # before the first channel of the process
setattr(locust.stats, "bucket_response_time", bucket_response_time)  # noqa: B010 typed as int


class PoolingUser(User):
    """User with one connection to the server at `host`, HOST:PORT.

    Subclasses call `forward` and `backward` in their tasks. Locust's users wait for their replies:
    this is a closed loop, in which a stall delays only the calls in flight.

    Attributes:
        options: arguments of `PoolingClient`, such as {"token": "..."}.
        verify: fraction of the replies to compare with the local engine. A wrong one counts as a
            failure. The comparison blocks the other users of the process.
        client: the client. It is made when the user starts, after `locust --processes` has forked.
    """

    abstract = True
    options: ClassVar[dict[str, Any]] = {}
    verify: ClassVar[float] = 0.0
    client: PoolingClient

    def on_start(self) -> None:
        """Connect to the server."""
        options = {"shared_streams": False} | self.options
        self.client = PoolingClient(self.host or "", **options)

    def on_stop(self) -> None:
        """Close the connection."""
        self.client.close()

    def forward(self, x: Any, spec: PoolSpec, name: str = "Forward", **options: Any) -> None:
        """Pool a tensor, and report the call to Locust under a name.

        Args:
            x: input of the layer.
            spec: options of the layer.
            name: name in Locust's tables.
            options: arguments of `PoolingClient.forward`, such as `return_indices`.
        """
        self._report(
            name,
            x.nbytes,
            lambda: self.client.forward(x, spec, **options),
            lambda: pooling_engine.forward(x, spec, **_of_engine(options)),
        )

    def backward(self, dy: Any, spec: PoolSpec, name: str = "Backward", **options: Any) -> None:
        """Compute an input gradient, and report the call to Locust under a name.

        Args:
            dy: gradient of the output.
            spec: options of the layer.
            name: name in Locust's tables.
            options: arguments of `PoolingClient.backward`, such as `indices` or `input_shape`.
        """
        self._report(
            name,
            dy.nbytes,
            lambda: self.client.backward(dy, spec, **options),
            lambda: pooling_engine.backward(dy, spec, **_of_engine(options)),
        )

    def _report(
        self, name: str, size: int, call: Callable[[], T], expected: Callable[[], T]
    ) -> None:
        start = time.perf_counter_ns()
        error: Exception | None = None
        reply: T | None = None
        try:
            reply = call()
        except pooling_engine.PoolingError as found:
            error = found
        latency_ms = (time.perf_counter_ns() - start) / 1e6
        if reply is not None and random.random() < self.verify and not _equal(reply, expected()):
            error = WrongAnswerError("the reply differs from the result of the local engine")
        self.environment.events.request.fire(
            request_type="pooling",
            name=name,
            response_time=latency_ms,
            response_length=0 if reply is None else sum(each.nbytes for each in _arrays(reply)),
            exception=error,
            context={"sent_bytes": size},
        )


def _of_engine(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those of the client alone."""
    return {name: value for name, value in options.items() if name not in ("timeout", "progress")}


def _arrays(reply: Any) -> list[np.ndarray[Any, Any]]:
    if not isinstance(reply, ForwardResult):
        return [reply]
    return [reply.output] if reply.indices is None else [reply.output, reply.indices]


def _equal(reply: Any, expected: Any) -> bool:
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(_arrays(reply), _arrays(expected), strict=True)
    )
