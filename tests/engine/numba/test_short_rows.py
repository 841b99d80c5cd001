"""Small planes with short rows: `forward/short_rows*.py` against the NumPy backend."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import InvalidSpecError, InvalidTensorError, PoolSpec, forward, plan
from pooling_engine.backends.numba_backend import dispatch
from pooling_engine.backends.numba_backend.language import processor
from pooling_engine.backends.numba_backend.tables.short_rows import MOST_SELECTED, has_short_rows
from tests.engine.numba.support import TILE_BYTES, tiles_of

pytestmark = pytest.mark.once  # every test names its backend

PLANES = ((7, 7), (14, 14), (3, 8), (9, 17), (4, 3), (22, 22), (1, 3), (6, 6))
COUNTS = (1, 2, 5, 33)  # one group of planes, or several; the last has fewer
WINDOWS = (
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": 3, "stride": 1, "padding": 1},
    {"kernel": 3, "stride": 2, "ceil_mode": True},
    {"kernel": (2, 3), "stride": (1, 2), "padding": (1, 1)},
    {"kernel": (5, 3), "stride": (3, 1), "padding": (2, 0)},
    {"kernel": 3, "stride": 2, "padding": 1, "dilation": (1, 2)},
)
MODES = (
    {"mode": "max"},
    {"mode": "min"},
    {"mode": "sum"},
    {"mode": "average"},
    {"mode": "average", "count_include_pad": False},
    {"mode": "average", "divisor_override": -7.0},
)


def _zeros_of_both_signs(rng, shape):
    x = rng.standard_normal(shape, np.float32)
    x[rng.random(shape) < 0.8] = 0.0
    x[rng.random(shape) < 0.4] *= -1
    return x


def _special_values(rng, shape):
    x = rng.standard_normal(shape, np.float32)
    bits, share = x.view(np.uint32), rng.random(shape)
    bits[share < 0.5] = 0x80000000  # -0.0
    bits[share < 0.2] = 0x7F800000  # infinities
    bits[share < 0.15] = 0xFF800000
    bits[share < 0.1] = 0x7FC00000 + rng.integers(1, 99, (share < 0.1).sum())  # NaNs
    bits[share < 0.03] = 0xFF800123  # signalling
    return x


@pytest.fixture(autouse=True)
def of_every_size(monkeypatch):
    """Use the kernels for all planes, as with AVX-512."""
    monkeypatch.setattr(dispatch, "_most_selected", MOST_SELECTED)


DATA = {
    "normal": lambda rng, shape: rng.standard_normal(shape, np.float32),
    "large": lambda rng, shape: rng.standard_normal(shape, np.float32) * np.float32(3e38),
    "zeros": _zeros_of_both_signs,
    "special": _special_values,
}


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_bits_are_those_of_the_numpy_backend(mode):
    rng, used = np.random.default_rng(24), 0
    for window in WINDOWS:
        for plane in PLANES:
            spec = PoolSpec(**mode, **window)
            try:
                is_short = has_short_rows(plan(spec, (1, 1, *plane), np.float32))
            except InvalidSpecError:  # the window does not fit the plane
                continue
            if not is_short:  # another kernel computes it
                continue
            used += 1
            for count in COUNTS:
                for make in DATA.values():
                    with np.errstate(over="ignore"):
                        x = make(rng, (1, count, *plane))
                    expected = forward(x, spec, backend="numpy").output
                    output = forward(x, spec, backend="numba").output
                    np.testing.assert_array_equal(
                        output.view(np.uint32), expected.view(np.uint32), err_msg=f"{spec} {plane}"
                    )
    assert used >= 10


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize("plane", [(7, 7), (14, 14)])
def test_threads_do_not_overwrite_outputs_of_one_another(mode, plane):
    spec = PoolSpec(mode, 3, 2, padding=1)
    assert has_short_rows(plan(spec, (3, 29, *plane), np.float32))
    x = np.random.default_rng(7).standard_normal((3, 29, *plane), np.float32)
    expected = forward(x, spec, backend="numpy").output
    for threads in (2, 3):
        with tiles_of(TILE_BYTES, threads):
            np.testing.assert_array_equal(forward(x, spec, backend="numba").output, expected)


def test_nothing_is_written_after_the_output():
    for mode in ("max", "average"):
        spec = PoolSpec(mode, 3, 2, padding=1)
        for count in (1, 4):
            memory = np.full(count * 16 + 64, 5.0, np.float32)
            out = memory[32 : 32 + count * 16].reshape(1, count, 4, 4)
            forward(np.ones((1, count, 7, 7), np.float32), spec, backend="numba", out=out)
            assert (out == out[0, 0]).all()
            assert (memory[:32] == 5).all()
            assert (memory[32 + count * 16 :] == 5).all()


@pytest.mark.parametrize(
    ("features", "compresses"), [("+avx2,+avx512f", True), ("+avx2", False), ("", False)]
)
def test_the_features_of_the_target_decide(features, compresses, monkeypatch):
    monkeypatch.setattr(processor.config, "CPU_FEATURES", features)
    assert processor.compresses_in_registers() == compresses


def test_a_nan_is_rejected():
    spec = PoolSpec("max", 3, 2, padding=1, nan_policy="error")
    x = np.zeros((1, 40, 7, 7), np.float32)
    forward(x, spec, backend="numba")
    x[0, 33, 6, 6] = np.nan
    with pytest.raises(InvalidTensorError, match="nan_policy"):
        forward(x, spec, backend="numba")
