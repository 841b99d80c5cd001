"""Calls that kernels compute, and calls that fall back to the NumPy backend."""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from tests.support import cases, palettes

pytestmark = pytest.mark.once  # every test names its backend

SHAPE = (2, 3, 9, 7)
CHANNELS_LAST = {"layout": "channels_last"}
EXTREMES = ({"mode": "max"}, {"mode": "min"})
SUMS = ({"mode": "sum"}, {"mode": "average"}, {"mode": "average", "divisor_override": 3})
WINDOWS = (
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": 2, "dilation": 2, "layout": "channels_last"},
    {"adaptive_output": (4, 3)},
    {"global_window": True},
    {"global_window": True, "layout": "channels_last"},
)
every_type = pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)


class FallbackError(Exception):
    """Raised in place of a computation by the NumPy backend."""


@pytest.fixture(autouse=True)
def _no_numpy(monkeypatch):
    def fail(*_):
        raise FallbackError

    monkeypatch.setattr(NumpyBackend, "forward", fail)
    monkeypatch.setattr(NumpyBackend, "backward", fail)


def falls_back(call, *arguments, **options):
    try:
        call(*arguments, backend="numba", **options)
    except FallbackError:
        return True
    return False


def given(options, x):
    return np.ascontiguousarray(cases.to_layout(options, x))


def output_shape(spec, x):
    return pooling_engine.plan(spec, x.shape, x.dtype).output_shape


@every_type
@pytest.mark.parametrize("window", WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("mode", EXTREMES, ids=cases.name_of)
def test_kernels_compute_extremes(mode, window, dtype):
    spec, x = PoolSpec(**mode, **window), given(window, cases.normal(SHAPE, dtype))
    assert not falls_back(forward, x, spec)
    assert not falls_back(forward, x, spec, return_indices=True)
    assert not falls_back(forward, x, spec, return_indices=True, index_format="plane")
    dy = cases.normal(output_shape(spec, x), dtype)
    indices = forward(x, spec, return_indices=True, backend="numba").indices
    assert not falls_back(backward, dy, spec, input_shape=x.shape, indices=indices)
    assert not falls_back(backward, dy, spec, input=x)


@every_type
@pytest.mark.parametrize("window", WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("mode", SUMS, ids=cases.name_of)
def test_kernels_compute_sums(mode, window, dtype):
    spec, x = PoolSpec(**mode, **window), given(window, cases.normal(SHAPE, dtype))
    assert not falls_back(forward, x, spec)
    dy = cases.normal(output_shape(spec, x), dtype)
    assert not falls_back(backward, dy, spec, input_shape=x.shape)


@pytest.mark.parametrize("axes", range(1, 7))
def test_kernels_compute_every_rank(axes):
    x = cases.normal((2, 2, *(3,) * axes))
    for mode in EXTREMES + SUMS:
        assert not falls_back(forward, x, PoolSpec(**mode, kernel=2, stride=1))


@pytest.mark.parametrize("policy", ["ignore", "error"])
def test_kernels_compute_with_every_nan_policy_if_there_is_no_nan(policy):
    spec = PoolSpec("max", 3, nan_policy=policy)
    assert not falls_back(forward, cases.normal(SHAPE), spec)
    assert not falls_back(forward, cases.normal(SHAPE), spec, return_indices=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0])
def test_kernels_compute_with_special_values_in_the_gradient(value):
    x, spec = cases.normal(SHAPE), PoolSpec("max", 3)
    dy = np.full(output_shape(spec, x), value, np.float32)
    assert not falls_back(backward, dy, spec, input=x)
    assert not falls_back(backward, dy, PoolSpec("sum", 3), input_shape=SHAPE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0])
def test_kernels_sum_special_values(value):
    x = cases.normal(SHAPE)
    x[0, 0, :2] = value
    assert not falls_back(forward, x, PoolSpec("sum", 3))
    assert not falls_back(forward, x, PoolSpec("average", global_window=True))


@pytest.mark.parametrize("dtype", cases.INTEGERS)
@pytest.mark.parametrize("mode", ["max", "min", "sum", "average"])
def test_integers_fall_back_except_averages_of_bytes(mode, dtype):
    x = cases.integers(SHAPE, dtype)
    has_kernel = mode == "average" and np.dtype(dtype).itemsize == 1
    assert falls_back(forward, x, PoolSpec(mode, 2)) is not has_kernel
    if mode in ("max", "min"):
        assert falls_back(forward, x, PoolSpec(mode, 2), return_indices=True)


@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_norms_fall_back(p):
    x, spec = cases.normal(SHAPE), PoolSpec("lp", 2, norm_p=p)
    assert falls_back(forward, x, spec)
    assert falls_back(backward, np.ones(output_shape(spec, x), x.dtype), spec, input=x)


@pytest.mark.parametrize("policy", ["all", "split"])
def test_gradients_shared_among_ties_fall_back(policy):
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2, tie_policy=policy)
    assert falls_back(backward, np.ones(output_shape(spec, x), x.dtype), spec, input=x)
    assert not falls_back(forward, x, spec)


@every_type
@pytest.mark.parametrize("values", palettes.VALUES)
@pytest.mark.parametrize("window", WINDOWS, ids=cases.name_of)
def test_kernels_compute_extremes_of_any_data(window, values, dtype):
    """No NaN and no zero makes the NumPy backend compute a part of a call."""
    x = given(window, palettes.VALUES[values](SHAPE, dtype, 5))
    for mode, policy in product(("max", "min"), ("propagate", "ignore")):
        spec = PoolSpec(mode, **window, nan_policy=policy)
        assert not falls_back(forward, x, spec)
        assert not falls_back(forward, x, spec, return_indices=True)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nans_that_are_an_error_fall_back(mode):
    """The NumPy backend raises the error; a NaN between the windows is none."""
    x, spec = cases.normal(SHAPE), PoolSpec(mode, 2, nan_policy="error")
    x[1, 2, 8, 4] = np.nan
    assert not falls_back(forward, x, spec)
    x[1, 2, 3, 4] = np.nan
    assert falls_back(forward, x, spec)
    assert falls_back(forward, x, spec, return_indices=True)


@pytest.mark.timeout(300)  # compiles kernels for indices of four bytes
def test_gradients_of_the_widest_windows_fall_back():
    x = cases.normal((1, 1, 256, 256))
    spec = PoolSpec("max", global_window=True)
    assert not falls_back(forward, x, spec, return_indices=True)
    indices = np.full((1, 1, 1, 1), 7, np.uint32)
    assert not falls_back(backward, x[..., :1, :1], spec, input_shape=x.shape, indices=indices)


def test_empty_batches_fall_back():
    assert falls_back(forward, np.empty((0, 3, 4), np.float32), PoolSpec("max", 2))


def test_palettes_cover_every_float_type():
    assert set(palettes.DTYPES) == {
        np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64")
    }
