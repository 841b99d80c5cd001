"""Accuracy of sums, norms and their gradients (contract, section 3, "Accumulation")."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases, oracle

DATA = {
    "positive": lambda shape: np.random.default_rng(0).random(shape),
    "mixed": lambda shape: np.random.default_rng(1).standard_normal(shape),
    "tenths": lambda shape: np.full(shape, 0.1),
    "large beside small": lambda shape: np.where(
        np.arange(math.prod(shape)) % 7, 1e-3, 1e4
    ).reshape(shape),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("kernel", [2, 7, 31, 64])
@pytest.mark.parametrize("mode", ["average", "sum"])
def test_float32_is_within_4_ulp_of_the_exact_sum(mode, kernel, data):
    x = DATA[data]((1, 1, kernel + 9, kernel + 9)).astype(np.float32)
    options = {"mode": mode, "kernel": kernel, "stride": 5, "padding": 1}
    output = forward(x, PoolSpec(**options)).output
    oracle.assert_close(output, cases.expected_forward(options, x).output, ulps=4)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("mode", ["average", "sum"])
def test_float16_sums_are_correctly_rounded(mode, data):
    x = DATA[data]((1, 1, 40, 40)).astype(np.float16)
    options = {"mode": mode, "kernel": 33, "stride": 7}
    output = forward(x, PoolSpec(**options)).output
    oracle.assert_close(output, cases.expected_forward(options, x).output, ulps=0)


def test_the_float16_average_of_many_large_values_does_not_overflow():
    x = np.full((1, 1, 64, 64), 300, np.float16)
    assert forward(x, PoolSpec("average", 64)).output.item() == 300


def coverage(size, kernel):
    """Return the number of windows of stride 1 that cover each element of an axis."""
    outputs = size - kernel + 1
    return [min(at, outputs - 1) - max(0, at - kernel + 1) + 1 for at in range(size)]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("size", "kernel"), [(64, 33), (128, 65)])
@pytest.mark.parametrize("mode", ["average", "sum"])
def test_gradients_of_overlapping_windows_are_rounded_once(mode, size, kernel, dtype):
    outputs = (1, 1, size - kernel + 1, size - kernel + 1)
    spec = PoolSpec(mode, kernel, 1)
    dx = backward(np.ones(outputs, dtype), spec, input_shape=(1, 1, size, size))
    counts = np.outer(*[coverage(size, kernel)] * 2).astype(np.float64)
    expected = counts / (kernel**2 if mode == "average" else 1)
    oracle.assert_same_bits(dx[0, 0], expected.astype(dtype))


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_a_peak_receives_the_gradient_of_all_windows(dtype, mode):
    x = np.zeros((1, 1, 65, 65), dtype)
    x[0, 0, 32, 32] = 1 if mode == "max" else -1
    dx = backward(np.ones((1, 1, 33, 33), dtype), PoolSpec(mode, 33, 1), input=x)
    expected = np.abs(x) * 1089
    oracle.assert_same_bits(dx, expected.astype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("mode", [{"mode": "sum"}, {"mode": "average"}, {"mode": "max"}])
def test_gradients_of_long_overlaps_are_correctly_rounded(mode, dtype):
    options = mode | {"kernel": 64, "stride": 1}
    x = cases.normal((1, 1, 160), dtype)
    pooled = cases.expected_forward(options, x)
    dy = cases.normal(pooled.output.shape, dtype, 1)
    expected = cases.expected_backward(options, dy, x.shape, taps=pooled.taps)
    residual = {"input": x} if mode["mode"] == "max" else {"input_shape": x.shape}
    dx = backward(dy, PoolSpec(**options), **residual)
    oracle.assert_close(dx, expected, ulps=0 if dtype == "float16" else 4)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 100, 1e6, math.inf])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        ("float16", 1e4),
        ("float16", 1e-6),
        ("float32", 1e30),
        ("float32", 1e-30),
        ("float32", 1e-44),
        ("float64", 1e300),
        ("float64", 1e-300),
    ],
)
def test_norms_and_their_gradients_neither_overflow_nor_underflow(dtype, scale, p):
    options = {"mode": "lp", "norm_p": p, "kernel": 2, "stride": 1}
    x = (np.random.default_rng(2).uniform(-1, 1, (1, 2, 4, 4)) * scale).astype(dtype)
    spec = PoolSpec(**options)
    ulps = {"float16": 1, "float32": 4, "float64": 16}[dtype]
    output = forward(x, spec).output
    assert (output > 0).all()
    oracle.assert_close(output, cases.expected_forward(options, x).output, ulps)
    dy = cases.normal(output.shape, dtype)
    dx = backward(dy, spec, input=x)
    expected = cases.expected_backward(options, dy, x.shape, x=x)
    slack = 1e-15 * (min(p, 1e6) + 8) if dtype == "float64" else 1e-9
    oracle.assert_close(dx, expected, ulps, slack)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_norms_of_large_windows(dtype):
    options = {"mode": "lp", "norm_p": 1.5, "kernel": (1, 40, 40), "stride": 3}
    x = cases.normal((1, 1, 2, 42, 44), dtype)
    output = forward(x, PoolSpec(**options)).output
    ulps = {"float16": 1, "float32": 4, "float64": 64}[dtype]
    oracle.assert_close(output, cases.expected_forward(options, x).output, ulps)


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_float16_results_are_rounded_once(mode):
    """The sum exceeds a float16 tie by less than a float32 ulp; rounding twice would round down."""
    dy = np.array([[[2.0**-24, 2.0**-11, 1.0]]]).astype(np.float16)
    options = {"divisor_override": 1} if mode == "average" else {}
    dx = backward(dy, PoolSpec(mode, 3, 1, 2, **options), input_shape=(1, 1, 1))
    assert math.fsum([2.0**-24, 2.0**-11, 1.0]) > 1 + 2.0**-11
    assert dx.item() == 1 + 2.0**-10
    output = forward(dy, PoolSpec(mode, 3, **options)).output
    assert output.item() == 1 + 2.0**-10
