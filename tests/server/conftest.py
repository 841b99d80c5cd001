"""Fixtures of the server tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Return a path for a Unix socket; paths under `tmp_path` can be too long for one."""
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        yield Path(folder) / "s"
