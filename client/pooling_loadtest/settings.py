"""Everything that defines a load test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc

from pooling_loadtest.schedules import Schedule

PROTOCOLS = ("grpc", "oip-grpc", "oip-rest")
TRANSPORTS = ("unary", "stream", "many", "shared_memory")
DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class KindOfCall:
    """One kind of call of a mix.

    Attributes:
        name: name in the report.
        shape: shape of the input of the layer.
        dtype: element type of the input.
        spec: arguments of `PoolSpec`.
        direction: "forward" or "backward".
        transport: "unary": one gRPC call for each; "stream": items of one stream for each
            connection, pre-encoded; "many": `forward_many` or `backward_many` of the client;
            "shared_memory": blocking calls of the client with arrays in shared memory. The OIP
            protocols have "unary" only.
        return_indices: forward: return the indices too.
        weight: share of the calls, relative to the other kinds.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    spec: dict[str, Any] = field(default_factory=dict)
    direction: str = "forward"
    transport: str = "unary"
    return_indices: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class Security:
    """TLS and token of the connections; unlike gRPC's credentials it can be sent to a process.

    Attributes:
        tls: PEM contents of authority, key and certificate, each or None; None for plaintext.
        server_name: name in the server's certificate, if it is not that of the target.
        token: bearer token, or None.
    """

    tls: tuple[bytes | None, bytes | None, bytes | None] | None = None
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials of a channel; None for plaintext."""
        return None if self.tls is None else grpc.ssl_channel_credentials(*self.tls)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


@dataclass(frozen=True)
class LoadTest:
    """Settings of a load test.

    Attributes:
        title: one line for the top of the report.
        targets: addresses of the server; calls rotate among the connections.
        kinds: kinds of calls.
        schedule: rates of the open loop; None for the closed loop.
        callers: number of callers of the closed loop, all processes together.
        duration_s: planned duration in seconds.
        protocol: one of `PROTOCOLS`.
        model: model of another OIP server; None for those of a pooling server.
        input: name of the model's input; None: the name that the server reports.
        parameters: parameters of each request to an OIP server.
        processes: number of generator processes.
        connections: number of connections of each process.
        max_in_flight: maximum number of calls in flight, all processes together.
        timeout_s: deadline of a call.
        verify: fraction of the replies to compare with the local engine.
        security: TLS and token.
        seed: seed of the schedule, the mix and the tensors.
        give_up_s: seconds in which every call fails with UNAVAILABLE, after which the test stops.
        metrics_url: address of Prometheus metrics of the server, read once a second.
        command: the command line.
    """

    title: str
    targets: tuple[str, ...]
    kinds: tuple[KindOfCall, ...]
    schedule: Schedule | None
    callers: int | None
    duration_s: float
    protocol: str = "grpc"
    model: str | None = None
    input: str | None = None
    parameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    processes: int = 1
    connections: int = 1
    max_in_flight: int = 1000
    timeout_s: float = 10.0
    verify: float = 0.0
    security: Security = field(default_factory=Security)
    seed: int = 0
    give_up_s: float = 5.0
    metrics_url: str | None = None
    command: tuple[str, ...] = ()
