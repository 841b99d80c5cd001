"""One serving process, from its start to its exit code."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from pooling_server.config import ServerConfig
from pooling_server.processes.allocator import tune_allocator
from pooling_server.processes.log import announce, flush_output

if TYPE_CHECKING:
    from pooling_server.serving.app import PoolingServer

_log = logging.getLogger("pooling_server")

# Events of one byte; the bytes of signals are their numbers.
STOP, ABORT = b"s", b"a"
RELOAD = bytes([signal.SIGHUP])
_WARMED_UP, _DEVICE_LOST, _FINISHED, _UNFINISHED = b"w", b"d", b"f", b"u"
_THREADS = 24  # an idle server has 11, and gRPC aborts the process if it cannot start one
_NO_THREAD = "start new thread"  # in the text of the error
_UNSTARTED = "in thread started by"  # in the text of an error before the thread calls its function
_FLUSH_S = 1.0
# Errors of a process that cannot start or continue, besides those of its options.
SYSTEM_ERRORS = (OSError, MemoryError, RuntimeError, ImportError)


class Events:
    """Queue of the events of a process: signals, and events that its threads post.

    A signal handler can run in any thread at any time, so the queue is a pipe, which loses nothing.

    Args:
        signals: signals that become events from now on.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write)
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        """Return the file descriptor that is readable when `next` would not block."""
        return self._read

    def next(self) -> bytes:
        """Wait for the next event and return it."""
        return os.read(self._read, 1)

    def post(self, event: bytes) -> None:
        """Add an event; safe to call from any thread."""
        os.write(self._write, event)


def check_threads() -> None:
    """Start and end some threads.

    Raises:
        RuntimeError: one of them cannot be started.
        MemoryError: there is not enough memory for them.
    """
    end = threading.Event()
    try:
        for _ in range(_THREADS):
            threading.Thread(target=end.wait, daemon=True).start()
    finally:
        end.set()


def system_error_text(error: BaseException) -> str:
    """Return one line about one of `SYSTEM_ERRORS`; the log has the traceback at level debug."""
    _log.debug("the process cannot continue", exc_info=error)
    if isinstance(error, MemoryError):
        return "the server is out of memory"
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return "the server cannot start a thread; its limit of memory or of threads is too low"
    return str(error)


def run(config: ServerConfig) -> int:
    """Serve until a signal arrives, and return the exit code.

    A second signal ends the process immediately.
    """
    events = Events(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    from pooling_engine import PoolingError
    from pooling_server.serving.app import PoolingServer

    try:
        server = PoolingServer(config)
        if config.metrics_listen:
            _serve_metrics(config.metrics_listen, server)
    except (OSError, PoolingError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return serve(server, events, lambda: announce(server.banner()))


def _serve_metrics(address: str, server: PoolingServer) -> None:
    from pooling_server.observability.exposition import Exposition

    exposition = Exposition(address, lambda: (server.numbers(), 0))
    _log.info("metrics at port %d", exposition.port)


def serve(
    server: PoolingServer,
    events: Events,
    on_ready: Callable[[], None],
    *,
    second_event_aborts: bool = True,
    before_exit: Callable[[], None] = lambda: None,
) -> int:
    """Serve until an event stops the server, and return the exit code.

    `ABORT` ends the process immediately, as does a thread that ends for lack of memory or threads:
    without its own thread, gRPC answers no call. `RELOAD` reads certificates and tokens again. Any
    other event starts a graceful stop. A lost device also stops the server, because only a new
    process can use the device again.

    Args:
        on_ready: called once health reports SERVING.
        before_exit: called after a graceful stop.
        second_event_aborts: if true, any second event aborts a graceful stop; otherwise only
            `ABORT` does.
    """
    tune_allocator()
    threading.excepthook = partial(_end_thread, events)
    sys.unraisablehook = partial(_end_unstarted_thread, events)
    server.on_device_lost = lambda: events.post(_DEVICE_LOST)
    server.begin()
    threading.Thread(target=_warm_up, args=(server, events), daemon=True).start()
    stopping = threading.Event()  # later, there may be no memory for a thread
    threading.Thread(target=_stop, args=(server, events, stopping), daemon=True).start()
    event = events.next()
    while event in (_WARMED_UP, RELOAD):
        on_ready() if event == _WARMED_UP else server.reload()
        event = events.next()
    has_failed = event == _DEVICE_LOST
    if event != ABORT:
        stopping.set()
        event = _next_final_event(events, second_event_aborts)
        before_exit()
    if event == _FINISHED:
        return 1 if has_failed else 0
    if event == _UNFINISHED:
        print(f"error: calls were still running after {server.grace_s:g} s", file=sys.stderr)
    else:
        server.abort()
    return 1


def exit_process(code: int) -> NoReturn:
    """Exit immediately, without waiting for threads, which may be compiling a kernel.

    The rest of the log and of the output is written for at most a second. A signal ends it, not
    another thread: without memory, a new thread may end before `Thread.start` has noticed its
    start, and then `Thread.start` never returns.
    """
    signal.signal(signal.SIGALRM, lambda *_: os._exit(code))
    signal.setitimer(signal.ITIMER_REAL, _FLUSH_S)
    with suppress(MemoryError):
        flush_output()
    os._exit(code)


def _next_final_event(events: Events, any_event_is_final: bool) -> bytes:
    """Wait for the event that ends a graceful stop."""
    event = events.next()
    while event in (_WARMED_UP, _DEVICE_LOST, RELOAD) or not (
        any_event_is_final or event in (ABORT, _FINISHED, _UNFINISHED)
    ):
        event = events.next()
    return event


def _end_thread(events: Events, ended: threading.ExceptHookArgs) -> None:
    """Report the error that ended a thread; end the process if it lacks memory or threads."""
    error = ended.exc_value
    lacks_thread = isinstance(error, RuntimeError) and _NO_THREAD in str(error)
    if error is None or not (lacks_thread or isinstance(error, MemoryError)):
        threading.__excepthook__(ended)
        return
    _end_process(events, error)


def _end_unstarted_thread(events: Events, ended: sys.UnraisableHookArgs) -> None:
    """End the process if a new thread lacked memory: its starter would wait without end."""
    error, text = ended.exc_value, ended.err_msg or ""
    if isinstance(error, MemoryError) and _UNSTARTED in text:
        _end_process(events, error)
    else:
        sys.__unraisablehook__(ended)


def _end_process(events: Events, error: BaseException) -> None:
    try:
        print(f"error: {system_error_text(error)}", file=sys.stderr, flush=True)
    finally:
        events.post(ABORT)


def _warm_up(server: PoolingServer, events: Events) -> None:
    try:
        server.warm_up()
        gc.collect()
        gc.freeze()  # a collection of all objects would stop every thread for 50 ms
        events.post(_WARMED_UP)
    except SYSTEM_ERRORS as error:
        print(f"error: {system_error_text(error)}", file=sys.stderr)
        events.post(ABORT)


def _stop(server: PoolingServer, events: Events, stopping: threading.Event) -> None:
    stopping.wait()
    events.post(_FINISHED if server.stop() else _UNFINISHED)
