"""The work that special values cause: how many tiles of a call are computed twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import PoolSpec
from pooling_engine.backends.numba_backend.forward.max_min import pool_tiles
from pooling_engine.backends.numba_backend.language.jit import kernel
from pooling_engine.backends.numba_backend.language.operations import Larger as PlainLarger
from pooling_engine.backends.numba_backend.language.selection import Larger
from pooling_engine.backends.numba_backend.tables.axes import window_tables
from tests.engine.numba.support import tiles_of
from tests.support import cases, oracle

# The first test compiles a kernel.
pytestmark = [pytest.mark.once, pytest.mark.timeout(300)]

SHAPE = (4, 4, 8, 8)  # a tile is a plane
TILES, PLANE_BYTES = 16, 256
SPEC = PoolSpec("max", 2, 2)
WINDOWS = {"adjacent": SPEC, "overlapping": PoolSpec("max", 3, 1, 1)}
many = cases.many_examples


@kernel
def counted_max_pool(x, output, windows, begin, end):
    """Pool like `max_pool`; return the number of tiles that were computed twice."""
    plain = PlainLarger(windows.identity)
    return pool_tiles(x, output, windows, begin, end, Larger(), plain)[1]


def repeated(x, spec):
    """Pool an array, compare the output with NumPy's, and count the tiles computed twice."""
    plan = pooling_engine.plan(spec, x.shape, x.dtype)
    with tiles_of(PLANE_BYTES, 1):
        tables, output = window_tables(plan), np.empty(plan.output_shape, x.dtype)
    assert tables.tiles == TILES
    count = counted_max_pool(x.reshape(-1), output.reshape(-1), tables, 0, TILES)
    oracle.assert_same_bits(output, pooling_engine.forward(x, spec, backend="numpy").output)
    return count


def with_values(x, positions, value):
    x = x.copy()
    x.reshape(-1)[np.asarray(positions, np.intp) % x.size] = value
    return x


positions = st.lists(st.integers(0, int(np.prod(SHAPE)) - 1), max_size=40)
windows = pytest.mark.parametrize("window", WINDOWS)


@windows
@many
@given(positions, st.integers(0, 9))
def test_no_nan_makes_a_tile_be_computed_twice(window, places, seed):
    x = with_values(cases.normal(SHAPE, seed=seed), places, np.nan)
    assert repeated(x, WINDOWS[window]) == 0


@windows
@many
@given(positions, positions, st.integers(0, 9))
@example(list(range(0, 1024, 7)), list(range(1, 1024, 5)), 0)
def test_zeros_make_their_own_tiles_be_computed_twice_and_no_two_in_a_row(
    window, negative, positive, seed
):
    x = -np.abs(cases.normal(SHAPE, seed=seed)) - 1
    x = with_values(with_values(x, positive, 0.0), negative, -0.0)
    tiles = x.reshape(TILES, -1)
    has_both = [
        ((tile == 0) & sign).any() and ((tile == 0) & ~sign).any()
        for tile, sign in zip(tiles, np.signbit(tiles), strict=True)
    ]
    assert repeated(x, WINDOWS[window]) <= min(sum(has_both), TILES // 2)


@windows
def test_zeros_of_one_sign_make_no_tile_be_computed_twice(window):
    x = np.where(cases.normal(SHAPE) > 0, np.float32(-0.0), np.float32(-1))
    assert repeated(x, WINDOWS[window]) == 0


@windows
def test_tiles_with_zeros_of_both_signs_are_computed_twice(window):
    """Check the counter: the other tests would also pass if it were always 0."""
    x = np.full(SHAPE, -1, np.float32)
    x[0, 0, 0, 0], x[0, 0, 1, 0] = 0.0, -0.0
    x[2, 1, 4, 4], x[2, 1, 5, 4] = -0.0, 0.0
    assert repeated(x, WINDOWS[window]) == 2
