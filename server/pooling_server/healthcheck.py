"""Health check for containers: exit code 0 if the server reports SERVING, otherwise 1.

Run as `python -m pooling_server.healthcheck`.
"""

from __future__ import annotations

import os
import sys

import grpc

try:
    import click
    from grpc_health.v1 import health_pb2, health_pb2_grpc
except ImportError as error:
    sys.exit(f"error: the health check needs click and grpcio-health-checking: {error}")

from pooling_server.config import ServerConfig, variable
from pooling_server.sockets.listening import client_target, split_addresses


@click.command()
@click.option(
    "--target", help="Address of the server.  [default: the first address in POOLING_LISTEN]"
)
@click.option(
    "--service",
    default="",
    help='Service to query: empty for readiness, "liveness" for liveness.',
)
@click.option("--timeout", default=3.0, show_default=True, help="Timeout in seconds.")
def main(target: str | None, service: str, timeout: float) -> None:
    """Query the health of a server through grpc.health.v1."""
    if target is None:
        try:
            listen = os.environ.get(variable("listen"), ServerConfig().listen)
            target = client_target(split_addresses(listen)[0])
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            print(f"error: {target}: {error.code().name}", file=sys.stderr)
            sys.exit(1)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    print(status)
    sys.exit(0 if status == "SERVING" else 1)


if __name__ == "__main__":
    main()
