"""How the kernels of the Numba backend are cut, for the tests."""

from __future__ import annotations

from contextlib import contextmanager

import pooling_engine
from pooling_engine.backends.numba_backend import dispatch as calls
from pooling_engine.backends.numba_backend.tables import (
    adjacent_windows,
    axes,
    index_targets,
    reaching_outputs,
)
from pooling_engine.runtime import threads

CUTS = tuple((module, "SLAB_BYTES") for module in (axes, index_targets, adjacent_windows))
TABLES = (
    reaching_outputs.gathering_of,
    axes.geometry_of,
    axes.reach_of,
    index_targets.targets_of,
    adjacent_windows.tiling_of,
)


@contextmanager
def cut(slab_bytes, thread_count, gathers=False):
    """Slabs of that size, shared out among threads however small they are, past the cache.

    Args:
        gathers: whether gradients are gathered however few channels there are.
    """
    sizes = dict.fromkeys(CUTS, slab_bytes) | {(threads, "BYTES_PER_PART"): 1}
    if slab_bytes != axes.SLAB_BYTES:
        sizes[calls, "STREAMED_BYTES"] = 0
    if gathers:
        sizes |= {(calls, "GATHERED_CHANNELS"): 1, (calls, "GATHERED_TAPS"): 65_535}
    before = {(module, name): getattr(module, name) for module, name in sizes}
    count = pooling_engine.thread_count()
    _set(sizes, thread_count)
    try:
        yield
    finally:
        _set(before, count)


def _set(sizes, thread_count):
    for (module, name), value in sizes.items():
        setattr(module, name, value)
    for table in TABLES:
        table.cache_clear()
    if thread_count != pooling_engine.thread_count():
        pooling_engine.set_thread_count(thread_count)
