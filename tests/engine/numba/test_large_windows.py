"""Large windows with a stride of 1: `forward/large_*.py` against the NumPy backend."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pooling_engine import InvalidTensorError, PoolSpec, forward, plan
from pooling_engine.backends.numba_backend.tables.large_windows import has_large_windows
from tests.engine.numba.support import TILE_BYTES, tiles_of
from tests.engine.numba.test_short_rows import DATA, MODES
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


# The windows of sums are scanned along both axes or along none.
SUMS = tuple(layer for layer in LAYERS if layer[1] not in ((9, 6), (6, 17)))


def _spec(mode, kernel, padding, **options):
    return PoolSpec(mode, kernel, 1, padding, **options)


def _assert_same(x, spec):
    assert has_large_windows(plan(spec, x.shape, x.dtype))
    expected = forward(x, spec, backend="numpy").output
    oracle.assert_same_bits(forward(x, spec, backend="numba").output, expected)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
@pytest.mark.parametrize("make", DATA.values(), ids=DATA)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_bits_are_those_of_the_numpy_backend(mode, make):
    rng = np.random.default_rng(3)
    is_selected = mode["mode"] in ("max", "min")
    for plane, kernel, padding in LAYERS if is_selected else SUMS:
        _assert_same(
            make(rng, (1, 3, *plane)), PoolSpec(kernel=kernel, stride=1, padding=padding, **mode)
        )


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
def test_bits_of_every_type(dtype):
    rng = np.random.default_rng(4)
    for plane, kernel, padding in LAYERS[:4]:
        x = rng.standard_normal((2, 1, *plane)).astype(dtype)
        _assert_same(x, _spec("max", kernel, padding))
        x.reshape(-1)[:: 2 * x.shape[-1]] = np.nan
        _assert_same(x, _spec("max", kernel, padding))


@pytest.mark.parametrize("tile_bytes", [64, TILE_BYTES])
@pytest.mark.parametrize("mode", ["max", "average"])
def test_tiles_and_threads_do_not_overwrite_one_another(mode, tile_bytes):
    rng = np.random.default_rng(5)
    for plane, kernel, padding in LAYERS if mode == "max" else SUMS:
        x = DATA["zeros" if mode == "max" else "normal"](rng, (1, 5, *plane))
        with tiles_of(tile_bytes, 3):
            _assert_same(x, _spec(mode, kernel, padding))


def test_average_of_bands_of_few_rows_has_the_order_of_the_plane():
    x = np.random.default_rng(6).standard_normal((1, 2, 31, 20), np.float32)
    whole = forward(x, _spec("average", 9, 0), backend="numba").output
    for first in (0, 9, 18):  # bands begin with a block
        band = forward(x[:, :, first : first + 13], _spec("average", 9, 0), backend="numba").output
        oracle.assert_same_bits(band, whole[:, :, first : first + 5])


def test_nothing_is_written_around_the_output():
    memory = np.full(2 * 400 + 64, 5.0, np.float32)
    out = memory[32:-32].reshape(1, 2, 20, 20)
    for mode, kernel in product(("max", "average"), (5, 13)):
        x = np.ones((1, 2, 20, 20), np.float32)
        spec = _spec(mode, kernel, kernel // 2)
        forward(x, spec, backend="numba", out=out)
        oracle.assert_same_bits(out, forward(x, spec, backend="numpy").output)
        assert (memory[:32] == 5).all()
        assert (memory[-32:] == 5).all()


def test_a_nan_is_rejected():
    spec = _spec("min", 9, 4, nan_policy="error")
    x = np.zeros((1, 40, 20, 20), np.float32)
    forward(x, spec, backend="numba")
    x[0, 33, 19, 19] = np.nan
    with pytest.raises(InvalidTensorError, match="nan_policy"):
        forward(x, spec, backend="numba")
