"""Whether the engine agrees with the oracle: a case asked for in every way there is."""

from __future__ import annotations

import numpy as np

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases, oracle

FORMATS = ("window", "plane", "tensor")
SELECTING = ({"mode": "max"}, {"mode": "min"})
ULPS = {"bfloat16": 1, "float16": 1, "float32": 4, "float64": 4}
SLACK = 1e-13  # what the float64 sum of some numbers near 1 may lose to cancellation


def as_sent(array):
    return array


def selects(options):
    return options["mode"] in ("max", "min")


def indices_of(options, pooled, shape):
    """The oracle's indices in every format; `shape` is the input's, channels first."""
    return {
        "window": cases.window_indices(pooled.taps, cases.windows_of(options, shape[2:])),
        "plane": pooled.cells,
        "tensor": oracle.in_tensor(pooled.cells, shape),
    }


def without_nans(array):
    """NaNs as zeros: where no element is selected, which NaN is given is left open."""
    return np.where(np.isnan(array), np.zeros((), array.dtype), array)


def assert_forward(options, x, disguise=as_sent, **how):
    """Compares the output and the indices in every format with the oracle's.

    `x` is channels first; a disguise is put on what is sent in the layout of the options.
    """
    spec = PoolSpec(**options)
    given = disguise(cases.to_layout(options, x))
    pooled = cases.expected_forward(options, x)
    result = forward(given, spec, **how)
    output = cases.from_layout(options, result.output)
    if not selects(options):
        assert result.indices is None
        if x.dtype.kind in "iu":
            assert output.dtype == pooled.output.dtype
            if float(options.get("divisor_override", 1)).is_integer():
                np.testing.assert_array_equal(output, pooled.output)
            else:  # twice rounded
                oracle.assert_close(output, pooled.output, ulps=1)
        else:
            assert output.dtype == x.dtype
            oracle.assert_close(output, pooled.output, ULPS[x.dtype.name], SLACK)
        return
    if options.get("nan_policy") == "ignore":
        np.testing.assert_array_equal(np.isnan(output), np.isnan(pooled.output))
        output, pooled = without_nans(output), pooled._replace(output=without_nans(pooled.output))
    oracle.assert_same_bits(output, pooled.output)
    for name, indices in indices_of(options, pooled, x.shape).items():
        again = forward(given, spec, return_indices=True, index_format=name)
        oracle.assert_same_bits(cases.from_layout(options, again.indices), indices)
        oracle.assert_same_bits(again.output, result.output)


def residuals_of(options, x, disguise=as_sent):
    """Each way in which a caller may say what the forward pass did; `x` is channels first."""
    given = disguise(cases.to_layout(options, x))
    if options["mode"] == "lp" or options.get("tie_policy", "first") != "first":
        return ({"input": given}, {"input": given, "input_shape": given.shape})
    if not selects(options):
        return ({"input_shape": given.shape},)
    pooled = cases.expected_forward(options, x)
    return (
        {"input": given},
        *(
            {
                "input_shape": given.shape,
                "indices": disguise(cases.to_layout(options, indices)),
                "index_format": name,
            }
            for name, indices in indices_of(options, pooled, x.shape).items()
        ),
    )


def assert_backward(options, x, disguise=as_sent, dy=None):
    """Compares the gradient with the oracle's, whatever it is computed from."""
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
    given = cases.from_layout(options, gradients[0])
    oracle.assert_close(given, expected, ULPS[x.dtype.name], SLACK)


def assert_same_for_all_blocks(options, x, run_with):
    """Blocks of any size, threads of any number: not a bit of output, indices or gradient."""

    def both_ways():
        output, indices = forward(given, spec, return_indices=selects(options))
        if x.dtype.kind in "iu":
            return output, indices
        dy = cases.normal(output.shape, x.dtype, seed=1)
        return output, indices, *(backward(dy, spec, **residual) for residual in residuals)

    spec, given = PoolSpec(**options), cases.to_layout(options, x)
    residuals = () if x.dtype.kind in "iu" else residuals_of(options, x)
    with run_with(threads=1):
        expected = both_ways()
    for block_bytes, threads in ((8, 1), (8, 4), (100, 2), (1 << 20, 3)):
        with run_with(block_bytes, threads):
            for one, other in zip(expected, both_ways(), strict=True):
                if one is not None:
                    oracle.assert_same_bits(other, one)
