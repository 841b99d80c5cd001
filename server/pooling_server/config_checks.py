"""Checks of the options of a server that concern several options, or all of them.

A `Config` is a `ServerConfig`, whose module imports this one.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from pooling_server.processes.devices import split_devices
from pooling_server.sockets.listening import is_local, is_unix, split_addresses

Config = Any
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s,]+")


def check_minimums(config: Config) -> None:
    """Reject numbers below the minimum of their option, and those that are not finite."""
    for field in dataclasses.fields(config):
        value, minimum = getattr(config, field.name), field.metadata["minimum"]
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field.name} is {value}; it must be a finite number")
        if minimum is not None and value < minimum:
            raise ValueError(f"{field.name} is {value}; it must be at least {minimum}")


def check_security(config: Config) -> None:
    """Reject incomplete TLS options, and plaintext that other hosts could reach."""
    if bool(config.tls_certificate) != bool(config.tls_key):
        raise ValueError(
            "tls_certificate and tls_key must be given together; "
            f"{'tls_key' if config.tls_certificate else 'tls_certificate'} is missing"
        )
    if config.tls_client_ca and not config.tls_certificate:
        raise ValueError("tls_client_ca needs tls_certificate and tls_key")
    metrics = _one_port("metrics_listen", config.metrics_listen)
    if metrics and not (is_local(metrics) or config.allow_plaintext):
        raise ValueError(
            f"metrics_listen is {metrics!r}, which other hosts can reach without TLS; "
            "it must be a local address, or allow_plaintext given"
        )
    if config.tls_certificate or config.allow_plaintext:
        return
    http = _one_port("http_listen", config.http_listen)
    addresses = [("listen", address) for address in split_addresses(config.listen)]
    for name, address in [*addresses, *([("http_listen", http)] if http else [])]:
        if not is_local(address):
            raise ValueError(
                f"{name} is {address!r}, which other hosts can reach without TLS; "
                "give tls_certificate and tls_key, or allow_plaintext"
            )


def _one_port(name: str, listen: str) -> str:
    """Return the only HOST:PORT of an option, or "" if it is empty."""
    if not listen:
        return ""
    try:
        (address,) = split_addresses(listen, name)
    except ValueError:
        address = ""
    if not address or is_unix(address):
        raise ValueError(
            f"{name} is {listen!r}; it must be one HOST:PORT, with a port from 0 to 65535"
        )
    return address


def check_http(config: Config) -> None:
    """Reject values that are not origins, and origins without an HTTP endpoint."""
    _one_port("http_listen", config.http_listen)
    for origin in split_origins(config.http_cors_origin):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"http_cors_origin is {origin!r}; it must be SCHEME://HOST or SCHEME://HOST:PORT, "
                'without a path, or "*"'
            )
    if config.http_cors_origin and not config.http_listen:
        raise ValueError("http_cors_origin needs http_listen")


def split_origins(origins: str) -> tuple[str, ...]:
    """Return the origins in a comma-separated list."""
    return tuple(origin.strip() for origin in origins.split(",")) if origins else ()


def check_workers(config: Config) -> None:
    """Reject several processes that would have only Unix sockets to share."""
    addresses, devices = split_addresses(config.listen), split_devices(config.devices)
    if max(config.workers, len(devices)) > 1 and all(map(is_unix, addresses)):
        name = "devices" if devices else "workers"
        raise ValueError(
            f"{name} is {getattr(config, name)}, but a Unix socket cannot be shared; "
            f"it must be {'one device' if devices else 1}, or listen must include a HOST:PORT"
        )


def check_devices(config: Config) -> None:
    """Reject devices beside workers, or beside a backend that computes on the CPU."""
    if not config.devices:
        return
    if config.workers > 1:
        raise ValueError(
            f"devices is {config.devices!r} and workers is {config.workers}; "
            "each device has exactly one worker, so workers must be omitted"
        )
    if config.backend not in ("auto", "cupy"):
        raise ValueError(
            f"devices is {config.devices!r} and backend is {config.backend!r}; "
            'with devices, backend must be "cupy" or omitted'
        )
