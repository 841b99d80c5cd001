"""Start and control of the generator processes of a load test, in the parent process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from multiprocessing import Pipe, connection
from types import TracebackType
from typing import Any, Self

import numpy as np

from pooling_loadtest.calls import COLUMNS, NEVER, Calls
from pooling_loadtest.errors import MisuseError, TargetError
from pooling_loadtest.generator import Progress, Summary
from pooling_loadtest.runs import Kind
from pooling_loadtest.schedules import Schedule
from pooling_loadtest.settings import LoadTest
from pooling_loadtest.shared import SharedColumns

_LEAD_NS = 200_000_000  # from the decision to start to the start
_END_S = 5.0
_MAIN = "from pooling_loadtest.generator import main; main()"

Observe = Callable[[float, list[Progress]], str | None]


class Generators:
    """Generator processes, started and ready. As a context manager it ends them.

    Args:
        test: settings of the load test.

    Attributes:
        kinds: kinds of calls, with sizes.
        server_info: version, backends and limits of the server, if it is ours.

    Raises:
        MisuseError: the settings are invalid.
        TargetError: the server cannot be tested.
    """

    def __init__(self, test: LoadTest) -> None:
        self._test = test
        self.kinds: list[Kind] = []
        self.server_info: dict[str, Any] | None = None
        self._pipes: list[connection.Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(test.processes):
                self._start(test, number)
            for pipe in self._pipes:
                self._await_ready(pipe)
        except BaseException:
            self.close()
            raise

    def run(self, schedule: Schedule | None, observe: Observe) -> Outcome:
        """Run all processes from a common start until their calls are done.

        Args:
            schedule: rates of the open loop; None for the closed loop.
            observe: called about twice a second with the time and the state of each process; a
                text stops the run. A KeyboardInterrupt that it or the wait raises stops it too.
        A process that has ended stops the others; the outcome has the calls of all of them.
        """
        start_ns = time.monotonic_ns() + _LEAD_NS
        started_unix_ns = time.time_ns() + _LEAD_NS
        with ExitStack() as stack:
            memory = [stack.enter_context(closing(SharedColumns())) for _ in self._pipes]
            for pipe, process, shared in zip(self._pipes, self._processes, memory, strict=True):
                with suppress(OSError):  # a process that has ended is reported by `_watch`
                    pipe.send(("run", schedule, start_ns))
                    shared.send(pipe, process.pid)
            summaries, stopped = self._watch(start_ns, observe)
            ended_ns = time.monotonic_ns() - start_ns
            rows = [shared.begun(ended_ns) for shared in memory]
            for summary in summaries:
                rows[summary.number] = summary.rows
            calls = _joined(memory, rows, is_closed=schedule is None)
        return Outcome(calls, summaries, stopped, started_unix_ns, start_ns)

    def _watch(self, start_ns: int, observe: Observe) -> tuple[list[Summary], str | None]:
        """Wait for all processes; return their summaries, and the reason of an early end."""
        waiting = dict(enumerate(self._pipes))
        states = [Progress(0, 0, 0, 0, float("nan"))] * len(self._pipes)
        summaries: list[Summary] = []
        stopped: str | None = None
        while waiting:
            reason = None
            try:
                for ready in connection.wait(list(waiting.values()), timeout=0.5):
                    number = next(n for n, pipe in waiting.items() if pipe is ready)
                    try:
                        kind, content = self._pipes[number].recv()
                    except (EOFError, ConnectionError):
                        reason = self._death(number, (time.monotonic_ns() - start_ns) / 1e9)
                        del waiting[number]
                        continue
                    if kind == "progress":
                        states[number] = content
                        continue
                    summaries.append(content)
                    del waiting[number]
                    if content.fault is not None:
                        reason = f"the generator has a fault: {content.fault}"
                if waiting and reason is None:
                    reason = observe((time.monotonic_ns() - start_ns) / 1e9, states)
            except KeyboardInterrupt:
                reason = "interrupted"
            if reason and stopped is None:
                stopped = reason
                for pipe in waiting.values():
                    with suppress(OSError):  # it has ended, which the next turn reports
                        pipe.send(("stop",))
        return sorted(summaries), stopped

    def _death(self, number: int, at_s: float) -> str:
        """Return the reason for which a process has ended."""
        process = self._processes[number]
        try:
            code = process.wait(_END_S)
        except subprocess.TimeoutExpired:
            how = "closed its pipe"
        else:
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by {_signal(-code)}"
        return (
            f"generator process {number} {how} {max(0.0, at_s):.1f} s after the start; its calls "
            "until then are kept"
        )

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(("end",))
            pipe.close()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, test: LoadTest, number: int) -> None:
        """Start a process in a group that Ctrl-C does not reach; it runs no module of the user."""
        ours, theirs = Pipe()
        command = [sys.executable, "-c", _MAIN, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], process_group=0)
        theirs.close()
        self._pipes.append(ours)
        self._processes.append(process)
        with suppress(OSError):  # a process that has ended is reported below
            ours.send((test, number))

    def _await_ready(self, pipe: connection.Connection) -> None:
        try:
            message = pipe.recv()
        except (EOFError, ConnectionError):
            raise TargetError("a generator process ended before it was ready") from None
        if message[0] == "failed":
            raise (MisuseError if message[1] else TargetError)(message[2])
        self.kinds = message[1]
        self.server_info = self.server_info or message[2]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _joined(memory: Sequence[SharedColumns], rows: Sequence[int], is_closed: bool) -> Calls:
    """Return the calls of all processes in the order of their scheduled times.

    It reads one column after the other, to need less memory.
    """
    parts = list(zip(memory, rows, strict=True))

    def column(name: str) -> Any:
        return np.concatenate([shared.read(name, count) for shared, count in parts])

    scheduled = column("scheduled_ns")
    if is_closed:  # a call that waited for a thread was not due before
        sent = column("sent_ns")
        scheduled = np.where(sent != NEVER, sent, scheduled)
    order = np.argsort(scheduled, kind="stable")
    columns = {"scheduled_ns": scheduled[order]}
    del scheduled
    columns["process"] = np.repeat(np.arange(len(rows), dtype=np.uint8), rows)[order]
    for name in COLUMNS.keys() - columns.keys():
        columns[name] = column(name)[order]
    return Calls(columns)


class Outcome:
    """Result of one run of all processes.

    Args:
        calls: the calls, in the order of their scheduled times.
        summaries: one for each process that has not died.
        stopped: None, or the reason of an early end.
        started_unix_ns: time of the common start.
        start_ns: the same time of `time.monotonic_ns`.
    """

    def __init__(
        self,
        calls: Calls,
        summaries: list[Summary],
        stopped: str | None,
        started_unix_ns: int,
        start_ns: int,
    ) -> None:
        self.calls, self.summaries, self.stopped = calls, summaries, stopped
        self.started_unix_ns, self.start_ns = started_unix_ns, start_ns
