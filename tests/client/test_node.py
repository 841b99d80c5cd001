"""Calls from another language, with the .proto alone: the tests in `client/node`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pooling_server import PoolingServer
from tests.support.waiting import LIMIT_S

FOLDER = Path(__file__).parents[2] / "client/node"


@pytest.mark.parametrize(("script", "count"), [("calls.test.js", 10), ("vectors.test.js", 10)])
def test_every_call_from_node(server: PoolingServer, script: str, count: int) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not installed; the tests need Node 20 or later")
    if not (FOLDER / "node_modules/@grpc/grpc-js").is_dir():
        pytest.fail("the packages for Node are not installed: make test, or npm ci in client/node")
    done = subprocess.run(
        [node, "--test", script],
        cwd=FOLDER,
        env=os.environ | {"POOLING_TARGET": server.address},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"# pass {count}\n" in done.stdout, "a test did not run"
