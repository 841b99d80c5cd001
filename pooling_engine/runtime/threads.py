"""Worker threads of the engine: independent blocks, distributed over the cores.

NumPy and compiled kernels release the GIL, so threads suffice.
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
Result = TypeVar("Result")
PARTS_PER_THREAD = 4  # so that other threads take over the work of a slow one
BYTES_PER_PART = 1 << 20  # waking a thread takes about as long as pooling this much
SHARED_BYTES = 2 * BYTES_PER_PART  # smaller work stays in the calling thread

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_threads = usable_cores()


def thread_count() -> int:
    """Return the number of threads that one call may use, including the caller's."""
    return _threads


def set_thread_count(threads: int) -> None:
    """Set the number of threads that one call may use. The default is the usable cores.

    Raises:
        ValueError: `threads` is not an integer of at least 1.
    """
    global _pool, _threads
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads is {threads!r}; it must be an integer of at least 1")
    with _lock:
        _pool, _threads = None, threads


def run_blocks(work: Callable[[Block], None], blocks: Sequence[Block]) -> None:
    """Call `work` on every block, in the calling thread and the worker threads.

    Blocks must be independent: their order and their threads are undefined. After a block has
    failed or was interrupted, no other block is started.
    """
    helpers = min(_threads, len(blocks)) - 1
    if helpers < 1:
        for block in blocks:
            work(block)
        return
    pending = iter(blocks)  # shared: each thread takes the next block as soon as it is idle

    def take_blocks() -> None:
        try:
            for block in pending:
                work(block)
        except BaseException:
            deque(pending, maxlen=0)  # drops all remaining blocks
            raise

    futures = [_workers().submit(take_blocks) for _ in range(helpers)]
    try:
        take_blocks()
    finally:  # no thread may still write when this function returns or raises
        wait(future for future in futures if not future.cancel())
    for future in futures:
        if not future.cancelled():  # cancelled: queued behind other calls, and no longer needed
            future.result()


def run_range(work: Callable[[int, int], Result], count: int, size_bytes: int) -> list[Result]:
    """Call ``work(begin, end)`` on consecutive ranges of 0 to `count`; see `run_blocks`.

    Args:
        work: function of the begin and the end of a range.
        count: end of the last range.
        size_bytes: total bytes read or written; small work is not worth a second thread.

    Returns:
        The return values, in undefined order.
    """
    if _threads < 2 or count < 2 or size_bytes < SHARED_BYTES:
        return [work(0, count)]
    parts = min(count, _threads * PARTS_PER_THREAD, size_bytes // BYTES_PER_PART)
    results: list[Result] = []
    cuts = [count * part // parts for part in range(parts + 1)]
    run_blocks(lambda part: results.append(work(*part)), list(pairwise(cuts)))
    return results


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, _threads - 1), thread_name_prefix="pooling-engine")
        return _pool


def _forget_workers() -> None:
    # A forked process has only one thread, and locks in the state that other threads left.
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forget_workers)
