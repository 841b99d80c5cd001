"""The adjoint identity ``<J v, u> = <v, J^T u>``: every mode, 1 to 6 spatial axes, every type.

The backward pass is `J^T`. `J v` is computed from forward passes alone: sums and averages are
linear, a selection is a gather at its indices, and the derivatives of a norm are sums.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases

DTYPES = ("float16", ml_dtypes.bfloat16, "float32", "float64")
SELECTING = ({"mode": "max"}, {"mode": "min"})
LINEAR = (
    {"mode": "sum"},
    {"mode": "average"},
    {"mode": "average", "count_include_pad": False},
    {"mode": "average", "divisor_override": -3},
    {"mode": "average", "divisor_override": 0.37},
)
NORMS = tuple({"mode": "lp", "norm_p": p} for p in (1, 1.5, 2, 3, math.inf))

every_type = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
every_rank = pytest.mark.parametrize("axes", range(1, 7))
few_examples = settings(cases.many_examples, max_examples=cases.many_examples.max_examples // 30)


def drawn(data, axes, mode):
    """Draw a spec, the shape of its input, and a random generator."""
    options, sizes, seed = data.draw(cases.ranked_windows(axes))
    options = mode | options
    shape = cases.to_layout(options, np.empty((2, 2, *sizes))).shape
    return options, shape, np.random.default_rng(seed)


def inner(a, b):
    """Return the inner product, rounded once."""
    return math.fsum((a.astype(np.float64) * b.astype(np.float64)).ravel())


def gather(options, v, indices):
    """Return the elements of `v` at tensor indices; 0 for "none"."""
    v, indices = (cases.from_layout(options, array) for array in (v, indices))
    chosen = np.where(indices < 0, np.zeros((), v.dtype), v.reshape(-1)[np.maximum(indices, 0)])
    return cases.to_layout(options, chosen)


@every_type
@every_rank
@pytest.mark.parametrize("mode", SELECTING, ids=cases.name_of)
@few_examples
@given(data=st.data())
def test_selecting_modes_are_adjoint(data, mode, axes, dtype):
    """All values are small whole numbers, with ties, so the identity holds exactly."""
    options, shape, rng = drawn(data, axes, mode)
    spec, x = PoolSpec(**options), rng.integers(-2, 3, shape).astype(dtype)
    indices = forward(x, spec, return_indices=True, index_format="tensor").indices
    v, u = (rng.integers(-2, 3, size).astype(dtype) for size in (shape, indices.shape))
    jv = inner(gather(options, v, indices), u)
    by_indices = {"input_shape": shape, "indices": indices, "index_format": "tensor"}
    for residual in ({"input": x}, by_indices):
        assert inner(v, backward(u, spec, **residual)) == jv


@every_type
@every_rank
@few_examples
@given(data=st.data())
def test_sums_of_whole_numbers_are_adjoint(data, axes, dtype):
    options, shape, rng = drawn(data, axes, {"mode": "sum"})
    spec, v = PoolSpec(**options), rng.integers(-1, 2, shape).astype(dtype)
    jv = forward(v, spec).output
    u = rng.integers(-1, 2, jv.shape).astype(dtype)
    assert inner(jv, u) == inner(v, backward(u, spec, input_shape=shape))


def assert_adjoint(jv, u, v, jtu, magnitude, dtype):
    """Compare both sides, within a rounding of each element and of float64 sums."""
    ulps = {"float32": 8, "float64": 32}.get(np.dtype(dtype).name, 2)
    allowed = ulps * float(np.spacing(np.dtype(dtype).type(1))) * magnitude
    assert abs(inner(jv, u) - inner(v, jtu)) <= allowed


@every_type
@every_rank
@pytest.mark.parametrize("mode", LINEAR, ids=cases.name_of)
@few_examples
@given(data=st.data())
def test_sums_and_averages_are_adjoint(data, mode, axes, dtype):
    options, shape, rng = drawn(data, axes, mode)
    spec, v = PoolSpec(**options), rng.standard_normal(shape).astype(dtype)
    jv = forward(v, spec).output
    u = rng.standard_normal(jv.shape).astype(dtype)
    jtu = backward(u, spec, input_shape=shape)
    wide = [np.abs(array.astype(np.float64)) for array in (u, v)]
    magnitude = inner(wide[1], np.abs(backward(wide[0], spec, input_shape=shape)))
    assert_adjoint(jv, u, v, jtu, magnitude, dtype)


def slopes_of_norm(options, x, v):
    """Return ``J v`` of a norm at `x`: ``sum(sign(x) * abs(x)^(p-1) * v) / y^(p-1)``."""
    p = options["norm_p"]
    windows = {name: value for name, value in options.items() if name not in ("mode", "norm_p")}
    if math.isinf(p):
        how = {"return_indices": True, "index_format": "tensor"}
        largest = forward(np.abs(x), PoolSpec("max", **windows), **how).indices
        return gather(options, np.sign(x) * v, largest)
    y = forward(x, PoolSpec(**options)).output
    total = forward(np.sign(x) * np.abs(x) ** (p - 1) * v, PoolSpec("sum", **windows)).output
    return np.divide(total, y ** (p - 1), out=np.zeros_like(y), where=y > 0)


@every_type
@every_rank
@pytest.mark.parametrize("mode", NORMS, ids=cases.name_of)
@few_examples
@given(data=st.data())
def test_norms_are_adjoint(data, mode, axes, dtype):
    options, shape, rng = drawn(data, axes, mode)
    magnitudes, signs = rng.uniform(0.5, 2, shape), rng.choice([-1, 1], shape)
    x, v = (array.astype(dtype) for array in (magnitudes * signs, rng.standard_normal(shape)))
    wide = [array.astype(np.float64) for array in (x, v)]
    jv = slopes_of_norm(options, *wide)
    u = rng.standard_normal(jv.shape).astype(dtype)
    jtu = backward(u, PoolSpec(**options), input=x)
    magnitude = inner(slopes_of_norm(options, *map(np.abs, wide)), np.abs(u.astype(np.float64)))
    assert_adjoint(jv, u, v, jtu, magnitude, dtype)
