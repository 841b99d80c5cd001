"""Method paths, timeouts and errors of a channel, for both clients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle
from numbers import Real
from typing import Any, NamedTuple

from pooling_engine import DeadlineError, InvalidSpecError, UnavailableError

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 30.0
NOT_CONNECTED = "no connection"  # the cause of an error, among its facts
MAX_TIMEOUT_S = 1e9  # about thirty years; gRPC ignores much longer timeouts


class Methods(NamedTuple):
    """Multicallables of a channel, by the path of the method.

    They are cached: creating one takes as long as encoding a small request.

    Attributes:
        unary: returns the multicallable of a unary method.
        stream: returns the multicallable of a streaming method.
        channel: the channel.
    """

    unary: Callable[[str], Any]
    stream: Callable[[str], Any]
    channel: Any


def methods_of(channel: Any) -> Methods:
    """Return the methods of a channel of `grpc` or `grpc.aio`."""
    return Methods(cache(channel.unary_unary), cache(channel.stream_stream), channel)


def turns_of(channels: Sequence[Any]) -> Iterator[Methods]:
    """Yield the methods of each channel in turn, without end."""
    return cycle(map(methods_of, channels))


class ClosedError(ValueError):
    """The client is closed, as for a closed file."""


def closed() -> ClosedError:
    """Return the error of a call after `close`."""
    return ClosedError("the client is closed")


def closed_during_call() -> UnavailableError:
    """Return the error of a call that `close` has cancelled."""
    text = "the client was closed during the call"
    return UnavailableError(text, facts={"retryable": "false"})


def not_connected(target: str) -> DeadlineError:
    """Return the error of a call whose deadline passed before a connection was established."""
    text = f"no connection to {target} was established in time"
    return DeadlineError(text, facts={"cause": NOT_CONNECTED})


def not_in_time(target: str) -> DeadlineError:
    """Return the error of a call whose timeout has passed, apart from those of gRPC."""
    return DeadlineError(f"{target} was connected, but did not answer in time")


def seconds(timeout: float) -> float:
    """Return a timeout that gRPC accepts: infinity becomes about thirty years.

    Raises:
        InvalidSpecError: it is not a number.
    """
    is_number = isinstance(timeout, Real) and not isinstance(timeout, bool)
    value = float(min(timeout, MAX_TIMEOUT_S)) if is_number else math.nan
    if math.isnan(value):
        raise InvalidSpecError(f"timeout is {timeout!r}; it must be a number", field="timeout")
    return value
