"""`pooling demo`: a real server process, checked replies, a picture, no process left behind."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pooling_engine
from pooling_cli.demo.run import run_demo
from pooling_cli.demo.server import STOP_TIMEOUT_S, address_in, running_server
from pooling_engine import ForwardResult, InternalError, UnavailableError, UnsupportedError
from pooling_server import ServerConfig

STUBBORN = """
import signal, sys, time
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
print("pooling 0 listening on 127.0.0.1:1", flush=True)
while not stopped or "for good" in sys.argv:
    time.sleep(0.01)
"""
FAILS = "import sys; print('starting', file=sys.stderr); sys.exit('error: the port is taken')"
HANGS = "import time; time.sleep(60)"


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that the demo starts; every one has ended after the test."""
    processes: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def recording(*args: Any, **options: Any) -> subprocess.Popen[str]:
        processes.append(popen(*args, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", recording)
    yield processes
    assert all(process.returncode is not None for process in processes)


def test_the_demo_draws_the_replies_of_a_real_server(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    path = tmp_path / "picture"  # no suffix is added

    text = run_demo(path)

    lines = text.splitlines()
    assert lines[0].startswith("server    pooling ")
    assert "listening on 127.0.0.1:" in lines[0]
    assert "float32 (1, 3, 480, 400)" in lines[1]
    assert [line.split()[:2] for line in lines[2:8]] == [
        [call, mode] for call in ("forward", "backward") for mode in ("max", "average", "min")
    ]
    assert all(line.endswith(" ms  bit-identical to the local engine") for line in lines[2:8])
    assert len({line.index(" ms ") for line in lines[2:8]}) == 1  # aligned
    assert lines[8:] == [f"picture   {path}"]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1800
        assert 1200 <= picture.height <= 1800
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10_000  # not a blank picture
    assert path.stat().st_size < 1_500_000
    assert [process.returncode for process in started] == [0]  # stopped, not killed


def test_a_reply_that_differs_in_one_bit_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forward = pooling_engine.forward

    def wrong(*args: Any, **options: Any) -> ForwardResult:
        result = forward(*args, **options)
        result.output.view(np.uint32).flat[-1] ^= 1
        return result

    monkeypatch.setattr(pooling_engine, "forward", wrong)

    with pytest.raises(InternalError, match="max: the server and the local engine differ"):
        run_demo(tmp_path / "demo.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("program", "seconds", "reason"),
    [(FAILS, 30.0, "error: the port is taken"), (HANGS, 0.5, "no output within 0.5 s")],
    ids=["fails", "hangs"],
)
def test_a_server_that_does_not_start_is_a_one_line_error(
    program: str, seconds: float, reason: str
) -> None:
    with (
        pytest.raises(UnavailableError) as caught,
        running_server((sys.executable, "-c", program), start_timeout_s=seconds),
    ):
        pass

    assert str(caught.value) == f"the demo's server did not start: {reason}"


def test_a_banner_without_an_address_is_a_one_line_error() -> None:
    assert address_in("pooling 0 listening on 127.0.0.1:1, computing") == "127.0.0.1:1"
    with pytest.raises(UnavailableError, match="printed 'pooling 0', without its address"):
        address_in("pooling 0")


def test_the_stop_timeout_exceeds_the_server_s_own_limits() -> None:
    """Otherwise a server that is about to stop normally would be killed."""
    config = ServerConfig()
    assert config.drain_delay_s + config.grace_s + 1 < STOP_TIMEOUT_S


@pytest.mark.parametrize(("how", "seconds", "code"), [("now", 60.0, 0), ("for good", 0.1, -9)])
def test_a_server_is_killed_only_if_it_does_not_stop(
    started: list[subprocess.Popen[str]], how: str, seconds: float, code: int
) -> None:
    command = (sys.executable, "-c", STUBBORN, how)
    with running_server(command, stop_timeout_s=seconds) as banner:
        assert banner == "pooling 0 listening on 127.0.0.1:1"
    assert [process.returncode for process in started] == [code]


def test_without_matplotlib_the_error_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(UnsupportedError, match=r"pip install 'pooling-service\[demo\]'"):
        run_demo(tmp_path / "demo.png")
    assert not started
