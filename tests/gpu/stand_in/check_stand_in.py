"""Host arrays of many threads, pinning, no room and a lost card, by the real CuPy on the stand-in.

`make gpu-stand-in` alone runs this file: its name keeps it out of `make test`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pooling_engine import DeviceMemoryError, PoolSpec, UnavailableError, backends, forward
from pooling_engine.backends.cupy_backend import backend as cupy_backend
from tests.gpu.stand_in.place import LIBRARY

SPEC = PoolSpec("max", 3, 2, padding=1)
SHAPES = ((2, 3, 9, 12), (8, 64, 40, 40), (4, 32, 112, 112))


LAUNCH_FAILURE = 719


@pytest.fixture(scope="module")
def backend():
    backend = cupy_backend.load()
    with backends.override("cupy", backend):
        yield backend


@pytest.fixture
def limit():
    """Sets how many bytes the stand-in has."""
    yield LIBRARY.stand_in_limit
    LIBRARY.stand_in_limit(0)


@pytest.fixture
def fault():
    """Sets what every call of CUDA answers; 0 is success."""
    yield LIBRARY.stand_in_fault
    LIBRARY.stand_in_fault(0)


def assert_same(seed):
    x = np.random.default_rng(seed).standard_normal(SHAPES[seed % 3]).astype(np.float32)
    ours = forward(x, SPEC, return_indices=True, backend="cupy")
    theirs = forward(x, SPEC, return_indices=True, backend="numpy")
    assert ours.output.tobytes() == theirs.output.tobytes()
    assert np.array_equal(ours.indices, theirs.indices)


@pytest.mark.usefixtures("backend")
def test_six_threads():
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(assert_same, range(36)))


def test_pinned(backend):
    memory = np.zeros(4 << 20, np.uint8)
    unpin = backend.pin(memory)
    x = memory.view(np.float32).reshape(4, 16, 128, 128)
    before = LIBRARY.stand_in_pinned_copies()
    ours = forward(x, SPEC, backend="cupy").output
    assert LIBRARY.stand_in_pinned_copies() > before
    assert np.array_equal(ours, forward(x, SPEC, backend="numpy").output)
    unpin()


def test_no_room(backend, limit):
    limit(LIBRARY.stand_in_used() + (1 << 20))
    with pytest.raises(DeviceMemoryError):
        backend.to_device(np.zeros(256 << 20, np.uint8))  # more than lanes would give up
    assert_same(0)


# Streams of lanes that are given up cannot end on a card that is lost, which CuPy says aloud.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lost(backend, fault):
    fault(LAUNCH_FAILURE)
    with pytest.raises(UnavailableError):
        backend.probe()
    fault(0)
    backend.probe()
