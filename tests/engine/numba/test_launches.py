"""Launches: a kernel is chosen once for a plan, and small calls can be shared among threads."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends.numba_backend import dispatch
from pooling_engine.runtime import threads
from tests.engine.numba.support import TILE_BYTES, tiles_of
from tests.support import cases, oracle

pytestmark = pytest.mark.once  # every test names its backend

SPEC = PoolSpec("max", 3, 2, 1)


@pytest.fixture
def launched(monkeypatch):
    """List the kernels and element types of launches as they are built."""
    built = []
    original = dispatch.Launch

    def counting(key, *others):
        built.append(key)
        return original(key, *others)

    monkeypatch.setattr(dispatch, "Launch", counting)
    return built


def test_the_kernels_of_a_plan_are_chosen_once(numba_backend, launched):
    for number in range(3):
        x = cases.normal((2, 3, 9, 40), seed=number)
        plain = forward(x, SPEC, backend="numba").output
        output, indices = forward(x, SPEC, return_indices=True, backend="numba")
        oracle.assert_same_bits(plain, output)
        sent = {"input_shape": x.shape, "indices": indices}
        expected = backward(output, SPEC, backend="numpy", **sent)
        oracle.assert_same_bits(backward(output, SPEC, backend="numba", **sent), expected)
    assert len(launched) == 3


def test_each_element_type_has_its_own_launch(numba_backend, launched):
    for dtype in (np.float32, np.float64, np.float32):
        x = cases.normal((2, 3, 9, 40)).astype(dtype)
        expected = forward(x, SPEC, backend="numpy").output
        oracle.assert_same_bits(forward(x, SPEC, backend="numba").output, expected)
    assert len(launched) == 2


def test_bytes_are_converted_for_a_scan():
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 80, 80), np.uint8)
    spec = PoolSpec("average", 40, 3)
    expected = forward(x, spec, backend="numpy").output
    oracle.assert_same_bits(forward(x, spec, backend="numba").output, expected)


def test_the_tests_share_small_calls_among_threads(monkeypatch):
    shared = []
    original = threads.run_blocks

    def counting(work, blocks):
        shared.append(len(blocks))
        original(work, blocks)

    monkeypatch.setattr(threads, "run_blocks", counting)
    x = cases.normal((2, 3, 40, 40))
    with tiles_of(TILE_BYTES // 8, 5):
        forward(x, SPEC, backend="numba")
    assert shared[0] > 1
