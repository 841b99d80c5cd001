"""What the tests of the Numba backend share: a backend of their own, with its kernels to come."""

from __future__ import annotations

import pytest

from pooling_engine.backends import override
from pooling_engine.backends.numba_backend.backend import NumbaBackend


@pytest.fixture
def numba_backend():
    """What "numba" means in the test: it knows no kernel yet, and nobody else waits for its."""
    backend = NumbaBackend()
    with override("numba", backend):
        yield backend
