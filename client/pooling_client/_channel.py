"""Channel options, method paths and argument checks of both clients."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from numbers import Real
from typing import Any, NamedTuple

import pooling_wire
from pooling_engine import DeadlineError, InvalidSpecError, UnavailableError
from pooling_wire import keepalive as pings

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 30.0
MAX_KEEPALIVE_S = 86400
MAX_TIMEOUT_S = 1e9  # about thirty years; gRPC ignores much longer timeouts

# Every call may be repeated, so gRPC retries unary calls while the server is briefly unavailable.
# CANCELLED is included because gRPC cancels calls that arrive while a server stops. Streams are
# resumed by the client: see `pooling_client._streams`.
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}

_RETRIED = [*(row.name for row in pooling_wire.METHODS), pooling_wire.GET_SERVER_INFO]

CHANNEL_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.per_rpc_retry_buffer_size", 1 << 30),  # otherwise only small requests are retried
    # The default, one second to two minutes, is longer than the deadline of most calls.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [
                            {"service": pooling_wire.SERVICE_NAME, "method": method}
                            for method in _RETRIED
                        ],
                        "retryPolicy": _RETRY_POLICY,
                    }
                ]
            }
        ),
    ),
]


class Methods(NamedTuple):
    """Multicallables of a channel, by the path of the method.

    They are cached: creating one takes as long as encoding a small request.

    Attributes:
        unary: returns the multicallable of a unary method.
        stream: returns the multicallable of a streaming method.
    """

    unary: Callable[[str], Any]
    stream: Callable[[str], Any]


def methods_of(channel: Any) -> Methods:
    """Return the methods of a channel of `grpc` or `grpc.aio`."""
    return Methods(cache(channel.unary_unary), cache(channel.stream_stream))


def closed() -> Methods:
    """Stand in for the methods of a closed client.

    Raises:
        ValueError: always, as for a closed file.
    """
    raise ValueError("the client is closed")


def not_in_time(target: str) -> DeadlineError:
    """Return the error of a call over a shared stream whose timeout has passed."""
    return DeadlineError(f"{target} did not answer in time (DEADLINE_EXCEEDED: Deadline Exceeded)")


def closed_meanwhile(target: str) -> UnavailableError:
    """Return the error of a call over a shared stream during which the client was closed."""
    return UnavailableError(f"the call to {target} was cancelled (CANCELLED: client closed)")


def check_target(target: str) -> None:
    """Check the address of a server.

    Raises:
        InvalidSpecError: it is not a string, or it is empty, a path or a web address.
    """
    is_string = isinstance(target, str) and target
    if not is_string or target.startswith(("/", ".", "http:", "https:")):
        raise InvalidSpecError(
            f"target is {target!r}; it must be HOST:PORT or unix:/PATH", field="target"
        )


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


def options_of_each(
    connections: int, keepalive: float, keepalive_timeout: float
) -> list[list[tuple[str, str | int]]]:
    """Return the options of each channel of a client. Each channel has its own connection.

    Raises:
        InvalidSpecError: `connections` is not an integer of at least 1, or the others are not a
            number of seconds in their range.
    """
    if not isinstance(connections, int) or connections < 1:
        raise InvalidSpecError(
            f"connections is {connections!r}; it must be an integer of at least 1",
            field="connections",
        )
    _check_seconds("keepalive", keepalive, pings.LEAST_INTERVAL_S)
    _check_seconds("keepalive_timeout", keepalive_timeout, 0.001)
    # By default, channels to the same server share one connection.
    own = [("grpc.use_local_subchannel_pool", 1)] if connections > 1 else []
    alive = pings.client_options(keepalive, keepalive_timeout)
    return [[*CHANNEL_OPTIONS, *alive, *own]] * connections


def _check_seconds(name: str, value: float, least: float) -> None:
    is_number = isinstance(value, int | float)
    if not (is_number and least <= value <= MAX_KEEPALIVE_S):
        raise InvalidSpecError(
            f"{name} is {value!r}; it must be a number of seconds "
            f"from {least:g} to {MAX_KEEPALIVE_S}",
            field=name,
        )
