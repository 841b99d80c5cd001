"""Steps of a call, which a driver performs over a transport, and the state of a client."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from pooling_client._limits import UNKNOWN, RequestLimits
from pooling_client._retries import Throttle
from pooling_client._shared_memory import SharedMemory
from pooling_client._streams.backlog import Reply, Request

Result = TypeVar("Result")
Progress = Callable[[int, int], object]


class Send(NamedTuple):
    """Step: send one request; the reply to the step is the reply of the server.

    Attributes:
        method: path of a unary method.
        request: bytes of the message.
        timeout_s: seconds for the reply.
    """

    method: str
    request: bytes
    timeout_s: float


class Share(NamedTuple):
    """Step: send an item over a shared stream that carries one such item at a time.

    The reply to the step is the reply of the server, or None if the item was not sent.

    Attributes:
        method: path of a streaming method.
        item: bytes of the item.
        deadline: time of `time.monotonic`.
    """

    method: str
    item: bytes
    deadline: float


class Stream(NamedTuple):
    """Step: send requests over one stream; the reply to the step is None, after the last reply.

    Attributes:
        method: path of a streaming method.
        requests: pairs of a token and a request.
        receive: takes the token and the reply of each request, in order.
        window: maximum number of requests without a reply.
        timeout_s: seconds for the whole stream.
    """

    method: str
    requests: Iterator[tuple[Any, Request]]
    receive: Callable[[Any, Reply], None]
    window: int
    timeout_s: float


class Wait(NamedTuple):
    """Step: wait before the next attempt.

    Attributes:
        seconds: seconds to wait.
        connects: True if there was no connection.
    """

    seconds: float
    connects: bool


class Run(NamedTuple):
    """Step: call a function that may take long; the reply to the step is its result.

    Attributes:
        work: leases memory from the server and copies tensors.
    """

    work: Callable[[], Any]


Step = Send | Share | Stream | Wait | Run
Steps = Generator[Step, Any, Result]


class Session:
    """State that the calls of one client share.

    Args:
        shared_memory: arrays that the client shares with the server.
        patience_s: seconds of attempts after which an unavailable server fails a call.
        shares_streams: send small calls, and calls in shared memory, over shared streams.

    Attributes:
        limits: limits of the server, as far as they are known.
        places_items: False once the server has rejected locations in shared memory on a stream.
        knows_layers: False once the server has ignored further layers of a request.
        throttle: budget of retries.
        ids: numbers of the items on shared streams.
    """

    def __init__(
        self,
        shared_memory: SharedMemory,
        patience_s: float = math.inf,
        *,
        shares_streams: bool = False,
    ) -> None:
        self.shared_memory = shared_memory
        self.patience_s = patience_s
        self.shares_streams = shares_streams
        self.ids = itertools.count(1)
        self.throttle = Throttle()
        self.limits: RequestLimits = UNKNOWN
        self.knows_layers = True
        self.places_items = True


def left_s(deadline: float) -> float:
    """Return the seconds until a time of `time.monotonic`, at least 0."""
    return max(0.0, deadline - monotonic())
