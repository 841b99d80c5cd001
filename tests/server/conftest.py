"""Fixtures of the server tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pooling_server import PoolingServer, ServerConfig
from pooling_server.serving import app


@pytest.fixture(scope="session", autouse=True)
def inline_calls() -> Iterator[None]:
    """Let threads answer every call if the server's variable says so; see `make test-grpcio`."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("POOLING_INLINE_CALLS") == "false":
            patch.setattr(app, "_supports_inline_calls", lambda: False)
        yield


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Return a path for a Unix socket; paths under `tmp_path` can be too long for one."""
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        yield Path(folder) / "s"


@pytest.fixture
def unix_server(socket_path: Path) -> Iterator[PoolingServer]:
    """Start a server with a Unix socket and a port, which leases up to 16 MiB."""
    config = ServerConfig(
        listen=f"unix:{socket_path},127.0.0.1:0",
        backend="numpy",
        warm_up=False,
        shared_memory_bytes=16 << 20,
    )
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop()
    assert server.stop()  # once more, to no effect
    assert list(socket_path.parent.iterdir()) == []
