"""A worker: one serving process of several, told what to do by the supervisor that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from pooling_server.config import ServerConfig
from pooling_server.processes.devices import environment_for
from pooling_server.processes.process import LEAVE, STOP, Events, configure_log, leave, serve

_FIRST_DELAY_S, _MOST_DOUBLINGS, _LONGEST_DELAY_S = 0.1, 9, 30.0  # until it starts again
_END_S = 5.0  # for a process whose connection has ended
_STEADY_S = 60.0  # one that lived so long had no failure in its start


class Worker:
    """A worker as its supervisor sees it: a process, and a connection that ends with it.

    Args:
        number: which of the workers it is, from 0.
        config: its own options.

    Attributes:
        config: its own options.
        process: what runs now, or ran last.
        connection: to the process; None while none runs.
        first_line: what it says of itself once it serves, else empty.
        error: why it could not start, in its own words, else empty.
        restart_at: when to start it again, by `time.monotonic`; None while it runs.
        started_at: when it was started last, by the same clock.
    """

    def __init__(self, number: int, config: ServerConfig) -> None:
        self.number, self.config = number, config
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.first_line = self.error = ""
        self.restart_at: float | None = None
        self.started_at = 0.0
        self._failures = 0  # in a row, each soon after a start

    def start(self) -> None:
        """Starts the process: a new program, since gRPC does not survive a fork."""
        self.connection, theirs = Pipe()
        self.first_line = self.error = ""
        self.restart_at, self.started_at = None, time.monotonic()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pooling_server.processes.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment_for(self.config.devices, os.environ)
                if self.config.devices
                else None,
                process_group=0,  # a terminal's Ctrl-C is the supervisor's to pass on
            )
        self._tell(self.config)

    def listen(self) -> bool:
        """Takes in what the worker says; returns whether it has ended."""
        assert self.connection is not None
        assert self.process is not None
        try:
            is_serving, text = self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
            self.connection = None
            with suppress(subprocess.TimeoutExpired):  # a card's driver may keep it
                self.process.wait(_END_S)
            return True
        if is_serving:
            self.first_line = text
        else:
            self.error = text
        return False

    def stop(self) -> None:
        """Asks it to stop as on SIGTERM, or not to start again."""
        self.restart_at = None
        self._tell(STOP)

    def kill(self) -> None:
        """Ends it now, whatever it does."""
        if self.connection and self.process:
            self.process.kill()

    def restart_later(self) -> float:
        """Lets it start again after some seconds, which are returned: more after each failure."""
        now = time.monotonic()
        if now - self.started_at > _STEADY_S:
            self._failures = 0
        delay_s = min(_FIRST_DELAY_S * 2.0**self._failures, _LONGEST_DELAY_S)
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        self.restart_at = now + delay_s
        return delay_s

    def has_lost_nothing(self) -> bool:
        """Whether it ended after it had answered every call."""
        return self.process is not None and self.process.returncode == 0

    def how_it_ended(self) -> str:
        """The end of the process in words."""
        assert self.process is not None
        code, who = self.process.returncode, f"worker {self.number} (process {self.process.pid})"
        if code is None:
            return f"{who} has left, but its process does not end"
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"{who} ended {how}" + (f": {self.error}" if self.error else "")

    def _tell(self, what: ServerConfig | bytes) -> None:
        if self.connection:
            with suppress(OSError):  # it has ended, which `listen` finds out
                self.connection.send(what)


def main() -> None:
    """Serves for the supervisor at the other end of the connection whose number is the argument."""
    events = Events(signal.SIGTERM)
    connection = Connection(int(sys.argv[1]))
    try:
        config = connection.recv()
    except EOFError:
        leave(1)
    configure_log(config)
    from pooling_engine import PoolingError
    from pooling_server.serving.app import PoolingServer

    try:
        server = PoolingServer(config, shared_port=True)
    except (OSError, PoolingError) as error:
        _say(connection, False, str(error))
        leave(1)
    threading.Thread(target=_obey, args=(connection, events), daemon=True).start()
    leave(serve(server, events, lambda: _say(connection, True, server.banner()), patient=True))


def _say(connection: Connection, is_serving: bool, text: str) -> None:
    with suppress(OSError):  # the supervisor has ended, which `_obey` finds out
        connection.send((is_serving, text))


def _obey(connection: Connection, events: Events) -> None:
    """Passes on what the supervisor says; without a supervisor, nobody would restart or stop it."""
    try:
        while True:
            events.tell(connection.recv())
    except (EOFError, OSError):
        events.tell(LEAVE)


if __name__ == "__main__":
    main()
