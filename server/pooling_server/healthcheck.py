"""Health check for containers: exit code 0 if the server reports SERVING, otherwise 1.

Run as `python -m pooling_server.healthcheck`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import grpc

try:
    import click
    from grpc_health.v1 import health_pb2, health_pb2_grpc
except ImportError as error:
    sys.exit(f"error: the health check needs click and grpcio-health-checking: {error}")

from pooling_server.config import ServerConfig, variable
from pooling_server.sockets.listening import client_target, is_unix, split_addresses

PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--target",
    help="Address of the server.  [default: of those in POOLING_LISTEN the first Unix socket, "
    "which needs no TLS, or else the first]",
)
@click.option(
    "--service",
    default="",
    help='Service to query: empty for readiness, "liveness" for liveness.',
)
@click.option("--ca", type=PEM, help="Authority of the server's certificate; implies TLS.")
@click.option(
    "--server-name", help="Name in the server's certificate, if it is not that of the target."
)
@click.option("--certificate", type=PEM, help="Certificate of this client, for mutual TLS.")
@click.option("--key", type=PEM, help="Private key of this client, for mutual TLS.")
@click.option("--timeout", default=3.0, show_default=True, help="Timeout in seconds.")
def main(
    target: str | None,
    service: str,
    ca: Path | None,
    server_name: str | None,
    certificate: Path | None,
    key: Path | None,
    timeout: float,
) -> None:
    """Query the health of a server through grpc.health.v1."""
    if target is None:
        try:
            addresses = split_addresses(os.environ.get(variable("listen"), ServerConfig().listen))
            target = client_target(next(filter(is_unix, addresses), addresses[0]))
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    with _channel(target, options, ca, certificate, key) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            print(f"error: {target}: {error.code().name}", file=sys.stderr)
            sys.exit(1)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    print(status)
    sys.exit(0 if status == "SERVING" else 1)


def _channel(
    target: str,
    options: list[tuple[str, Any]],
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
) -> grpc.Channel:
    if not (ca or certificate or key):
        return grpc.insecure_channel(target, options)
    contents = [path.read_bytes() if path else None for path in (ca, key, certificate)]
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(*contents), options)


if __name__ == "__main__":
    main()
