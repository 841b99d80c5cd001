"""Worker threads of the engine: failures, and forked processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import pooling_engine
from pooling_engine.runtime import threads

pytestmark = pytest.mark.once
LIMIT_S = 30


@pytest.fixture(autouse=True)
def _two_threads():
    before = pooling_engine.thread_count()
    pooling_engine.set_thread_count(2)
    yield
    pooling_engine.set_thread_count(before)


# Run in a separate process: other libraries have threads in the process of the tests.
FORKS = f"""
import os, signal, threading
import pooling_engine
from pooling_engine.runtime import threads

def meet():  # needs two threads at once
    meeting = threading.Barrier(2, timeout={LIMIT_S})
    threads.run_blocks(lambda _: meeting.wait(), range(2))

def meet_in_fork():
    child = os.fork()
    if child == 0:
        signal.alarm({LIMIT_S})
        try:
            meet()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

pooling_engine.set_thread_count(2)
meet()
first = meet_in_fork()
with threads._lock:  # as if another thread were starting workers
    second = meet_in_fork()
meet()
print(first, second)
"""


def test_a_forked_process_starts_its_own_threads():
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS]
    assert subprocess.check_output(command, text=True) == "0 0\n"


class Blocks:
    """Numbers of blocks; `exhausted` is set once no block is left to start."""

    def __init__(self, count):
        self._count, self._numbers = count, iter(range(count))
        self.exhausted = threading.Event()

    def __len__(self):
        return self._count

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self._numbers)
        except StopIteration:
            self.exhausted.set()
            raise


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("who", ["caller", "helper"])
def test_no_block_is_started_after_a_failure(who, error):
    meeting, started, blocks = threading.Barrier(2, timeout=LIMIT_S), [], Blocks(1000)
    caller = threading.current_thread()

    def work(block):
        started.append(block)
        meeting.wait()  # each thread has one block
        if (threading.current_thread() is caller) == (who == "caller"):
            raise error("at work")
        assert blocks.exhausted.wait(LIMIT_S)  # the failure drops all other blocks

    with pytest.raises(error, match="at work"):
        threads.run_blocks(work, blocks)
    assert sorted(started) == [0, 1]
