"""Arguments of a client that configure its connections, and the gRPC channels made from them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import grpc
import numpy as np

from pooling_client._targets import check_target, is_local
from pooling_engine import InvalidSpecError
from pooling_wire import keepalive as pings

Metadata = Mapping[str, str | bytes]
Pairs = tuple[tuple[str, str | bytes], ...]
MAX_KEEPALIVE_S = 86400

CHANNEL_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The default, one second to two minutes, is longer than the deadline of most calls.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", 5000),  # duration of one attempt to connect; default 20 s
    ("grpc.dns_min_time_between_resolutions_ms", 2000),  # default 30 s
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """Arguments of a client that configure its connections, checked.

    The classes of the clients document them.

    Raises:
        InvalidSpecError: an argument is invalid.
    """

    target: str
    connections: int
    keepalive: float
    keepalive_timeout: float
    credentials: grpc.ChannelCredentials | None
    token: str | Callable[[], str] | None
    metadata: Metadata | Callable[[], Metadata] | None
    authority: str | None
    interceptors: Sequence[Any]
    compression: grpc.Compression | None
    wait_for_ready: bool
    shared_streams: bool

    def __post_init__(self) -> None:
        check_target(self.target)
        is_count = isinstance(self.connections, Integral) and self.connections is not True
        if not is_count or self.connections < 1:
            raise _invalid("connections", self.connections, "an integer of at least 1")
        _check_seconds("keepalive", self.keepalive, pings.LEAST_INTERVAL_S)
        _check_seconds("keepalive_timeout", self.keepalive_timeout, 0.001)
        if not isinstance(self.credentials, grpc.ChannelCredentials | None):
            raise _invalid("credentials", self.credentials, "a grpc.ChannelCredentials or None")
        if not callable(self.metadata):
            metadata_pairs(self.metadata)
        if self.token is not None and not callable(self.token):
            _authorization(self.token)
        if not isinstance(self.authority, str | None) or self.authority == "":
            raise _invalid("authority", self.authority, "a host name or None")
        if isinstance(self.interceptors, str) or not isinstance(self.interceptors, Sequence):
            raise _invalid("interceptors", self.interceptors, "a sequence of gRPC interceptors")
        if not isinstance(self.compression, grpc.Compression | None):
            raise _invalid("compression", self.compression, "a grpc.Compression or None")
        for name in ("wait_for_ready", "shared_streams"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise _invalid(name, getattr(self, name), "True or False")

    @property
    def shares_streams(self) -> bool:
        """True if small calls may share streams.

        Interceptors, and a function that returns metadata for each call, see unary calls, but not
        the items of a stream. A stream stays at one of several servers.
        """
        has_one_address = not self.target.startswith("dns:") and "," not in self.target
        needs_calls = bool(self.interceptors) or callable(self.metadata)
        return self.shared_streams and has_one_address and not needs_calls

    def current_metadata(self) -> Pairs | None:
        """Return the metadata of one attempt of a call.

        Raises:
            InvalidSpecError: the function of the caller returned something else.
        """
        if self.metadata is None and self.token is None:
            return None
        pairs = metadata_pairs(self.metadata() if callable(self.metadata) else self.metadata)
        if self.token is None:
            return pairs
        return *pairs, _authorization(self.token() if callable(self.token) else self.token)

    def channels(self) -> list[grpc.Channel]:
        """Open the channels of a blocking client."""
        opened = []
        for _ in range(self.connections):
            arguments = (self.target, self._options(), self.compression)
            if self.credentials is None:
                channel = grpc.insecure_channel(*arguments)
            else:
                channel = grpc.secure_channel(self.target, self.credentials, *arguments[1:])
            opened.append(grpc.intercept_channel(channel, *self.interceptors))
        return opened

    def async_channels(self) -> list[grpc.aio.Channel]:
        """Open the channels of an asyncio client, for the running event loop."""
        opened = []
        for _ in range(self.connections):
            more: dict[str, Any] = {
                "options": self._options(),
                "compression": self.compression,
                "interceptors": list(self.interceptors) or None,
            }
            if self.credentials is None:
                opened.append(grpc.aio.insecure_channel(self.target, **more))
            else:
                opened.append(grpc.aio.secure_channel(self.target, self.credentials, **more))
        return opened

    def _options(self) -> list[tuple[str, str | int]]:
        options = [
            *CHANNEL_OPTIONS,
            *pings.client_options(self.keepalive, self.keepalive_timeout),
        ]
        if self.connections > 1:  # by default, channels to the same server share one connection
            options.append(("grpc.use_local_subchannel_pool", 1))
        if self.authority is not None:
            options.append(("grpc.default_authority", self.authority))
        if is_local(self.target):  # gRPC's C core would use a proxy even for this machine
            options.append(("grpc.enable_http_proxy", 0))
        return options


def metadata_pairs(metadata: Metadata | None) -> Pairs:
    """Return metadata as gRPC takes it, with keys in lower case.

    Raises:
        InvalidSpecError: it is not a mapping, or an entry is illegal.
    """
    if metadata is None:
        return ()
    if not isinstance(metadata, Mapping):
        raise _invalid("metadata", metadata, "a mapping, or a function that returns one")
    return tuple(_pair(key, value) for key, value in metadata.items())


def _pair(key: object, value: object) -> tuple[str, str | bytes]:
    """Return an entry of metadata. Values may be secrets, so no message contains one."""
    field = f"metadata[{key!r}]"
    if not isinstance(key, str) or not re.fullmatch(r"[0-9A-Za-z_.-]+", key):
        raise InvalidSpecError(
            f"{field}: keys consist of letters, digits, '_', '-' and '.'", field="metadata"
        )
    if key.lower().startswith("grpc-"):
        raise InvalidSpecError(f"{field}: keys with grpc- belong to gRPC", field="metadata")
    wanted = bytes if key.lower().endswith("-bin") else str
    if not isinstance(value, wanted):
        raise InvalidSpecError(
            f"{field} is of type {type(value).__name__}; it must be {wanted.__name__}"
            " (bytes for keys that end with -bin)",
            field="metadata",
        )
    if isinstance(value, str) and not (value.isascii() and value.isprintable()):
        raise InvalidSpecError(
            f"{field} has characters that are not printable ASCII", field="metadata"
        )
    assert isinstance(value, str | bytes)
    return key.lower(), value


def _authorization(token: object) -> tuple[str, str]:
    """Return the entry of metadata for a bearer token. No message contains the token."""
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        kind = "text with other characters" if isinstance(token, str) else type(token).__name__
        raise InvalidSpecError(
            f"token is {kind}; it must be printable ASCII without spaces", field="token"
        )
    return "authorization", f"Bearer {token}"


def _check_seconds(name: str, value: float, least: float) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and least <= value <= MAX_KEEPALIVE_S):
        legal = f"a number of seconds from {least:g} to {MAX_KEEPALIVE_S}"
        raise _invalid(name, value, legal)


def _invalid(name: str, value: object, legal: str) -> InvalidSpecError:
    return InvalidSpecError(f"{name} is {value!r}; it must be {legal}", field=name)
