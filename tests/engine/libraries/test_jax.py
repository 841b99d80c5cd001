"""The engine against JAX's `reduce_window`, which supports any number of axes and any type."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from pooling_engine import PoolSpec, forward
from tests.support import cases, oracle

jax.config.update("jax_enable_x64", True)

REDUCERS = {"max": lax.max, "min": lax.min, "sum": lax.add}
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")
NAMED = {"same_upper": "SAME", "same_lower": "SAME_LOWER"}
MOST_CELLS = 3000  # a limit on six axes of five elements each

# JAX compiles each window, so there are few examples.
some_examples = settings(cases.many_examples, max_examples=cases.many_examples.max_examples // 6)
few_examples = settings(some_examples, max_examples=some_examples.max_examples // 2)

# An axis without pooling between two pooled axes.
GAP = (
    {"kernel": (2, 1, 3), "stride": (1, 1, 1), "dilation": 1, "padding": ((0, 0),) * 3},
    (1, 1, 3, 1, 5),
    1,
)


@st.composite
def layers(draw, most_axes=6):
    """Draw the options of a window, a shape that it fits, and a seed."""
    axes, cells = [], 1
    for _ in range(draw(st.integers(1, most_axes))):
        axis = draw(cases.axis_windows())
        if cells * axis[0] * axis[1] <= MOST_CELLS:
            axes.append(axis)
            cells *= axis[0] * axis[1]
    sizes, kernels, strides, dilations, pads = zip(*axes, strict=True)
    options = {"kernel": kernels, "stride": strides, "dilation": dilations, "padding": pads}
    options["padding"] = draw(st.sampled_from((pads, pads, "same_upper", "same_lower")))
    planes = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    return options, (*planes, *sizes), draw(st.integers(0, 999))


def first_value(mode, dtype):
    """Return the initial value of a window, which no element loses to."""
    if mode == "sum":
        return dtype.type(0)
    if dtype.kind in "iu":
        return dtype.type(np.iinfo(dtype).min if mode == "max" else np.iinfo(dtype).max)
    return dtype.type(-np.inf if mode == "max" else np.inf)


def reduce_window(mode, options, x):
    """Pool with JAX. JAX resolves named padding."""
    axes = x.ndim - 2
    padding = options["padding"]
    reduced = lax.reduce_window(
        x,
        first_value(mode, x.dtype),
        REDUCERS[mode],
        (1, 1, *options["kernel"]),
        (1, 1, *options["stride"]),
        ((0, 0), (0, 0), *padding) if isinstance(padding, tuple) else NAMED[padding],
        window_dilation=(1, 1, *cases.per_axis(options["dilation"], axes)),
    )
    return np.asarray(reduced)


def assert_same_values(actual, expected):
    """Compare values, with NaN in the same places; JAX selects the positive one of two zeros."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    is_same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    assert is_same.all(), (actual, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", ["max", "min"])
@some_examples
@given(layer=layers())
@example(layer=GAP)
def test_selected_elements_agree(layer, mode, dtype):
    options, shape, seed = layer
    x = cases.hard(shape, dtype, seed, has_nan=seed % 2 == 0)
    ours = forward(x, PoolSpec(mode, **options)).output
    assert_same_values(ours, reduce_window(mode, options, x))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("mode", ["max", "min"])
@few_examples
@given(layer=layers(most_axes=4))
def test_selected_integers_agree(layer, mode, dtype):
    options, shape, seed = layer
    x = all_integers(shape, dtype, seed)
    ours = forward(x, PoolSpec(mode, **options)).output
    assert_same_values(ours, reduce_window(mode, options, x))


@pytest.mark.parametrize("dtype", INTEGERS)
@few_examples
@given(layer=layers(most_axes=4))
def test_sums_of_integers_agree(layer, dtype):
    options, shape, seed = layer
    x = all_integers(shape, dtype, seed)
    x >>= 10 if dtype == "int64" else 0  # no sum overflows
    ours = forward(x, PoolSpec("sum", **options)).output
    assert_same_values(ours, reduce_window("sum", options, x.astype(np.int64)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@some_examples
@given(layer=layers())
def test_sums_agree_within_rounding(layer, dtype):
    options, shape, seed = layer
    x = cases.normal(shape, dtype, seed)
    ours = forward(x, PoolSpec("sum", **options)).output
    theirs = reduce_window("sum", options, x)
    magnitudes = reduce_window("sum", options, np.abs(x)).astype(np.float64)
    slack = np.prod(options["kernel"]) * np.finfo(dtype).eps * magnitudes
    oracle.assert_close(ours, theirs.astype(np.float64), ulps=0, slack=slack)


@pytest.mark.parametrize("dtype", FLOATS)
@some_examples
@given(layer=layers())
def test_sums_of_whole_numbers_agree(layer, dtype):
    options, shape, seed = layer
    x = np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)
    ours = forward(x, PoolSpec("sum", **options)).output
    theirs = reduce_window("sum", options, x.astype(np.float64)).astype(dtype)
    assert_same_values(ours, theirs)


def all_integers(shape, dtype, seed):
    """Return integers from the whole range of a type, including its limits."""
    limits = np.iinfo(dtype)
    x = np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    x.flat[0], x.flat[-1] = limits.min, limits.max
    return x
