"""The server as a process: how it starts, says where it is, refuses bad options and stops."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from pooling_client import PoolingClient
from pooling_engine import PoolSpec, UnavailableError, forward
from pooling_engine.backends import BACKENDS, available_backends
from tests.support.processes import SERVE, address_in, process, wait_until_draining
from tests.support.waiting import LIMIT_S, quiet_port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serves_from_one_line_to_a_clean_stop(number: signal.Signals) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    spec = PoolSpec("max", kernel=2)
    with process("--listen", "127.0.0.1:0") as (server, banner):
        with PoolingClient(address_in(banner)) as client:
            np.testing.assert_array_equal(client.forward(x, spec).output, forward(x, spec).output)
        server.send_signal(number)
        out, err = server.communicate(timeout=LIMIT_S)
        assert (server.returncode, out, err) == (0, "", "")


def test_a_stop_under_load_loses_no_answer() -> None:
    """Every call is answered rightly, or told that the server is going; none fails otherwise."""
    x = np.random.default_rng(0).standard_normal((8, 64, 56, 56), dtype=np.float32)
    spec = PoolSpec("max", kernel=3, stride=2, padding=1)
    expected = forward(x, spec).output
    answered, refused, wrong = [], [], []
    with process("--listen", "127.0.0.1:0") as (server, banner):
        address = address_in(banner)
        stopping = threading.Event()

        def call_until_refused() -> None:
            with PoolingClient(address) as client:
                while not refused:
                    try:
                        answered.append(np.array_equal(client.forward(x, spec).output, expected))
                    except UnavailableError:
                        assert stopping.is_set()
                        refused.append(True)
                    except Exception as error:
                        wrong.append(error)
                        return

        threads = [threading.Thread(target=call_until_refused) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 6 and not wrong:
            stopping.wait(0.02)
        stopping.set()
        server.terminate()
        for thread in threads:
            thread.join(LIMIT_S)
        _, err = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0, err
    assert not wrong
    assert refused
    assert all(answered)


def test_a_second_signal_ends_it_at_once() -> None:
    flags = ("--backend", "numpy", "--listen", "127.0.0.1:0", "--drain-delay-s", "60")
    with process(*flags) as (server, banner):
        server.terminate()
        wait_until_draining(address_in(banner))  # and it would for a minute
        server.terminate()
        assert server.wait(LIMIT_S) == 1


def test_options_come_from_the_environment_and_flags_win() -> None:
    with (
        process(
            "--max-in-flight", "7", POOLING_LISTEN="127.0.0.1:0", POOLING_MAX_IN_FLIGHT="9"
        ) as (_, banner),
        PoolingClient(address_in(banner)) as client,
    ):
        assert client.info().limits.max_in_flight == 7


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--max-in-flight", "0"], 2, "max_in_flight is 0; it must be at least 1"),
        (["--max-message-bytes", "5000000000"], 2, "it must be at most 1073741824"),
        (["--threads", "many"], 2, "'many' is not a valid integer"),
        (["--log-level", "loud"], 2, "log_level is 'loud'"),
        (["--no-such-flag"], 2, "No such option"),
        (["--backend", "abacus"], 1, "backend is 'abacus'; it must be one of \"auto\", "),
        (["--arena-bytes", "-1"], 2, "arena_bytes is -1; it must be at least 0"),
        (["--listen", "nowhere"], 2, "listen is 'nowhere'; it must be HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--listen", "b"], 2, "listen is 'b'; it must be HOST:PORT"),
        (["--listen", "unix:sock"], 2, "'unix:sock'; a Unix socket is unix:/PATH from the root on"),
        (["--listen", "unix-abstract:a:5"], 2, "anybody could connect to an abstract socket"),
        (["--listen", f"unix:/{'a' * 100}"], 2, "the path of a Unix socket has at most 100 bytes"),
        (["--listen", "unix:/no/such/folder/s"], 1, "cannot listen on unix:/no/such/folder/s: "),
        (["--socket-mode", "rw"], 2, "socket_mode is 'rw'; it must be three octal digits, as 660"),
        (["--listen", "127.0.0.1:99999"], 2, "it must be HOST:PORT, port 0 to 65535"),
        (["--listen", "192.0.2.1:50051"], 1, "cannot listen on 192.0.2.1:50051"),
    ],
)
def test_bad_options_are_one_clear_line(flags: list[str], code: int, text: str) -> None:
    done = subprocess.run([*SERVE, *flags], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["auto", *available_backends()])
def test_info_lists_the_backends_that_are_used(backend: str) -> None:
    """The first line says what computes; the list, what computes the rest too."""
    with (
        process("--listen", "127.0.0.1:0", "--backend", backend) as (_, banner),
        PoolingClient(address_in(banner)) as client,
    ):
        listed = [info.name for info in client.info().backends]
    names = available_backends()
    first = names[0] if backend == "auto" else backend
    assert listed == list(names[names.index(first) :])
    assert f"computing with {first} " in banner
    assert listed[-1] == list(BACKENDS)[-1] == "numpy", "the last has everything"


def test_a_port_in_use_is_an_error() -> None:
    with process("--listen", "127.0.0.1:0") as (_, banner):
        address = address_in(banner)
        done = subprocess.run(
            [*SERVE, "--listen", address], capture_output=True, text=True, timeout=LIMIT_S
        )
    assert done.returncode == 1
    assert done.stderr == f"error: cannot listen on {address}: the address is wrong, or in use\n"


def test_healthcheck_tells_serving_from_absent() -> None:
    address = f"127.0.0.1:{quiet_port()}"
    command = [sys.executable, "-m", "pooling_server.healthcheck", "--target"]
    limit = ("--timeout", str(LIMIT_S))
    with process("--listen", address):
        serving = subprocess.run(
            [*command, address, *limit], capture_output=True, text=True, timeout=LIMIT_S
        )
    absent = subprocess.run(
        [*command, address, *limit], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert (serving.returncode, serving.stdout) == (0, "SERVING\n")
    assert (absent.returncode, absent.stderr) == (1, f"error: {address}: UNAVAILABLE\n")
