"""`python -m pooling_server.healthcheck`: exit code 0 if the server answers SERVING, else 1."""

from __future__ import annotations

import os
import sys

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PORT = os.environ.get("POOLING_LISTEN", ":50051").rpartition(":")[2]


@click.command()
@click.option("--target", default=f"127.0.0.1:{_PORT}", show_default=True, help="Which server.")
@click.option("--timeout", default=3.0, show_default=True, help="Seconds to wait.")
def main(target: str, timeout: float) -> None:
    """Ask a server for its health over grpc.health.v1."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest()
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            print(f"error: {target}: {error.code().name}", file=sys.stderr)
            sys.exit(1)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    print(status)
    sys.exit(0 if status == "SERVING" else 1)


if __name__ == "__main__":
    main()
