"""What the engine's tests change in the engine, and put back."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import pooling_engine
from pooling_engine import backends
from pooling_engine.backends.numpy_kernels import block


@pytest.fixture(params=list(backends.BACKENDS), autouse=True, scope="module")
def backend(request):
    """Every test of the engine runs on every backend: each in turn is what "auto" means."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backends._loaded, "auto", backends.select_backend(request.param))
        yield request.param


@contextmanager
def _run_with(block_bytes=block.BLOCK_BYTES, threads=2):
    before = block.BLOCK_BYTES, pooling_engine.thread_count()
    _set(block_bytes, threads)
    try:
        yield
    finally:
        _set(*before)


def _set(block_bytes, threads):
    block.BLOCK_BYTES = block_bytes
    block.forward_blocks.cache_clear()
    block.backward_blocks.cache_clear()
    if threads != pooling_engine.thread_count():
        pooling_engine.set_thread_count(threads)


@pytest.fixture(scope="session")
def run_with():
    """``with run_with(block_bytes=64, threads=3):`` cuts blocks of that size.

    A block of 8 bytes is two numbers: every row becomes a band of its own.
    """
    return _run_with
