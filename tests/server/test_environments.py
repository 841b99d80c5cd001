"""The server starts, or explains in one line why not, in unusual environments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pooling_client import PoolingClient
from tests.support.processes import SERVE, address_in
from tests.support.waiting import LIMIT_S, wait_until

FLAGS = ["--backend", "numpy", "--no-warm-up"]


def run_until_served(script: str, socket_path: Path) -> tuple[int, str]:
    """Run a shell script whose "$@" is a server; stop it once it serves.

    Returns:
        The exit code and what was written to stderr.
    """
    target = f"unix:{socket_path}"
    command = ["bash", "-c", script, "bash", *SERVE, *FLAGS, "--listen", target]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            with PoolingClient(target, timeout=LIMIT_S) as client:
                wait_until(socket_path.exists)
                client.info()
            server.send_signal(signal.SIGTERM)
            _, err = server.communicate(timeout=LIMIT_S)
        finally:
            server.kill()
    return server.returncode, err


@pytest.mark.parametrize(
    "redirections", [">&-", "<&- >&-", ">/dev/full"], ids=["closed", "both closed", "full disk"]
)
def test_serves_without_a_usable_stdout(redirections: str, socket_path: Path) -> None:
    assert run_until_served(f'exec "$@" {redirections}', socket_path) == (0, "")


def test_serves_without_stderr(socket_path: Path) -> None:
    assert run_until_served('exec "$@" >&- 2>&-', socket_path) == (0, "")


def test_closed_descriptors_are_not_given_to_sockets() -> None:
    code = (
        "import os, pooling_server.processes.log as log; log.open_standard_descriptors();"
        "os.write(2, os.readlink('/proc/self/fd/1').encode())"
    )
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-c", code]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S)
    assert done.stderr == os.devnull


HOMELESS = """
import pwd, sys
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = getpwuid
from pooling_server.__main__ import main
main()
"""


def test_serves_without_a_home_and_without_a_passwd_entry() -> None:
    """The Numba backend, if installed, compiles without a cache and says so in one line."""
    without = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
    with subprocess.Popen(
        [sys.executable, "-c", HOMELESS, "--listen", "127.0.0.1:0", "--no-warm-up"],
        env={name: value for name, value in os.environ.items() if name not in without},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            assert address_in(server.stdout.readline().strip())
            server.terminate()
            _, err = server.communicate(timeout=LIMIT_S)
        finally:
            server.kill()
    assert server.returncode == 0
    assert [line for line in err.splitlines() if "cannot be cached" not in line] == []


VERSION_ERROR = """
from google.protobuf.runtime_version import VersionError
raise VersionError("Detected incompatible Protobuf Gencode/Runtime versions")
"""


def test_a_protobuf_that_is_too_old_for_health_and_reflection_is_one_line_each(
    tmp_path: Path,
) -> None:
    for package in ("grpc_health", "grpc_reflection"):
        version = tmp_path / package / ("v1" if package == "grpc_health" else "v1alpha")
        version.mkdir(parents=True)
        (version.parent / "__init__.py").touch()
        (version / "__init__.py").write_text(VERSION_ERROR)
    with subprocess.Popen(
        [*SERVE, *FLAGS, "--listen", "127.0.0.1:0"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            address = address_in(server.stdout.readline().strip())
            with PoolingClient(address, timeout=LIMIT_S) as client:
                client.info()
            server.terminate()
            _, err = server.communicate(timeout=LIMIT_S)
        finally:
            server.kill()
    first, second = err.splitlines()
    assert "health checking is disabled: grpcio-health-checking" in first
    assert "reflection is disabled: grpcio-reflection" in second
    assert "does not work with protobuf" in first
