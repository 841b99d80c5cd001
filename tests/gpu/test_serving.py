"""A server on a card: `fakes/` stands in for CuPy, the server and its calls are real."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest

from pooling_client import ForwardCall, PoolingClient
from pooling_engine import DeviceMemoryError, PoolSpec, forward
from pooling_server import PoolingServer, ServerConfig

SPEC = PoolSpec("max", 2)
MIB = 1 << 20


@pytest.fixture
def serve(fault, every_kernel):
    """Starts a server of the given options; stops all of them in the end."""
    servers = []

    def start(**options):
        config = ServerConfig(listen="127.0.0.1:0", backend="cupy", warm_up=False, **options)
        servers.append(PoolingServer(config))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def assert_answers(client):
    x = cases.normal((2, 3, 8, 8))
    oracle.assert_same_bits(
        client.forward(x, SPEC).output, forward(x, SPEC, backend="numpy").output
    )


def whole(client, x):
    """The output for a tensor that is sent as it is, not in pieces."""
    (result,) = client.forward_many([ForwardCall(x, SPEC)])
    return result.output


def test_a_call_that_the_memory_of_the_card_has_no_room_for(serve):
    from cupy import cuda

    server = serve(device_memory_bytes=64 * MIB)
    assert cuda.MEMORY.get_limit() == 64 * MIB
    with PoolingClient(server.address) as client:
        assert_answers(client)
        cuda.MEMORY.set_limit(20 * MIB)
        fits = np.zeros((1, 1, 2048, 2048), np.float32)  # 16 MiB and 4
        whole(client, fits)
        exceeds = np.zeros((1, 1, 2048, 2052), np.float32)
        for _ in range(2):
            with pytest.raises(DeviceMemoryError, match="no room: Out of memory"):
                whole(client, exceeds)
            assert_answers(client)
        whole(client, fits)


def test_a_card_whose_memory_another_program_has_taken(serve, fault):
    server = serve()
    x = np.zeros((1, 1, 4096, 1024), np.float32)
    with PoolingClient(server.address) as client:
        fault.write_text("memory")
        with pytest.raises(DeviceMemoryError, match="the device has no room"):
            whole(client, x)
        fault.unlink()
        whole(client, x)
        assert_answers(client)


@pytest.mark.parametrize("nbytes", [1, 64 * MIB - 1, -1])
def test_too_little_memory_for_any_call_is_refused(nbytes):
    with pytest.raises(ValueError, match=f"device_memory_bytes is {nbytes}; it must be "):
        ServerConfig(device_memory_bytes=nbytes)
