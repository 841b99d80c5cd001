"""Extremes of large windows: `forward/large_max_min.py` against the NumPy backend."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import InvalidTensorError, PoolSpec, forward, plan
from pooling_engine.backends.numba_backend.tables.large_windows import has_large_windows
from tests.engine.numba.support import TILE_BYTES, tiles_of
from tests.engine.numba.test_short_rows import DATA
from tests.support import oracle, palettes

pytestmark = pytest.mark.once  # every test names its backend

# Planes, kernels and paddings: numbers of blocks along a row, groups of rows, and blocks of rows.
LAYERS = (
    ((20, 20), 5, 2),
    ((19, 20), 5, 0),
    ((20, 20), 9, 4),
    ((20, 20), 13, 6),
    ((40, 40), 13, 6),
    ((17, 50), (7, 5), (3, 0)),
    ((33, 16), (5, 6), ((4, 0), (5, 5))),
    ((30, 18), (9, 6), (8, 5)),
    ((25, 47), (6, 17), (0, 16)),
    ((16, 20), (31, 39), (30, 38)),
    ((48, 112), 31, 15),
    ((90, 100), (66, 70), (33, 12)),
)


def _spec(mode, kernel, padding, **options):
    return PoolSpec(mode, kernel, 1, padding, **options)


def _assert_same(x, spec):
    assert has_large_windows(plan(spec, x.shape, x.dtype))
    expected = forward(x, spec, backend="numpy").output
    oracle.assert_same_bits(forward(x, spec, backend="numba").output, expected)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("make", DATA.values(), ids=DATA)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bits_are_those_of_the_numpy_backend(mode, make):
    rng = np.random.default_rng(3)
    for plane, kernel, padding in LAYERS:
        _assert_same(make(rng, (1, 3, *plane)), _spec(mode, kernel, padding))


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
def test_bits_of_every_type(dtype):
    rng = np.random.default_rng(4)
    for plane, kernel, padding in LAYERS[:4]:
        x = rng.standard_normal((2, 1, *plane)).astype(dtype)
        _assert_same(x, _spec("max", kernel, padding))
        x.reshape(-1)[:: 2 * x.shape[-1]] = np.nan
        _assert_same(x, _spec("max", kernel, padding))


@pytest.mark.parametrize("tile_bytes", [64, TILE_BYTES])
def test_tiles_and_threads_do_not_overwrite_one_another(tile_bytes):
    rng = np.random.default_rng(5)
    for plane, kernel, padding in LAYERS:
        with tiles_of(tile_bytes, 3):
            _assert_same(DATA["zeros"](rng, (1, 5, *plane)), _spec("max", kernel, padding))


def test_nothing_is_written_around_the_output():
    memory = np.full(2 * 400 + 64, 5.0, np.float32)
    out = memory[32:-32].reshape(1, 2, 20, 20)
    for kernel in (5, 13):
        x = np.ones((1, 2, 20, 20), np.float32)
        forward(x, _spec("max", kernel, kernel // 2), backend="numba", out=out)
        assert (out == 1).all()
        assert (memory[:32] == 5).all()
        assert (memory[-32:] == 5).all()


def test_a_nan_is_rejected():
    spec = _spec("min", 9, 4, nan_policy="error")
    x = np.zeros((1, 40, 20, 20), np.float32)
    forward(x, spec, backend="numba")
    x[0, 33, 19, 19] = np.nan
    with pytest.raises(InvalidTensorError, match="nan_policy"):
        forward(x, spec, backend="numba")
