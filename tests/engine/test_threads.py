"""The engine's worker threads: what happens when work fails, and in a process that was forked."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

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


# In a process of its own: in that of the tests, other libraries have threads, and mind forks.
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
with threads._lock:  # as if another thread were asking for workers just then
    second = meet_in_fork()
meet()
print(first, second)
"""


def test_a_forked_process_has_threads_of_its_own():
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS]
    assert subprocess.check_output(command, text=True) == "0 0\n"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("who", ["caller", "helper"])
def test_nobody_begins_another_block_after_a_failure(who, error):
    meeting, begun = threading.Barrier(2, timeout=LIMIT_S), []
    caller = threading.current_thread()

    def work(block):
        begun.append(block)
        if block < 2:  # one each
            meeting.wait()
            if (threading.current_thread() is caller) == (who == "caller"):
                raise error("at work")
        time.sleep(0.01)  # long before all are done, the other one has failed

    with pytest.raises(error, match="at work"):
        threads.run_blocks(work, range(1000))
    assert len(begun) < 1000
