"""The engine's worker threads: what happens when work fails, and in a process that was forked."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import pooling_engine
from pooling_engine import threads

pytestmark = pytest.mark.once
LIMIT_S = 30


@pytest.fixture(autouse=True)
def _two_threads():
    before = pooling_engine.thread_count()
    pooling_engine.set_thread_count(2)
    yield
    pooling_engine.set_thread_count(before)


def meet():
    """Needs two threads at once."""
    meeting = threading.Barrier(2, timeout=LIMIT_S)
    threads.run_blocks(lambda _: meeting.wait(), range(2))


def exit_code_of_fork(work):
    """That of a child which does the work; 0 if it succeeds, negative if it never ends."""
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT_S)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    meet()
    assert exit_code_of_fork(meet) == 0
    with threads._lock:  # as if another thread were asking for workers just then
        assert exit_code_of_fork(meet) == 0
    meet()


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
