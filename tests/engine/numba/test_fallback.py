"""Which calls kernels compute, and which are left to the NumPy backend."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from tests.support import cases, palettes

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


class LeftToNumPyError(Exception):
    """Instead of an answer of the NumPy backend."""


@pytest.fixture(autouse=True)
def _no_numpy(monkeypatch):
    def refuse(*_):
        raise LeftToNumPyError

    monkeypatch.setattr(NumpyBackend, "forward", refuse)
    monkeypatch.setattr(NumpyBackend, "backward", refuse)


def is_left(call, *arguments, **options):
    try:
        call(*arguments, backend="numba", **options)
    except LeftToNumPyError:
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
    assert not is_left(forward, x, spec)
    assert not is_left(forward, x, spec, return_indices=True)
    assert not is_left(forward, x, spec, return_indices=True, index_format="plane")
    dy = cases.normal(output_shape(spec, x), dtype)
    indices = forward(x, spec, return_indices=True, backend="numba").indices
    assert not is_left(backward, dy, spec, input_shape=x.shape, indices=indices)
    assert not is_left(backward, dy, spec, input=x)


@every_type
@pytest.mark.parametrize("window", WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("mode", SUMS, ids=cases.name_of)
def test_kernels_compute_sums(mode, window, dtype):
    spec, x = PoolSpec(**mode, **window), given(window, cases.normal(SHAPE, dtype))
    assert not is_left(forward, x, spec)
    dy = cases.normal(output_shape(spec, x), dtype)
    assert not is_left(backward, dy, spec, input_shape=x.shape)


@pytest.mark.parametrize("axes", range(1, 7))
def test_kernels_compute_every_rank(axes):
    x = cases.normal((2, 2, *(3,) * axes))
    for mode in EXTREMES + SUMS:
        assert not is_left(forward, x, PoolSpec(**mode, kernel=2, stride=1))


@pytest.mark.parametrize("policy", ["ignore", "error"])
def test_kernels_compute_under_every_policy_where_there_is_no_nan(policy):
    spec = PoolSpec("max", 3, nan_policy=policy)
    assert not is_left(forward, cases.normal(SHAPE), spec)
    assert not is_left(forward, cases.normal(SHAPE), spec, return_indices=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0])
def test_kernels_compute_with_any_gradient(value):
    x, spec = cases.normal(SHAPE), PoolSpec("max", 3)
    dy = np.full(output_shape(spec, x), value, np.float32)
    assert not is_left(backward, dy, spec, input=x)
    assert not is_left(backward, dy, PoolSpec("sum", 3), input_shape=SHAPE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0])
def test_kernels_sum_anything(value):
    x = cases.normal(SHAPE)
    x[0, 0, :2] = value
    assert not is_left(forward, x, PoolSpec("sum", 3))
    assert not is_left(forward, x, PoolSpec("average", global_window=True))


@pytest.mark.parametrize("dtype", cases.INTEGERS)
@pytest.mark.parametrize("mode", ["max", "min", "sum", "average"])
def test_integers_are_left(mode, dtype):
    x = cases.integers(SHAPE, dtype)
    assert is_left(forward, x, PoolSpec(mode, 2))
    if mode in ("max", "min"):
        assert is_left(forward, x, PoolSpec(mode, 2), return_indices=True)


@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_norms_are_left(p):
    x, spec = cases.normal(SHAPE), PoolSpec("lp", 2, norm_p=p)
    assert is_left(forward, x, spec)
    assert is_left(backward, np.ones(output_shape(spec, x), x.dtype), spec, input=x)


@pytest.mark.parametrize("policy", ["all", "split"])
def test_shared_gradients_are_left(policy):
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2, tie_policy=policy)
    assert is_left(backward, np.ones(output_shape(spec, x), x.dtype), spec, input=x)
    assert not is_left(forward, x, spec)


@every_type
@pytest.mark.parametrize("mode", ["max", "min"])
def test_extremes_beside_a_nan_are_left(mode, dtype):
    x, spec = cases.normal(SHAPE, dtype), PoolSpec(mode, 2)
    x[1, 2, 3, 4] = np.nan
    assert is_left(forward, x, spec)
    assert is_left(forward, x, spec, return_indices=True)


@every_type
@pytest.mark.parametrize(("mode", "sign"), [("max", -1), ("min", 1)])
def test_extremes_that_are_zeros_of_both_signs_are_left(mode, sign, dtype):
    """But for calls with indices: there the number of the tap decides."""
    spec = PoolSpec(mode, 3)
    x = (sign * np.abs(cases.normal(SHAPE)) + sign).astype(dtype)
    x[0, 0, 0, :2] = 0.0, -0.0
    assert is_left(forward, x, spec)
    assert not is_left(forward, x, spec, return_indices=True)
    x[0, 0, 0, 1] = 0.0
    assert not is_left(forward, x, spec)


def test_zeros_of_both_signs_that_are_no_extremes_are_not_left():
    x = np.abs(cases.normal(SHAPE)) + 1
    x[:, :, 0, 0], x[:, :, 1, 1] = 0.0, -0.0
    assert not is_left(forward, x, PoolSpec("max", 3))
    assert is_left(forward, x, PoolSpec("min", 3))


def test_indices_in_the_widest_windows_are_left():
    x = cases.normal((1, 1, 256, 256))
    spec = PoolSpec("max", global_window=True)
    assert is_left(forward, x, spec, return_indices=True)
    assert not is_left(forward, x, spec)
    assert not is_left(forward, x[..., 1:], spec, return_indices=True)
    indices = np.full((1, 1, 1, 1), 7, np.uint32)
    assert is_left(backward, x[..., :1, :1], spec, input_shape=x.shape, indices=indices)


def test_nothing_is_left_of_a_batch_of_none():
    assert is_left(forward, np.empty((0, 3, 4), np.float32), PoolSpec("max", 2))


def test_types_are_those_of_the_contract():
    assert set(palettes.DTYPES) == {
        np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64")
    }
