"""Fixtures of the engine's tests: the backend, the number of threads, the size of blocks."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import pooling_engine
from pooling_engine import backends
from pooling_engine.backends.numpy_backend import block


def pytest_configure(config):
    config.addinivalue_line("markers", "once: reaches no backend, or no compiled kernel")


def pytest_generate_tests(metafunc):
    """Run every test on every available backend; tests with the mark `once` on one of them."""
    names = backends.available_backends()
    if metafunc.definition.get_closest_marker("once"):
        names = names[-1:]
    metafunc.parametrize("backend", names, indirect=True, scope="module")


def pytest_collection_modifyitems(config, items):
    """Drop the modes that a backend delegates to another one, which has the same tests."""
    here = Path(__file__).parent  # `items` has the tests of all folders
    ours = (item for item in items if item.path.is_relative_to(here))
    left = [item for item in ours if not _is_computed(item)]
    items[:] = [item for item in items if item not in set(left)]
    config.hook.pytest_deselected(items=left)


def _is_computed(item):
    params = item.callspec.params
    options = params.get("options", params.get("mode"))
    mode = options.get("mode") if isinstance(options, dict) else options
    return mode != "lp" or mode in backends.select_backend(params["backend"]).modes


@pytest.fixture(autouse=True, scope="module")
def backend(request, kernels):
    """Run the tests of a module with this backend as "auto"."""
    with ExitStack() as stack:
        if kernels:  # that of the process compiles in the background after the tests of a server
            stack.enter_context(backends.override("numba", kernels))
        stack.enter_context(backends.override("auto", backends.select_backend(request.param)))
        yield request.param


@pytest.fixture(scope="session")
def kernels():
    """Return the Numba backend of these tests, or None if Numba is not installed."""
    if "numba" not in backends.available_backends():
        return None
    from pooling_engine.backends.numba_backend.backend import NumbaBackend

    return NumbaBackend()


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
    """Return a context manager that sets the size of blocks and the number of threads.

    A block of 8 bytes has two numbers, so that every row is a separate band.
    """
    return _run_with
