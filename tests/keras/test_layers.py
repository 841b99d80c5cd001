"""Layers beside those of Keras, on both backends, each in a process: `KERAS_BACKEND` is global."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pooling_server import PoolingServer, ServerConfig

PAGE = Path(__file__).parents[2] / "docs/keras.md"


@pytest.fixture(scope="module")
def server() -> Iterator[PoolingServer]:
    """Start a server that computes with NumPy; all backends return the same bits."""
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy", warm_up=False))
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"


def run(code: str, backend: str, server: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"KERAS_BACKEND": backend, "POOLING_TARGET": server}
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *code.split("\n", 1)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.timeout(180)  # compiles many small programs
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_layers_on_a_backend(server: PoolingServer, backend: str) -> None:
    done = run("-m\ntests.keras.checks", backend, server.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"checked with {backend}\n"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_server_that_fails_during_fit(backend: str) -> None:
    done = run("-m\ntests.keras.faults", backend)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"checked with {backend}\n"


def test_other_backends_are_rejected_in_one_line() -> None:
    done = run("-c\nimport pooling_client.keras as k; k.MaxPooling2D()", "numpy")
    assert done.stderr.splitlines()[-1] == (
        'RuntimeError: the backend of Keras is "numpy"; pooling_client.keras needs "torch" or '
        '"jax": set the environment variable KERAS_BACKEND before the program starts'
    )


def test_the_code_of_the_page_runs(server: PoolingServer, tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    script = tmp_path / "page.py"
    script.write_text(code.replace("127.0.0.1:50051", server.address))
    done = run(str(script), "torch")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)
