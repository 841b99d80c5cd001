"""The engine's worker threads: independent blocks, spread over the cores.

NumPy releases the interpreter lock inside its loops, so threads are enough.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Block = TypeVar("Block")

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_threads = len(os.sched_getaffinity(0))


def thread_count() -> int:
    """How many threads one call may use, the caller's included."""
    return _threads


def set_thread_count(threads: int) -> None:
    """Sets how many threads one call may use. The default is the cores of this process.

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

    Blocks must be independent: their order and the thread that takes each are not fixed.
    """
    helpers = min(_threads, len(blocks)) - 1
    if helpers < 1:
        for block in blocks:
            work(block)
        return
    pending = iter(blocks)  # shared: each thread takes the next block when it is free

    def take_blocks() -> None:
        for block in pending:
            work(block)

    futures = [_workers().submit(take_blocks) for _ in range(helpers)]
    take_blocks()
    for future in futures:
        future.result()


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, _threads - 1), thread_name_prefix="pooling-engine")
        return _pool
