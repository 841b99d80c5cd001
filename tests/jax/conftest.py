"""Fixtures of the JAX tests: the address of a server, and float64."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest

from pooling_server import PoolingServer, ServerConfig


@pytest.fixture(scope="session")
def server() -> Iterator[PoolingServer]:
    """Start a server that computes with NumPy; all backends return the same bits."""
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy", warm_up=False))
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"


@pytest.fixture
def address(server: PoolingServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a server, which is also the default of this test."""
    monkeypatch.setenv("POOLING_TARGET", server.address)
    return server.address


@pytest.fixture
def x64() -> Iterator[None]:
    """Enable float64."""
    with jax.enable_x64(True):
        yield
