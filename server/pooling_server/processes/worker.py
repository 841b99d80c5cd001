"""Worker: one of several serving processes, controlled by the supervisor that started it."""

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
from typing import TYPE_CHECKING

from pooling_server.config import ServerConfig
from pooling_server.observability.metrics import Numbers
from pooling_server.processes.devices import environment_for
from pooling_server.processes.log import configure_log
from pooling_server.processes.process import (
    ABORT,
    STOP,
    SYSTEM_ERRORS,
    Events,
    check_threads,
    exit_process,
    serve,
    system_error_text,
)

if TYPE_CHECKING:
    from pooling_server.serving.app import PoolingServer

# Back-off of restarts: the first delay, the number of doublings, and the longest delay.
_FIRST_DELAY_S, _MAX_DOUBLINGS, _MAX_DELAY_S = 0.1, 9, 30.0
_STABLE_S = 60.0  # uptime after which an exit no longer counts as a failed start
_EXIT_S = 5.0  # for a process whose connection is closed
# Kinds of messages from a worker; the second one is also the request for it.
SERVING, NUMBERS, FAILED = b"serving", b"numbers", b"failed"
_reporting = threading.Lock()


class Worker:
    """Worker process, as its supervisor controls it.

    Args:
        number: position among the workers, from 0.
        config: options of this worker.

    Attributes:
        config: options of this worker.
        process: the current or most recent process; None if none could be started.
        connection: pipe to the process, which closes when the process exits; None if none runs.
        banner: line that the worker sent when it began to serve; empty before that.
        error: text about a failed start, from the worker or this process; otherwise empty.
        numbers: metrics of this process that the worker sent last.
        past_numbers: metrics of its earlier processes.
        restart_at: time of the next start, by `time.monotonic`; None while the process runs.
        started_at: time of the last start, by the same clock.
    """

    def __init__(self, number: int, config: ServerConfig) -> None:
        self.number, self.config = number, config
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.banner = self.error = ""
        self.restart_at: float | None = None
        self.started_at = 0.0
        self.numbers, self.past_numbers = Numbers(), Numbers()
        self._sending = threading.Lock()
        self._failures = 0  # consecutive, each soon after a start

    def start(self) -> None:
        """Start the process as a new program, because gRPC does not survive a fork."""
        self.connection, child_end = Pipe()
        self.banner = self.error = ""
        self.restart_at, self.started_at = None, time.monotonic()
        with child_end:
            try:
                self.process = self._new_process(child_end.fileno())
            except OSError as error:  # `receive` reports the closed connection
                self.process, self.error = None, f"cannot start a process: {error.strerror}"
        self._send(self.config)

    def _new_process(self, descriptor: int) -> subprocess.Popen[bytes]:
        devices = self.config.devices
        return subprocess.Popen(
            [sys.executable, "-m", "pooling_server.processes.worker", str(descriptor)],
            pass_fds=[descriptor],
            env=environment_for(devices, os.environ) if devices else None,
            process_group=0,  # Ctrl-C in a terminal must reach the supervisor only
        )

    def receive(self) -> bool:
        """Read one message from the process; return True if the connection was closed instead."""
        assert self.connection is not None
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
            self.connection = None
            self.numbers.in_flight_calls = self.numbers.in_flight_bytes = 0
            self.past_numbers.add(self.numbers)
            self.numbers = Numbers()
            if self.process is not None:
                with suppress(subprocess.TimeoutExpired):  # a GPU driver may block the exit
                    self.process.wait(_EXIT_S)
            return True
        if kind == SERVING:
            self.banner = content
        elif kind == NUMBERS:
            self.numbers = content
        else:
            self.error = content
        return False

    def request_numbers(self) -> bool:
        """Request the metrics of the process; return False if it does not serve."""
        if self.connection is None or not self.banner:
            return False
        self._send(NUMBERS)
        return True

    def stop(self) -> None:
        """Stop the process gracefully, as on SIGTERM, and cancel a scheduled restart."""
        self.restart_at = None
        self._send(STOP)

    def kill(self) -> None:
        """Kill the process, if it runs."""
        if self.connection and self.process:
            self.process.kill()

    def schedule_restart(self) -> float:
        """Set `restart_at`, with exponential back-off, and return the delay in seconds."""
        now = time.monotonic()
        if now - self.started_at > _STABLE_S:
            self._failures = 0
        delay_s = min(_FIRST_DELAY_S * 2.0**self._failures, _MAX_DELAY_S)
        self._failures = min(self._failures + 1, _MAX_DOUBLINGS)
        self.restart_at = now + delay_s
        return delay_s

    def exited_cleanly(self) -> bool:
        """Return True if the process exited after it had answered every call."""
        return self.process is not None and self.process.returncode == 0

    def describe_exit(self) -> str:
        """Return one sentence about how the process ended, for the log."""
        if self.process is None:
            return f"worker {self.number}: {self.error}"
        code, name = self.process.returncode, f"worker {self.number} (process {self.process.pid})"
        if code is None:
            return f"{name} closed its connection, but its process is still running"
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"exited with exit code {code}"
        )
        return f"{name} {how}" + (f": {self.error}" if self.error else "")

    def _send(self, message: ServerConfig | bytes) -> None:
        connection = self.connection
        if connection:
            # OSError: the process has exited; `receive` will notice.
            with self._sending, suppress(OSError):
                connection.send(message)


def main() -> None:
    """Serve under a supervisor; the argument is the file descriptor of the connection to it."""
    events = Events(signal.SIGTERM)
    connection = Connection(int(sys.argv[1]))
    try:
        config = connection.recv()
    except EOFError:
        exit_process(1)
    try:
        code = _serve(config, connection, events)
    except SYSTEM_ERRORS as error:
        _report(connection, FAILED, system_error_text(error))
        code = 1
    exit_process(code)


def _serve(config: ServerConfig, connection: Connection, events: Events) -> int:
    """Serve until the supervisor or a signal stops this process; return the exit code."""
    check_threads()
    configure_log(config.log_level, config.log_format)
    from pooling_engine import PoolingError
    from pooling_server.serving.app import PoolingServer

    try:
        server = PoolingServer(config, shared_port=True)
    except (OSError, PoolingError, ValueError) as error:
        _report(connection, FAILED, str(error))
        return 1
    threading.Thread(target=_forward_events, args=(connection, events, server), daemon=True).start()
    return serve(
        server,
        events,
        lambda: _report(connection, SERVING, server.banner()),
        second_event_aborts=False,  # a service manager may signal the worker as well
        before_exit=lambda: _report(connection, NUMBERS, server.numbers()),
    )


def _report(connection: Connection, kind: bytes, content: object) -> None:
    # OSError: the supervisor has exited; `_forward_events` will notice.
    with _reporting, suppress(OSError):
        connection.send((kind, content))


def _forward_events(connection: Connection, events: Events, server: PoolingServer) -> None:
    """Post the events that the supervisor sends, and `ABORT` when the supervisor exits.

    Requests for metrics are answered here.
    """
    try:
        while True:
            event = connection.recv()
            if event == NUMBERS:
                _report(connection, NUMBERS, server.numbers())
            else:
                events.post(event)
    except (EOFError, OSError):
        events.post(ABORT)


if __name__ == "__main__":
    main()
