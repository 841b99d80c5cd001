"""Keepalive pings, with which each end detects that the other one no longer answers.

gRPC's defaults do not suffice: a server rejects pings more frequent than every five minutes as
abuse and closes the connection ("too_many_pings"), and sends its own only every two hours.
"""

from __future__ import annotations

Options = list[tuple[str, int]]

LEAST_INTERVAL_S = 1.0  # between pings of a client; the server permits twice that rate
INTERVAL_S = 10.0
TIMEOUT_S = 20.0  # on a slow network the answer queues behind the data being sent
SERVER_INTERVAL_S = 30.0  # load balancers drop connections that are silent for minutes
SERVER_TIMEOUT_S = 20.0

__all__ = [
    "INTERVAL_S",
    "LEAST_INTERVAL_S",
    "SERVER_INTERVAL_S",
    "SERVER_TIMEOUT_S",
    "TIMEOUT_S",
    "Options",
    "client_options",
    "server_options",
]


def client_options(interval_s: float, timeout_s: float) -> Options:
    """Return the keepalive options of a client's channel.

    It pings only while a call is waiting, so an idle connection costs nothing; the next call
    detects a dead one. After two pings without data from the client, gRPC pings once a minute.

    Args:
        interval_s: seconds of silence before a ping, at least `LEAST_INTERVAL_S`.
        timeout_s: seconds to wait for the answer.
    """
    return [
        ("grpc.keepalive_permit_without_calls", 0),
        # More pings in a row, without data, are abuse to a peer with gRPC's default limits.
        ("grpc.http2.max_pings_without_data", 2),
        *_pings(interval_s, timeout_s),
    ]


def server_options() -> Options:
    """Return the keepalive options of a server: its own pings, and those that it permits."""
    return [
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # unlimited: a call may wait for a long time
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(LEAST_INTERVAL_S / 2)),
        *_pings(SERVER_INTERVAL_S, SERVER_TIMEOUT_S),
    ]


def _pings(interval_s: float, timeout_s: float) -> Options:
    return [
        ("grpc.keepalive_time_ms", _ms(interval_s)),
        # grpcio 1.85 uses the second one, which defaults to a minute, for pings. The first one is
        # the timeout of TCP.
        ("grpc.keepalive_timeout_ms", _ms(timeout_s)),
        ("grpc.http2.ping_timeout_ms", _ms(timeout_s)),
    ]


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
