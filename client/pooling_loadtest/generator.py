"""Program of one generator process: it prepares calls, reports that it is ready, and sends them.

The parent process sends ("run", schedule or None, start) and memory for the columns, ("stop",) and
("end",). The process replies ("ready", kinds, server_info) or ("failed", is_misuse, text),
("progress", Progress) twice a second, and ("done", Summary) after each run.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from pooling_engine import InvalidSpecError, PoolingError
from pooling_loadtest.errors import MisuseError, TargetError
from pooling_loadtest.loops import Loop
from pooling_loadtest.recorder import Recorder
from pooling_loadtest.schedules import Schedule, arrivals
from pooling_loadtest.settings import LoadTest
from pooling_loadtest.shared import mapped, receive
from pooling_loadtest.target import Target

_PROGRESS_S = 0.5
_SWITCH_S = 1e-4  # so that a due call waits shortly for the thread that reads replies
_MAX_CLOSED_RATE = 30_000  # calls/s of one process that columns are reserved for
_CHOICES = 1 << 14  # kinds drawn for the closed loop


class Progress(NamedTuple):
    """State of a generator process.

    Attributes:
        sent: number of calls sent.
        done: number of calls with a reply or an error.
        succeeded: number of calls with a reply.
        unavailable: number of calls that failed with UNAVAILABLE.
        p50_ms: median latency of the last calls; NaN without one.
    """

    sent: int
    done: int
    succeeded: int
    unavailable: int
    p50_ms: float


class Summary(NamedTuple):
    """Summary of one run of a generator process.

    Attributes:
        number: number of the process.
        rows: number of calls that it began, or that were due.
        delayed: number of calls that waited because too many were in flight.
        cpu: processor time of the process over elapsed time.
        fault: fault of the generator that ended the run; None without one.
    """

    number: int
    rows: int
    delayed: int
    cpu: float
    fault: str | None


def generate(pipe: Connection, test: LoadTest, number: int) -> None:
    """Run a generator process until the parent ends it.

    Args:
        pipe: connection to the parent.
        test: settings of the load test.
        number: number of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    sys.setswitchinterval(_SWITCH_S)
    with suppress(EOFError, ConnectionError):  # the parent has ended
        try:
            target = Target(test)
            target.probe()
            info = target.server_info() if number == 0 else None
        except (MisuseError, InvalidSpecError) as error:
            pipe.send(("failed", True, str(error)))
            return
        except (TargetError, PoolingError) as error:
            pipe.send(("failed", False, str(error)))
            return
        except MemoryError:
            pipe.send(("failed", True, "the generator has not enough memory for these calls"))
            return
        try:
            pipe.send(("ready", target.kinds, info))
            _Generator(pipe, test, number, target).serve()
        finally:
            target.close()


class _Generator:
    def __init__(self, pipe: Connection, test: LoadTest, number: int, target: Target) -> None:
        self._pipe, self._test, self._number, self._target = pipe, test, number, target
        weights = np.array([kind.weight for kind in test.kinds])
        self._shares = weights / weights.sum()

    def serve(self) -> None:
        """Perform the commands of the parent."""
        while (command := self._pipe.recv())[0] != "end":
            if command[0] == "run":
                self._run(command[1], command[2], receive(self._pipe))

    def _run(self, schedule: Schedule | None, start_ns: int, memory: int) -> None:
        test = self._test
        if schedule is None:
            calls = mapped(memory, int(test.duration_s * _MAX_CLOSED_RATE))
            kinds = self._kinds(_CHOICES, [test.seed, self._number])
        else:
            times = arrivals(schedule, test.seed)
            mine = slice(self._number, None, test.processes)
            kinds = self._kinds(len(times), [test.seed])[mine]
            calls = mapped(memory, len(times[mine]))
            calls.clear(slice(None))
            calls.scheduled_ns[:] = times[mine]
        seed = test.seed * test.processes + self._number
        recorder = Recorder(calls, start_ns, test.verify, seed, self._target.checks)
        senders = self._target.senders(recorder)
        loop = Loop(senders, recorder, kinds, [kind.sent_bytes for kind in self._target.kinds])
        over = threading.Event()
        listener = threading.Thread(target=self._listen, args=(loop, over))
        reporter = threading.Thread(target=self._report, args=(loop, recorder, over))
        time.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
        cpu, began = time.process_time(), time.monotonic()
        listener.start()
        reporter.start()
        try:
            if schedule is None:
                callers = _share(test.callers or 1, test.processes, self._number)
                loop.run_closed(callers, test.duration_s)
            else:
                loop.run_open(_share(test.max_in_flight, test.processes, self._number))
        except Exception as error:  # what was measured until then is kept
            recorder.broke(error)
        cpu = (time.process_time() - cpu) / max(1e-9, time.monotonic() - began)
        loop.wait(test.timeout_s + 1)
        over.set()
        listener.join()
        reporter.join()
        recorder.end()
        for sender in senders:
            sender.close()
        rows = loop.sent
        if schedule is not None:  # without those that were due after a stop
            rows = max(rows, int(np.searchsorted(calls.scheduled_ns, loop.ended_ns)))
        found = Summary(self._number, rows, loop.delayed, cpu, recorder.fault)
        self._pipe.send(("done", found))

    def _kinds(self, count: int, seed: list[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        random = np.random.default_rng([*seed, 0x1BD5])
        return random.choice(len(self._shares), size=count, p=self._shares).astype(np.uint8)

    def _listen(self, loop: Loop, over: threading.Event) -> None:
        """Stop the loop if the parent requests it or has ended."""
        while not over.is_set():
            if not self._pipe.poll(0.05):
                continue
            try:
                command = self._pipe.recv()
            except EOFError:
                command = ("stop",)
            if command[0] == "stop":
                loop.end()
                return

    def _report(self, loop: Loop, recorder: Recorder, over: threading.Event) -> None:
        reported = 0
        while not over.wait(_PROGRESS_S):
            sent = loop.sent
            latest = recorder.calls[slice(reported, sent)]
            latencies = latest.latency_ns[latest.is_done]
            p50_ms = float(np.median(latencies)) / 1e6 if latencies.size else float("nan")
            state = sent, recorder.done, recorder.succeeded, recorder.unavailable, p50_ms
            reported = sent
            try:
                self._pipe.send(("progress", Progress(*state)))
            except OSError:
                return


def main() -> None:
    """Run the generator process whose pipe the command line names."""
    pipe = Connection(int(sys.argv[1]))
    generate(pipe, *pipe.recv())


def _share(total: int, processes: int, number: int) -> int:
    """Return the share of a process in a total, at least 1."""
    return max(1, total // processes + (number < total % processes))
