"""Smaller tiles, more threads and other thresholds for tests of the Numba backend."""

from __future__ import annotations

from contextlib import contextmanager

import pooling_engine
from pooling_engine.backends.numba_backend import dispatch
from pooling_engine.backends.numba_backend.tables import axes, index_targets, tile_sizes
from pooling_engine.backends.registry import select_backend
from pooling_engine.runtime import threads

TILES = (
    "WINDOWS",
    "INDEXED",
    "WIDE",
    "PADDED",
    "SELECTED",
    "SCATTERED",
    "STACKED",
    "ADJACENT",
)
TILE_BYTES = tile_sizes.WINDOWS  # of most kernels, by default
_TABLES = (axes.window_tables, index_targets.scatter_tables)


@contextmanager
def tiles_of(tile_bytes, thread_count, is_gathered=False):
    """Cut tiles of `tile_bytes`, and share even the smallest calls out among threads.

    Tiles of another size than TILE_BYTES are also streamed past the cache.

    Args:
        is_gathered: whether gradients of extremes are gathered for any number of channels.
    """
    values = {(tile_sizes, name): tile_bytes for name in TILES}
    values |= {(threads, "BYTES_PER_PART"): 1, (threads, "SHARED_BYTES"): 0}
    if tile_bytes != TILE_BYTES:
        values[tile_sizes, "STREAMED"] = 0
    if is_gathered:
        values |= {(dispatch, "GATHERED_CHANNELS"): 1, (dispatch, "GATHERED_TAPS"): 65_535}
    before = {(module, name): getattr(module, name) for module, name in values}
    count = pooling_engine.thread_count()
    _set(values, thread_count)
    try:
        yield
    finally:
        _set(before, count)


def _set(values, thread_count):
    for (module, name), value in values.items():
        setattr(module, name, value)
    for cache in (*_TABLES, *select_backend("numba").launches):
        cache.cache_clear()
    if thread_count != pooling_engine.thread_count():
        pooling_engine.set_thread_count(thread_count)
