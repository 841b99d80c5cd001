"""Several serving processes on the same port: started, restarted and stopped together."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
import sys
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait

from pooling_engine.runtime.cores import usable_cores
from pooling_server.config import ServerConfig
from pooling_server.processes.devices import environment_for, split_devices
from pooling_server.processes.process import Events
from pooling_server.processes.worker import Worker
from pooling_server.sockets.listening import is_unix, reserve, split_addresses

_log = logging.getLogger("pooling_server")

_SPARE_S = 5.0  # for what a stop takes beside the seconds that it may wait


def supervise(config: ServerConfig) -> int:
    """Serves with several workers until a signal, which a second one cuts short.

    Returns:
        The exit code: 0 if no call was lost.
    """
    events = Events(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with ExitStack() as reserved:  # as long as the supervisor lives: no worker's end frees a port
        addresses = []
        try:
            for device in split_devices(config.devices):
                environment_for(device, os.environ)
            for address in split_addresses(config.listen):
                addresses.append(address if is_unix(address) else reserve(address, reserved))
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return Supervisor(config, addresses, events).run()


def share_out(config: ServerConfig, addresses: list[str]) -> list[ServerConfig]:
    """The options of each worker: its device, its share of the threads, what it listens on.

    A Unix socket cannot be shared; the first worker has it. A worker of a device computes there or
    not at all: "auto" would let one that lost it compute on the processor.
    """
    devices = split_devices(config.devices)
    threads, workers = config.threads or usable_cores(), len(devices) or config.workers
    ports = [address for address in addresses if not is_unix(address)]
    return [
        dataclasses.replace(
            config,
            listen=",".join(ports if number else addresses),
            threads=max(1, threads // workers + (number < threads % workers)),
            workers=1,
            devices=devices[number] if devices else "",
            backend="cupy" if devices else config.backend,
        )
        for number in range(workers)
    ]


class Supervisor:
    """Keeps the workers running, until it is told to stop.

    Args:
        config: the options of the server.
        addresses: what it listens on, without port 0.
        events: the signals it gets.
    """

    def __init__(self, config: ServerConfig, addresses: list[str], events: Events) -> None:
        shares = share_out(config, addresses)
        self._workers = [Worker(number, share) for number, share in enumerate(shares)]
        self._events = events
        self._stop_s = config.drain_delay_s + config.grace_s + _SPARE_S
        self._kill_at: float | None = None  # set once it stops
        self._is_announced = False
        self._code = 0

    def run(self) -> int:
        """Serves until a signal and a stop; returns the exit code."""
        self._workers[0].start()  # alone: the others find on disk the kernels that it compiles
        while self._kill_at is None or any(worker.connection for worker in self._workers):
            running = {worker.connection: worker for worker in self._workers if worker.connection}
            for ready in wait([self._events.fileno(), *running], self._wait_s()):
                if isinstance(ready, Connection):
                    self._hear(running[ready])
                else:
                    self._events.next()
                    self._stop() if self._kill_at is None else self._kill()
            if self._kill_at is None:
                self._start_due()
            elif time.monotonic() > self._kill_at:
                print(f"error: workers still ran after {self._stop_s:g} s", file=sys.stderr)
                self._kill()
        return self._code

    def _wait_s(self) -> float | None:
        """Seconds until something is due without an event."""
        due = [worker.restart_at for worker in self._workers if worker.restart_at is not None]
        due += [] if self._kill_at is None else [self._kill_at]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _hear(self, worker: Worker) -> None:
        if worker.listen():
            self._end(worker)
        elif not self._is_announced:
            self._welcome()

    def _welcome(self) -> None:
        """Starts the others once the first worker serves, and says so once all do."""
        if self._kill_at is None and all(worker.first_line for worker in self._workers):
            threads = sum(worker.config.threads for worker in self._workers)
            count = f"{len(self._workers)} worker{'s' if len(self._workers) > 1 else ''}"
            devices = ", ".join(filter(None, (worker.config.devices for worker in self._workers)))
            where = f" for devices {devices}" if devices else ""
            first = self._workers[0].first_line
            print(f"{first}, {count}{where} on {threads} threads", flush=True)
            self._is_announced = True
        elif self._workers[0].first_line:
            for worker in self._workers:
                if worker.process is None:
                    worker.restart_at = time.monotonic()

    def _end(self, worker: Worker) -> None:
        """One that ended is started again; but not in a stop, nor if it could not start at all."""
        if self._kill_at is not None:
            self._code = 0 if self._code == 0 and worker.has_lost_nothing() else 1
        elif self._is_announced:
            delay_s = worker.restart_later()
            _log.warning("%s; it starts again in %g s", worker.how_it_ended(), delay_s)
        else:
            self._code = 1
            print(f"error: {worker.error or worker.how_it_ended()}", file=sys.stderr)
            self._stop()

    def _start_due(self) -> None:
        for worker in self._workers:
            if worker.restart_at is not None and worker.restart_at <= time.monotonic():
                worker.start()

    def _stop(self) -> None:
        self._kill_at = time.monotonic() + self._stop_s
        for worker in self._workers:
            worker.stop()

    def _kill(self) -> None:
        self._code, self._kill_at = 1, math.inf
        for worker in self._workers:
            worker.kill()
