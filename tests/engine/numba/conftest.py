"""Fixtures of the tests of the Numba backend."""

from __future__ import annotations

import pytest

from pooling_engine.backends import override
from pooling_engine.backends.numba_backend.backend import NumbaBackend


@pytest.fixture
def numba_backend():
    """Replace the backend "numba" by a new one, which has compiled no kernel yet."""
    backend = NumbaBackend()
    with override("numba", backend):
        yield backend
