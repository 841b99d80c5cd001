"""Fixtures: a real server on a free port, a generated stub, and our client.

They import gRPC when they run: the GPU tests run without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import grpc

    from pooling_client import PoolingClient
    from pooling_server import PoolingServer
    from pooling_wire.v1 import pooling_pb2_grpc


@pytest.fixture(scope="session")
def server() -> Iterator[PoolingServer]:
    from pooling_server import PoolingServer, ServerConfig

    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", max_message_bytes=32 << 20))
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"


@pytest.fixture(scope="session")
def channel(server: PoolingServer) -> Iterator[grpc.Channel]:
    import grpc

    with grpc.insecure_channel(
        server.address, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> pooling_pb2_grpc.PoolingServiceStub:
    from pooling_wire.v1 import pooling_pb2_grpc

    return pooling_pb2_grpc.PoolingServiceStub(channel)


@pytest.fixture
def client(server: PoolingServer) -> Iterator[PoolingClient]:
    from pooling_client import PoolingClient

    with PoolingClient(server.address) as client:
        yield client
