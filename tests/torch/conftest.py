"""Fixtures of the PyTorch tests: the address of a server, and the calls that a client sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pooling_client import PoolingClient
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


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, dict[str, Any]]]:
    """Return a list that grows by each call of a client: method, first array, other arguments."""
    seen: list[tuple[str, Any, dict[str, Any]]] = []

    def spy(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(self: Any, array: Any, spec: Any, **options: Any) -> Any:
            seen.append((name, array, options))
            return method(self, array, spec, **options)

        return recorded

    for name in ("forward", "backward"):
        monkeypatch.setattr(PoolingClient, name, spy(name, getattr(PoolingClient, name)))
    return seen
