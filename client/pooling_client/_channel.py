"""How both clients reach a server: the options of their channels and the names of the methods."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pooling_wire
from pooling_engine import InvalidSpecError
from pooling_engine.specs.options import number
from pooling_wire import keepalive as pings

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 30.0
MOST_SECONDS = 86400
MOST_TIMEOUT_S = 1e9  # some thirty years; gRPC takes much longer ones for none at all

FORWARD = f"/{pooling_wire.SERVICE_NAME}/Forward"
BACKWARD = f"/{pooling_wire.SERVICE_NAME}/Backward"
FORWARD_STREAM = f"/{pooling_wire.SERVICE_NAME}/ForwardStream"
BACKWARD_STREAM = f"/{pooling_wire.SERVICE_NAME}/BackwardStream"
GET_SERVER_INFO = f"/{pooling_wire.SERVICE_NAME}/GetServerInfo"

# Every call may be repeated, so a server that is away for a moment is asked again; also where it
# cancelled a call, as gRPC does with what comes in the moment of a stop. Streams are taken up by
# the client itself, where they had come to.
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}

CHANNEL_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.per_rpc_retry_buffer_size", 1 << 30),  # or only small requests would be repeated
    # By default a second, then up to two minutes: a call would give up before.
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
                            for method in ("Forward", "Backward", "GetServerInfo")
                        ],
                        "retryPolicy": _RETRY_POLICY,
                    }
                ]
            }
        ),
    ),
]


class Methods(NamedTuple):
    """The methods of a channel, by their names.

    Each is made once: that takes as long as encoding a small request.

    Attributes:
        unary: gives the multicallable of a unary method.
        stream: gives that of a stream.
    """

    unary: Callable[[str], Any]
    stream: Callable[[str], Any]


def methods_of(channel: Any) -> Methods:
    """The methods of a channel of gRPC's, be it for threads or for coroutines."""
    return Methods(cache(channel.unary_unary), cache(channel.stream_stream))


def closed() -> Methods:
    """Takes the place of the methods of a client that is closed.

    Raises:
        ValueError: always, as files do.
    """
    raise ValueError("the client is closed")


def check_target(target: str) -> None:
    """Refuses what is no target.

    Raises:
        InvalidSpecError: it is empty, no text, a path or a web address.
    """
    is_text = isinstance(target, str) and target
    if not is_text or target.startswith(("/", ".", "http:", "https:")):
        raise InvalidSpecError(
            f"target is {target!r}; it must be HOST:PORT or unix:/PATH", field="target"
        )


def seconds(timeout: float) -> float:
    """A timeout as gRPC takes it; of one without end, some thirty years.

    Raises:
        InvalidSpecError: it is no number.
    """
    value = number("timeout", timeout)
    if math.isnan(value):
        raise InvalidSpecError("timeout is nan; it must be a number", field="timeout")
    return min(value, MOST_TIMEOUT_S)


def options_of_each(
    connections: int, keepalive: float, keepalive_timeout: float
) -> list[list[tuple[str, str | int]]]:
    """The options of each of a client's channels; several have a connection each.

    Raises:
        InvalidSpecError: `connections` is no integer of at least 1, or the others are no seconds.
    """
    if not isinstance(connections, int) or connections < 1:
        raise InvalidSpecError(
            f"connections is {connections!r}; it must be an integer of at least 1",
            field="connections",
        )
    _check_seconds("keepalive", keepalive, pings.LEAST_INTERVAL_S)
    _check_seconds("keepalive_timeout", keepalive_timeout, 0.001)
    # By default channels to the same server share one connection.
    own = [("grpc.use_local_subchannel_pool", 1)] if connections > 1 else []
    alive = pings.client_options(keepalive, keepalive_timeout)
    return [[*CHANNEL_OPTIONS, *alive, *own]] * connections


def _check_seconds(name: str, value: float, least: float) -> None:
    is_number = isinstance(value, int | float)
    if not (is_number and least <= value <= MOST_SECONDS):
        raise InvalidSpecError(
            f"{name} is {value!r}; it must be seconds, {least:g} to {MOST_SECONDS}", field=name
        )
