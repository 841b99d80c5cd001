"""Listening addresses: several at once, and Unix sockets with a file mode."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pooling_client import PoolingClient
from pooling_server import PoolingServer, ServerConfig
from pooling_server.sockets.listening import client_target, split_addresses
from tests.support.processes import SERVE, process, wait_until_draining
from tests.support.waiting import LIMIT_S

NUMPY = ("--backend", "numpy")
HEALTHCHECK = [sys.executable, "-m", "pooling_server.healthcheck", "--timeout", str(LIMIT_S)]


def leave_stale(socket_path: Path) -> None:
    """Leave the socket of a server that has exited."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(socket_path))


@pytest.mark.parametrize("how", ["flags", "environment"])
def test_every_address_answers_and_is_in_the_banner(socket_path: Path, how: str) -> None:
    addresses = ["127.0.0.1:0", f"unix:{socket_path}", "127.0.0.1:0"]
    flags = [word for address in addresses for word in ("--listen", address)]
    given = process(*NUMPY, *flags)
    if how == "environment":
        given = process(*NUMPY, POOLING_LISTEN=",".join(addresses))
    with given as (server, banner):
        found = re.search(r"listening on (\S+) and (\S+) and (\S+), computing with numpy", banner)
        assert found, banner
        assert found[2] == f"unix:{socket_path}"
        assert len(set(found.groups())) == 3
        for target in found.groups():
            with PoolingClient(target) as client:
                assert client.info().backends[0].name == "numpy"
        server.terminate()
        assert server.wait(LIMIT_S) == 0
    assert not socket_path.exists()


@pytest.mark.parametrize("mode", ["600", "0660", "666"])
def test_a_socket_has_the_configured_mode(socket_path: Path, mode: str) -> None:
    config = ServerConfig(listen=f"unix:{socket_path}", socket_mode=mode, backend="numpy")
    server = PoolingServer(config)
    server.start()
    assert stat.S_IMODE(socket_path.stat().st_mode) == int(mode, 8)
    assert server.stop()
    assert not socket_path.exists()


def test_by_default_only_the_owner_may_connect(socket_path: Path) -> None:
    server = PoolingServer(ServerConfig(listen=f"unix:{socket_path}", backend="numpy"))
    server.begin()
    before = os.umask(0)
    os.umask(before)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    assert before != 0o177, "the umask of the process was not restored"
    assert server.stop()


def test_the_socket_of_a_killed_server_does_not_stop_the_next(socket_path: Path) -> None:
    with process(*NUMPY, "--listen", f"unix:{socket_path}") as (server, banner):
        assert f"unix:{socket_path}" in banner
        server.kill()
        server.wait(LIMIT_S)
    assert socket_path.exists()
    with process(*NUMPY, "--listen", f"unix:{socket_path}") as (server, banner):
        with PoolingClient(f"unix:{socket_path}") as client:
            client.info()
        server.send_signal(signal.SIGTERM)
        assert server.wait(LIMIT_S) == 0
    assert not socket_path.exists()


def test_the_socket_of_a_live_server_is_left_alone(socket_path: Path) -> None:
    listen = f"unix:{socket_path}"
    with process(*NUMPY, "--listen", listen):
        done = subprocess.run(
            [*SERVE, "--listen", listen], capture_output=True, text=True, timeout=LIMIT_S
        )
        assert done.returncode == 1
        assert (
            done.stderr == f"error: cannot listen on {listen}: another server is listening there\n"
        )
        with PoolingClient(listen) as client:
            client.info()


def test_a_file_that_is_not_a_socket_is_left_alone(socket_path: Path) -> None:
    socket_path.write_text("precious")
    with pytest.raises(OSError, match="a file that is not a socket already exists there"):
        PoolingServer(ServerConfig(listen=f"unix:{socket_path}", backend="numpy"))
    assert socket_path.read_text() == "precious"


def test_a_socket_is_removed_if_a_later_address_cannot_be_bound(socket_path: Path) -> None:
    leave_stale(socket_path)
    listen = f"unix:{socket_path},192.0.2.1:50051"
    config = ServerConfig(listen=listen, backend="numpy", allow_plaintext=True)
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:50051"):
        PoolingServer(config)
    assert not socket_path.exists()


def test_a_socket_of_another_server_is_not_removed(socket_path: Path) -> None:
    server = PoolingServer(ServerConfig(listen=f"unix:{socket_path}", backend="numpy"))
    socket_path.unlink()
    leave_stale(socket_path)
    server.abort()
    assert socket_path.exists()


def test_a_second_signal_leaves_no_socket(socket_path: Path) -> None:
    flags = ("--listen", f"unix:{socket_path}", "--drain-delay-s", "60")
    with process(*NUMPY, *flags) as (server, _):
        server.terminate()
        wait_until_draining(f"unix:{socket_path}")
        server.terminate()
        assert server.wait(LIMIT_S) == 1
    assert not socket_path.exists()


def test_healthcheck_queries_the_first_address(socket_path: Path) -> None:
    environment = {"POOLING_LISTEN": f"unix:{socket_path},127.0.0.1:0"}
    with process(*NUMPY, **environment):
        done = subprocess.run(
            HEALTHCHECK,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    assert (done.returncode, done.stdout) == (0, "SERVING\n")


def test_healthcheck_rejects_an_invalid_address_in_one_line() -> None:
    environment = os.environ | {"POOLING_LISTEN": "nowhere"}
    done = subprocess.run(
        HEALTHCHECK, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 2
    assert "listen is 'nowhere'; it must be HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("[::]:50051", "127.0.0.1:50051"),
        ("192.0.2.7:1", "192.0.2.7:1"),
        ("[::1]:9", "[::1]:9"),
        ("unix:/run/s", "unix:/run/s"),
    ],
)
def test_client_target(address: str, target: str) -> None:
    assert client_target(address) == target


def test_spaces_after_commas_are_ignored() -> None:
    assert split_addresses("127.0.0.1:0, unix:/a b") == ("127.0.0.1:0", "unix:/a b")
