"""How both ends find out that the other is gone: pings, at a rate that the server permits.

gRPC's defaults do not do it: a server takes pings more often than every five minutes as abuse and
closes the connection ("too_many_pings"), and its own come every two hours.
"""

from __future__ import annotations

Options = list[tuple[str, int]]

LEAST_INTERVAL_S = 1.0  # of a client's pings; the server permits twice as many
INTERVAL_S = 10.0
TIMEOUT_S = 20.0  # on a slow network the answer waits behind what is being sent
SERVER_INTERVAL_S = 30.0  # balancers forget a connection that is silent for minutes
SERVER_TIMEOUT_S = 20.0


def client_options(interval_s: float, timeout_s: float) -> Options:
    """The options of a client's channel.

    It pings while a call waits, and no longer: a connection without calls costs nothing, and the
    first call finds out whether it is still there.

    Args:
        interval_s: seconds of silence after which it pings, at least `LEAST_INTERVAL_S`.
        timeout_s: seconds to wait for the answer.
    """
    return [("grpc.keepalive_permit_without_calls", 0), *_pings(interval_s, timeout_s)]


def server_options() -> Options:
    """The options of a server: its own pings, with calls or without, and those that it permits."""
    return [
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(LEAST_INTERVAL_S / 2)),
        *_pings(SERVER_INTERVAL_S, SERVER_TIMEOUT_S),
    ]


def _pings(interval_s: float, timeout_s: float) -> Options:
    return [
        ("grpc.keepalive_time_ms", _ms(interval_s)),
        ("grpc.http2.max_pings_without_data", 0),  # no end to them: a call may wait for long
        # Of the two, grpcio 1.85 waits for the second, by default a minute; the first is what TCP
        # waits for.
        ("grpc.keepalive_timeout_ms", _ms(timeout_s)),
        ("grpc.http2.ping_timeout_ms", _ms(timeout_s)),
    ]


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
