"""Comparison of the engine with the oracle: one case, requested in every possible way."""

from __future__ import annotations

import numpy as np

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases, oracle

FORMATS = ("window", "plane", "tensor")
SELECTING = ({"mode": "max"}, {"mode": "min"})
ULPS = {"bfloat16": 1, "float16": 1, "float32": 4, "float64": 4}
SLACK = 1e-13  # largest error of float64 sums of numbers near 1, through cancellation


def as_sent(array):
    return array


def selects(options):
    return options["mode"] in ("max", "min")


def needs_input(options):
    return options["mode"] == "lp" or options.get("tie_policy", "first") != "first"


def indices_of(options, pooled, shape):
    """Return the oracle's indices in every format; `shape` is the input's, channels first."""
    return {
        "window": cases.window_indices(pooled.taps, cases.windows_of(options, shape[2:])),
        "plane": pooled.cells,
        "tensor": oracle.in_tensor(pooled.cells, shape),
    }


def without_nans(array):
    """Return NaNs as zeros: the bits of a NaN are undefined where no element is selected."""
    return np.where(np.isnan(array), np.zeros((), array.dtype), array)


def assert_close(actual, expected, magnitudes):
    """Compare with the oracle, within `ULPS` of the type and the rounding of float64 sums.

    Args:
        actual: result of the engine.
        expected: result of the oracle.
        magnitudes: function that returns, for each element, an upper bound of the rounding error
            of its sum. It is called only if the results differ by more than `ULPS`.
    """
    ulps = ULPS[actual.dtype.name]
    try:
        oracle.assert_close(actual, expected, ulps)
    except AssertionError:
        oracle.assert_close(actual, expected, ulps, np.minimum(magnitudes(), SLACK))


def _taps(options, shape):
    windows = cases.windows_of(options, shape[2:])
    return np.prod([float(oracle.kernel_of(window)) for window in windows])


def _output_error(options, x):
    """Return the rounding error of float64 sums: an ulp of the summed magnitudes per tap."""
    divisor = abs(options.get("divisor_override") or 1)
    if options["mode"] == "average":
        options = options | {"mode": "sum"}
    with np.errstate(all="ignore"):
        magnitudes = cases.expected_forward(options, np.abs(x)).output.astype(np.float64)
    error = 2.0**-52 * _taps(options, x.shape) * magnitudes / divisor
    return np.where(np.isfinite(error), error, 0)


def _gradient_error(options, dy, x, taps):
    """Return the rounding error of float64 gradients: two ulps of the magnitudes per tap."""
    if "divisor_override" in options:
        options = options | {"divisor_override": abs(options["divisor_override"])}
    magnitudes = cases.expected_backward(
        options, np.abs(dy), x.shape, x=x if selects(options) else np.abs(x), taps=taps
    )
    error = 2.0**-51 * _taps(options, x.shape) * magnitudes.astype(np.float64)
    return np.where(np.isfinite(error), error, 0)


def assert_forward(options, x, disguise=as_sent, formats=FORMATS, **how):
    """Compare the output, and the indices in all formats, with the oracle's.

    Args:
        options: arguments of `PoolSpec`.
        x: the input, channels first.
        disguise: function that changes the memory layout of what is sent.
        formats: index formats to compare.
        how: further arguments of `forward`.
    """
    spec = PoolSpec(**options)
    given = disguise(cases.to_layout(options, x))
    pooled = cases.expected_forward(options, x)
    result = forward(given, spec, **how)
    assert result.indices is None
    output = cases.from_layout(options, result.output)
    if not selects(options):
        if x.dtype.kind in "iu":
            assert output.dtype == pooled.output.dtype
            if float(options.get("divisor_override", 1)).is_integer():
                np.testing.assert_array_equal(output, pooled.output)
            else:  # rounded twice
                oracle.assert_close(output, pooled.output, ulps=1)
        else:
            assert output.dtype == x.dtype
            assert_close(output, pooled.output, lambda: _output_error(options, x))
        return
    if options.get("nan_policy") == "ignore":
        np.testing.assert_array_equal(np.isnan(output), np.isnan(pooled.output))
        output, pooled = without_nans(output), pooled._replace(output=without_nans(pooled.output))
    oracle.assert_same_bits(output, pooled.output)
    expected = indices_of(options, pooled, x.shape)
    for name in formats:
        again = forward(given, spec, return_indices=True, index_format=name, **how)
        oracle.assert_same_bits(cases.from_layout(options, again.indices), expected[name])
        oracle.assert_same_bits(again.output, result.output)


def residuals_of(options, x, disguise=as_sent):
    """Return all combinations of arguments that describe the forward pass to `backward`.

    Args:
        options: arguments of `PoolSpec`.
        x: the input, channels first.
        disguise: function that changes the memory layout of what is sent.
    """
    given = disguise(cases.to_layout(options, x))
    if needs_input(options):
        return ({"input": given}, {"input": given, "input_shape": given.shape})
    if not selects(options):
        return ({"input_shape": given.shape},)
    pooled = cases.expected_forward(options, x)
    residuals = [{"input": given}]
    for name, indices in indices_of(options, pooled, x.shape).items():
        sent = disguise(cases.to_layout(options, indices))
        residual = {"input_shape": given.shape, "indices": sent}
        residuals.append(residual | {"index_format": name})
        if name != "tensor":  # the format that the element type implies
            residuals.append(residual)
    return tuple(residuals)


def assert_backward(options, x, disguise=as_sent, dy=None):
    """Compare the gradient with the oracle's, for all combinations of arguments.

    Args:
        options: arguments of `PoolSpec`.
        x: the input, channels first.
        disguise: function that changes the memory layout of what is sent.
        dy: gradient of the output; by default normally distributed.
    """
    spec = PoolSpec(**options)
    pooled = cases.expected_forward(options, x)
    if dy is None:
        dy = cases.normal(pooled.output.shape, x.dtype, seed=1)
    expected = cases.expected_backward(options, dy, x.shape, x=x, taps=pooled.taps)
    sent = disguise(cases.to_layout(options, dy))
    gradients = [
        backward(sent, spec, **residual) for residual in residuals_of(options, x, disguise)
    ]
    for gradient in gradients:
        assert gradient.dtype == x.dtype
        oracle.assert_same_bits(gradient, gradients[0])
    assert_close(
        cases.from_layout(options, gradients[0]),
        expected,
        lambda: _gradient_error(options, dy, x, pooled.taps),
    )


def assert_same_for_all_blocks(options, x, run_with):
    """Compare the bits of all results for blocks of several sizes and numbers of threads."""

    def results():
        output, indices = forward(given, spec, return_indices=selects(options))
        if x.dtype.kind in "iu":
            return output, indices
        dy = cases.normal(output.shape, x.dtype, seed=1)
        return output, indices, *(backward(dy, spec, **residual) for residual in residuals)

    spec, given = PoolSpec(**options), cases.to_layout(options, x)
    residuals = () if x.dtype.kind in "iu" else residuals_of(options, x)
    with run_with(threads=1):
        expected = results()
    for block_bytes, threads in ((8, 1), (8, 4), (100, 2), (1 << 20, 3)):
        with run_with(block_bytes, threads):
            for one, other in zip(expected, results(), strict=True):
                if one is not None:
                    oracle.assert_same_bits(other, one)
