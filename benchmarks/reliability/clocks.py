"""Wall clocks that are set by an hour while calls, streams, retries and credentials are in use.

A small library moves the wall clock of the server and of its clients. The experiment runs in a
process of its own, because such a library is loaded when a process starts.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import trustme

from benchmarks.reliability.load import ANSWERS, CALLS, SMALL, SPEC, Load
from benchmarks.reliability.security import NAME, tls_outcome, write_certificate
from benchmarks.reliability.serving import LIMIT_S, Row, free_port, row, serving, wait_until
from pooling_client import PoolingClient, PoolingError

SOURCE = Path(__file__).with_name("wall_clock.c")
HOUR_S = 3600
CLEAR = {"DeadlineError", "UnavailableError"}  # errors of calls in flight while a clock is set
_RATE = 0.001  # calls per second: a second call within minutes is over it


def set_clocks(calls: int = 100) -> list[Row]:
    """Run the experiment with a wall clock that a file moves; return its row.

    Args:
        calls: calls of each load after each change of the clock.

    Raises:
        subprocess.CalledProcessError: there is no C compiler.
        RuntimeError: the experiment failed.
    """
    with tempfile.TemporaryDirectory() as name:
        library, clock = Path(name) / "wall_clock.so", Path(name) / "clock"
        compiler = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", str(library)]
        subprocess.run([*compiler, str(SOURCE)], check=True)
        clock.write_bytes(struct.pack("q", 0))
        environment = os.environ | {"LD_PRELOAD": str(library), "WALL_CLOCK_FILE": str(clock)}
        command = [sys.executable, "-m", "benchmarks.reliability.clocks", str(clock), str(calls)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=6 * LIMIT_S
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: Row = json.loads(done.stdout.splitlines()[-1])
    return [result]


class Clock:
    """Wall clock of this process and of its children.

    Args:
        file: file with the seconds by which the clock is moved.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._offset_s = file, 0

    def set(self, offset_s: int) -> None:
        """Set the clock to an offset from the real time.

        Raises:
            RuntimeError: the clock of this process has not changed.
        """
        before = time.time()
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", offset_s))
        moved_s = time.time() - before - (offset_s - self._offset_s)
        if abs(moved_s) > LIMIT_S:
            raise RuntimeError(f"the clock is wrong by {moved_s:.0f} s")
        self._offset_s = offset_s


def experiment(clock: Clock, calls: int) -> Row:
    """Set the clock by an hour forward, back, further back and forward; return the row."""
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as started:
        flags = _tokens(Path(name) / "tokens")
        listen = ("--listen", f"127.0.0.1:{free_port()}")
        certificate, checked = _certificate(Path(name))
        secure = started.enter_context(serving(*certificate))
        first = started.enter_context(serving(*listen, *flags))
        slow = started.enter_context(_slow(first.address))
        stream = started.enter_context(_stream(first.address))
        loads = [
            started.enter_context(Load(first.address, token="good", shared_streams=is_shared))
            for is_shared in (True, False)
        ]
        if SOURCE.stem not in Path(f"/proc/{first.process.pid}/maps").read_text():
            raise RuntimeError("the clock of the server cannot be moved")
        for number, offset_s in enumerate((HOUR_S, 0, -HOUR_S, 0)):
            clock.set(offset_s)
            text = f"{offset_s // HOUR_S:+d} h ({number})"
            _wait(loads, calls)
            outcomes[f"stream, {text}"] = stream()
            outcomes[f"rate, {text}"] = slow()
            outcomes[f"certificate, {text}"] = checked(secure.address)
        first.process.kill()
        first.process.wait()
        clock.set(HOUR_S)
        with serving(*listen, *flags):
            _wait(loads, calls)
            clock.set(0)
            _wait(loads, calls)
            for load in loads:
                load.stop()
    return _row(loads, outcomes)


def _row(loads: list[Load], outcomes: dict[str, str]) -> Row:
    expected = {"stream": "right", "rate": "OverloadedError", "certificate": "right"}
    required = {name: expected[name.partition(",")[0]] for name in outcomes}
    required["certificate, +1 h (0)"] = "UnavailableError"  # it has expired
    unexpected = {name: each for name, each in outcomes.items() if each != required[name]}
    wrong = sum(load.wrong for load in loads)
    failed = loads[0].failed + loads[1].failed
    total = sum(load.figures()["calls"] for load in loads)
    errors = ", ".join(f"{count} {name}" for name, count in failed.items()) or "none"
    text = (
        f"6 changes, {total:,} calls: {wrong} wrong; errors of calls in flight: {errors}; "
        f"streams, rates and certificates not as required: {unexpected or 'none'}"
    )
    return row(
        "clocks",
        "wall clock set by an hour, forward and back",
        "a clear rejection or the right answer; later calls are answered",
        not wrong and not unexpected and failed.keys() <= CLEAR,
        text,
        calls=total,
        wrong=wrong,
        failed=failed.total(),
        outcomes=outcomes,
    )


def _wait(loads: list[Load], calls: int) -> None:
    """Wait until each load has made that many further calls."""
    for load in loads:
        due = load.right + calls
        wait_until(lambda load=load, due=due: load.right >= due, "calls are not answered")


def _tokens(file: Path) -> tuple[str, str]:
    good, slow = (hashlib.sha256(name).hexdigest() for name in (b"good", b"slow"))
    file.write_text(f"good {good}\nslow {slow} calls_per_s={_RATE}\n")
    return "--token-file", str(file)


def _certificate(folder: Path) -> tuple[tuple[str, ...], Callable[[str], str]]:
    """Write a certificate of half an hour; return flags, and a function that tries it."""
    authority = trustme.CA()
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=HOUR_S / 2)
    flags = ("--tls-certificate", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key"))
    write_certificate(folder, authority.issue_cert(NAME, not_after=end))
    return flags, lambda address: tls_outcome(address, authority)


@contextmanager
def _slow(address: str) -> Iterator[Callable[[], str]]:
    """Use up the rate of a token; yield a function that calls once more."""
    with PoolingClient(address, token="slow", shared_streams=False) as client:
        client.forward(SMALL, SPEC)

        def call() -> str:
            try:
                client.forward(SMALL, SPEC, timeout=0.2)
            except PoolingError as error:
                return type(error).__name__
            return "answered"

        yield call


@contextmanager
def _stream(address: str) -> Iterator[Callable[[], str]]:
    """Open a stream; yield a function that makes its next call."""
    with PoolingClient(address, token="good", timeout=4 * LIMIT_S) as client:
        results = client.forward_many(CALLS["small"] for _ in count())

        def call() -> str:
            try:
                is_right = np.array_equal(next(results).output, ANSWERS["small"])
            except PoolingError as error:
                return type(error).__name__
            return "right" if is_right else "wrong"

        with closing(results):
            yield call


if __name__ == "__main__":
    print(json.dumps(experiment(Clock(Path(sys.argv[1])), int(sys.argv[2]))))
