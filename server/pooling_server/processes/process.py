"""One serving process: from its start to its exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from pooling_server.config import ServerConfig
from pooling_server.processes.allocator import keep_freed_memory

if TYPE_CHECKING:
    from pooling_server.serving.app import PoolingServer

# Beside numbers of signals.
STOP, LEAVE, _WARM, _DEVICE_LOST, _FINISHED, _UNFINISHED = b"s", b"l", b"w", b"d", b"f", b"u"


class Events:
    """What happens to a process, one byte each: signals, and what its threads tell.

    A signal may reach any thread, at any moment: a byte in a pipe cannot be missed.

    Args:
        signals: those that are events from now on.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write)
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup says
                signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        """What to wait for; `next` will not block then."""
        return self._read

    def next(self) -> bytes:
        """The next event; waits for one."""
        return os.read(self._read, 1)

    def tell(self, event: bytes) -> None:
        """Adds an event, from any thread."""
        os.write(self._write, event)


def run(config: ServerConfig) -> int:
    """Serves until a signal, which a second one cuts short; returns the exit code."""
    events = Events(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    from pooling_engine import PoolingError
    from pooling_server.serving.app import PoolingServer

    try:
        server = PoolingServer(config)
    except (OSError, PoolingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return serve(server, events, lambda: print(server.banner(), flush=True))


def serve(
    server: PoolingServer, events: Events, say_ready: Callable[[], None], *, patient: bool = False
) -> int:
    """Serves until an event other than `LEAVE` stops it; returns the exit code.

    A device that is lost stops it too: who started the process may start another.

    Args:
        say_ready: called once health says SERVING.
        patient: whether only `LEAVE` cuts a stop short; else any second event does.
    """
    keep_freed_memory()
    server.on_lost = lambda: events.tell(_DEVICE_LOST)
    server.begin()
    threading.Thread(target=_warm_up, args=(server, events), daemon=True).start()
    event = events.next()
    if event == _WARM:
        say_ready()
        event = events.next()
    has_failed = event == _DEVICE_LOST
    if event != LEAVE:
        threading.Thread(target=_stop, args=(server, events), daemon=True).start()
        event = events.next()
        ends = (LEAVE, _FINISHED, _UNFINISHED)
        while event in (_WARM, _DEVICE_LOST) or (patient and event not in ends):
            event = events.next()
    if event == _FINISHED:
        return 1 if has_failed else 0
    if event == _UNFINISHED:
        print(f"error: calls were still running after {server.grace_s:g} s", file=sys.stderr)
    else:
        server.abandon()
    return 1


def configure_log(config: ServerConfig) -> None:
    """Lets the log begin, on stderr."""
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def leave(code: int) -> NoReturn:
    """Ends the process at once: a kernel that a thread is compiling would hold it up."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _warm_up(server: PoolingServer, events: Events) -> None:
    server.warm_up()
    events.tell(_WARM)


def _stop(server: PoolingServer, events: Events) -> None:
    events.tell(_FINISHED if server.stop() else _UNFINISHED)
