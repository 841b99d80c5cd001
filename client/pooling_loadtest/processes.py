"""The generator processes of a load test, as the parent sees them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe, connection
from types import TracebackType
from typing import Any, Self

import numpy as np

from pooling_loadtest.calls import COLUMNS, Calls
from pooling_loadtest.errors import MisuseError, TargetError
from pooling_loadtest.generator import Progress, Summary
from pooling_loadtest.runs import Kind
from pooling_loadtest.schedules import Schedule
from pooling_loadtest.settings import LoadTest

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

        Raises:
            TargetError: a process has died.
        """
        start_ns = time.monotonic_ns() + _LEAD_NS
        started_unix_ns = time.time_ns() + _LEAD_NS
        for pipe in self._pipes:
            pipe.send(("run", schedule, start_ns))
        waiting = dict(enumerate(self._pipes))
        states = [Progress(0, 0, 0, 0, float("nan"))] * len(self._pipes)
        summaries: dict[int, Summary] = {}
        stopped: str | None = None
        while waiting:
            try:
                for ready in connection.wait(list(waiting.values()), timeout=0.5):
                    number = next(n for n, pipe in waiting.items() if pipe is ready)
                    kind, content = self._receive(number)
                    if kind == "progress":
                        states[number] = content
                    else:
                        summaries[number] = content
                        del waiting[number]
                reason = None
                if waiting:
                    reason = observe((time.monotonic_ns() - start_ns) / 1e9, states)
            except KeyboardInterrupt:
                reason = "interrupted"
            if reason and stopped is None:
                stopped = reason
                for pipe in waiting.values():
                    pipe.send(("stop",))
        ordered = [summaries[number] for number in range(len(self._pipes))]
        return Outcome(self._columns(), ordered, stopped, started_unix_ns, start_ns)

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

    def _receive(self, number: int) -> Any:
        try:
            return self._pipes[number].recv()
        except (EOFError, ConnectionError):
            raise TargetError(f"generator process {number} ended; its calls are lost") from None

    def _columns(self) -> Calls:
        """Receive the columns of all processes one after the other, to need less memory."""
        columns: dict[str, Any] = {}
        order: Any = None
        for name, dtype in COLUMNS.items():
            parts = [np.frombuffer(pipe.recv_bytes(), dtype) for pipe in self._pipes]
            column = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if order is None:
                order = np.argsort(column, kind="stable")
            columns[name] = column[order]
        return Calls(columns)


class Outcome:
    """Result of one run of all processes.

    Args:
        calls: the calls, in the order of their scheduled times.
        summaries: one for each process.
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

    @property
    def elapsed_s(self) -> float:
        """Seconds until the last reply or error."""
        done = self.calls.done_ns
        return float(done.max()) / 1e9 if len(done) else 0.0
