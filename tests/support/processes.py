"""Server processes: start, read the address from the first line, stop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pooling_engine.backends import available_backends
from tests.support.waiting import LIMIT_S

SERVE = [sys.executable, "-m", "pooling_cli.main", "serve"]


@contextmanager
def process(*flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server process; yield it and its first line."""
    server = subprocess.Popen(
        [*SERVE, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate(timeout=LIMIT_S)  # workers hold the same pipes


def wait_until_draining(address: str) -> None:
    """Wait until the server at that address reports NOT_SERVING."""
    with grpc.insecure_channel(address) as channel:
        changes = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        while next(changes).status == health_pb2.HealthCheckResponse.SERVING:
            pass
        changes.cancel()


def address_in(banner: str) -> str:
    found = re.fullmatch(
        r"pooling \S+ listening on (\S+), computing with (\w+) \(CPU, .*\)", banner
    )
    assert found, banner
    assert found[2] in available_backends()
    return found[1]
