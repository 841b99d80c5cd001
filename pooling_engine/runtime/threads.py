"""The engine's worker threads: independent blocks, spread over the cores.

NumPy and compiled kernels release the interpreter lock, so threads are enough.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

from pooling_engine.runtime.cores import usable_cores

Block = TypeVar("Block")
Answer = TypeVar("Answer")
PARTS_PER_THREAD = 4  # so that a thread that is held up leaves its work to the others
BYTES_PER_PART = 1 << 20  # waking another thread costs what pooling about this much does
SHARED_BYTES = 2 * BYTES_PER_PART  # less is computed by the thread that asks for it

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_threads = usable_cores()


def thread_count() -> int:
    """How many threads one call may use, the caller's included."""
    return _threads


def set_thread_count(threads: int) -> None:
    """Sets how many threads one call may use. The default is the cores it may run on.

    Raises:
        ValueError: `threads` is no integer of at least 1.
    """
    global _pool, _threads
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads is {threads!r}; it must be an integer of at least 1")
    with _lock:
        _pool, _threads = None, threads


def run_blocks(work: Callable[[Block], None], blocks: Sequence[Block]) -> None:
    """Calls `work` on every block, in the caller and in the worker threads.

    Blocks must be independent: their order and the thread that takes each are not fixed. Once one
    has failed, or was interrupted, no other is begun.
    """
    helpers = min(_threads, len(blocks)) - 1
    if helpers < 1:
        for block in blocks:
            work(block)
        return
    pending = iter(blocks)  # shared: each thread takes the next block when it is free

    def take_blocks() -> None:
        try:
            for block in pending:
                work(block)
        except BaseException:
            deque(pending, maxlen=0)  # leaves none
            raise

    futures = [_workers().submit(take_blocks) for _ in range(helpers)]
    try:
        take_blocks()
    finally:  # whatever happened: nobody writes any more when this returns
        wait(future for future in futures if not future.cancel())
    for future in futures:
        if not future.cancelled():  # it had begun; one behind other calls is not needed
            future.result()


def run_range(work: Callable[[int, int], Answer], count: int, size_bytes: int) -> list[Answer]:
    """Calls ``work(begin, end)`` on runs that together are 0 to `count`, as `run_blocks` does.

    Args:
        size_bytes: of all that is read or written: too little is not worth another thread.

    Returns:
        The answers, in no order.
    """
    if _threads < 2 or count < 2 or size_bytes < SHARED_BYTES:
        return [work(0, count)]
    parts = min(count, _threads * PARTS_PER_THREAD, size_bytes // BYTES_PER_PART)
    answers: list[Answer] = []
    cuts = [count * part // parts for part in range(parts + 1)]
    run_blocks(lambda run: answers.append(work(*run)), list(pairwise(cuts)))
    return answers


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, _threads - 1), thread_name_prefix="pooling-engine")
        return _pool


def _forget_workers() -> None:
    """A forked process has no thread but one, and locks as the others held them."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_workers)
