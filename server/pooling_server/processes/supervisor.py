"""Supervisor: starts, restarts and stops the worker processes that share the ports."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait

from pooling_engine.runtime import usable_cores
from pooling_server.config import ServerConfig
from pooling_server.observability.exposition import Exposition
from pooling_server.observability.metrics import Numbers, total
from pooling_server.processes.devices import environment_for, split_devices
from pooling_server.processes.log import announce
from pooling_server.processes.process import RELOAD, Events
from pooling_server.processes.worker import Worker
from pooling_server.sockets.listening import is_unix, reserve_port, split_addresses

_log = logging.getLogger("pooling_server")

_NUMBERS_S = 1.0  # longest wait for the metrics of the workers
_STOP_MARGIN_S = 5.0  # added to the drain delay and the grace period


def supervise(config: ServerConfig) -> int:
    """Serve with several workers until a signal arrives, and return the exit code.

    A second signal ends the workers immediately.

    Returns:
        0 if no worker dropped a call, otherwise 1.
    """
    events = Events(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with ExitStack() as reserved:  # held until the end, so that no exit of a worker frees a port
        addresses = []
        try:
            for device in split_devices(config.devices):
                environment_for(device, os.environ)
            for address in split_addresses(config.listen):
                addresses.append(address if is_unix(address) else reserve_port(address, reserved))
            if config.http_listen:
                http_listen = reserve_port(config.http_listen, reserved)
                config = dataclasses.replace(config, http_listen=http_listen)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        supervisor = Supervisor(config, addresses, events)
        try:
            if config.metrics_listen:
                exposition = Exposition(config.metrics_listen, supervisor.numbers)
                _log.info("metrics at port %d", exposition.port)
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return supervisor.run()


def worker_configs(config: ServerConfig, addresses: list[str]) -> list[ServerConfig]:
    """Return the options of each worker: its device, its share of the threads, its addresses.

    A Unix socket cannot be shared, so only the first worker listens on it. A worker with a device
    uses the backend "cupy"; with "auto", a worker that lost its device could restart on the CPU.
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
    """Supervisor of the workers: keeps them running until a signal stops them.

    Args:
        config: options of the server.
        addresses: addresses to listen on, with port 0 already resolved.
        events: signals of this process.
    """

    def __init__(self, config: ServerConfig, addresses: list[str], events: Events) -> None:
        configs = worker_configs(config, addresses)
        self._workers = [Worker(number, each) for number, each in enumerate(configs)]
        self._events = events
        self._stop_s = config.drain_delay_s + config.grace_s + _STOP_MARGIN_S
        self._kill_at: float | None = None  # set when the stop begins
        self._is_announced = False
        self._code = 0
        self._restarts = 0  # of workers that died
        self._to_renew: list[Worker] = []  # workers to restart after SIGHUP; the first one stops
        self._renewed_at = 0.0  # time of that stop, by `time.monotonic`
        self._is_renewal_due = False  # SIGHUP arrived, and its restarts have not begun
        self._awaited: set[Worker] = set()  # workers that have not sent their metrics yet
        self._answered = threading.Condition()

    def run(self) -> int:
        """Serve until a signal arrives and the workers have stopped; return the exit code."""
        self._workers[0].start()  # alone: the other workers load the kernels that it compiles
        while self._kill_at is None or any(worker.connection for worker in self._workers):
            running = {worker.connection: worker for worker in self._workers if worker.connection}
            for ready in wait([self._events.fileno(), *running], self._timeout_s()):
                if isinstance(ready, Connection):
                    self._receive(running[ready])
                else:
                    self._handle(self._events.next())
            if self._kill_at is None:
                self._start_due_workers()
            elif time.monotonic() > self._kill_at:
                print(
                    f"error: workers were still running after {self._stop_s:g} s", file=sys.stderr
                )
                self._kill()
        return self._code

    def _timeout_s(self) -> float | None:
        """Return the seconds until the next restart or kill, or None if nothing is scheduled."""
        due = [worker.restart_at for worker in self._workers if worker.restart_at is not None]
        due += [] if self._kill_at is None else [self._kill_at]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def numbers(self) -> tuple[Numbers, int]:
        """Return the metrics of all workers, and the restarts; called from another thread."""
        with self._answered:
            self._awaited = {worker for worker in self._workers if worker.request_numbers()}
            self._answered.wait_for(lambda: not self._awaited, _NUMBERS_S)
            parts = [each for w in self._workers for each in (w.numbers, w.past_numbers)]
            return total(parts), self._restarts

    def _handle(self, event: bytes) -> None:
        if event == RELOAD and self._kill_at is None:
            self._is_renewal_due = True
            self._renew_if_due()
        elif self._kill_at is None:
            self._stop()
        else:
            self._kill()

    def _renew_if_due(self) -> None:
        """Restart all workers after SIGHUP, once earlier starts and restarts are done."""
        if self._is_renewal_due and self._is_announced and not self._to_renew:
            self._is_renewal_due = False
            _log.warning("restarting the workers one by one")
            self._to_renew = list(self._workers)
            self._renew_first()

    def _renew_first(self) -> None:
        """Stop the first of the workers to restart, or start it if it has died."""
        worker, self._renewed_at = self._to_renew[0], time.monotonic()
        if worker.connection is None:
            worker.start()
        else:
            worker.stop()

    def _renew_next(self) -> None:
        """Restart the next worker once the one before serves again."""
        if self._to_renew:
            first = self._to_renew[0]
            if first.banner and first.started_at >= self._renewed_at:
                del self._to_renew[0]
                if self._to_renew:
                    self._renew_first()
        self._renew_if_due()

    def _receive(self, worker: Worker) -> None:
        banner = worker.banner
        has_exited = worker.receive()
        with self._answered:
            self._awaited.discard(worker)
            self._answered.notify_all()
        if has_exited:
            self._on_exit(worker)
        elif not self._is_announced:
            self._on_ready()
        elif worker.banner != banner and self._kill_at is None:
            self._renew_next()

    def _on_ready(self) -> None:
        """Start the other workers once the first one serves; print the banner once all serve."""
        if self._kill_at is None and all(worker.banner for worker in self._workers):
            announce(self._banner())
            self._is_announced = True
            self._renew_if_due()
        elif self._workers[0].banner:
            for worker in self._workers:
                if worker.process is None:
                    worker.restart_at = time.monotonic()

    def _banner(self) -> str:
        threads = sum(worker.config.threads for worker in self._workers)
        count = f"{len(self._workers)} worker{'s' if len(self._workers) > 1 else ''}"
        devices = ", ".join(filter(None, (worker.config.devices for worker in self._workers)))
        where = f" for devices {devices}" if devices else ""
        return f"{self._workers[0].banner}, {count}{where} on {threads} threads"

    def _on_exit(self, worker: Worker) -> None:
        """Schedule a restart, unless the server is stopping or this was a failed first start."""
        if self._kill_at is not None:
            self._code = 0 if self._code == 0 and worker.exited_cleanly() else 1
        elif self._to_renew and worker is self._to_renew[0] and worker.exited_cleanly():
            worker.start()
        elif self._is_announced:
            self._restarts += 1
            delay_s = worker.schedule_restart()
            _log.warning("%s; restarting it in %g s", worker.describe_exit(), delay_s)
        else:
            self._code = 1
            print(f"error: {worker.error or worker.describe_exit()}", file=sys.stderr)
            self._stop()

    def _start_due_workers(self) -> None:
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
