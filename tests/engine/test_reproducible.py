"""Reproducibility: bit-identical results for any number of threads, blocks and planes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases, oracle

WINDOWS = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (13, 6)),
    ({"kernel": (4, 3), "stride": (1, 2), "padding": ((3, 1), (0, 1))}, (11, 9)),
    (
        {"kernel": 3, "stride": (2, 3), "dilation": (3, 1), "padding": (4, 1), "ceil_mode": True},
        (14, 7),
    ),
    ({"kernel": 2, "stride": 5, "ceil_mode": True}, (16,)),
    ({"kernel": 3, "stride": 1, "padding": "same_lower", "dilation": (2, 1, 1)}, (7, 3, 4)),
    ({"kernel": 5, "stride": 1, "padding": 4}, (9, 3)),
)
CASES = cases.all_cases(windows=WINDOWS)
DTYPES = ("float16", ml_dtypes.bfloat16, "float32", "float64")
SHARING = tuple(
    {"mode": mode, "tie_policy": ties, "nan_policy": nans}
    for mode in ("max", "min")
    for ties, nans in (("all", "propagate"), ("split", "propagate"), ("split", "ignore"))
)
SPLIT_CASES = cases.all_cases(cases.MODES + SHARING, WINDOWS + cases.SIZED_WINDOWS[5:9])
every_type = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)


def both_ways(options, x, dy_seed=1):
    """Return the output, the indices or None, and the gradient."""
    spec = PoolSpec(**options)
    selects = options["mode"] in ("max", "min")
    output, indices = forward(x, spec, return_indices=selects)
    dy = cases.normal(output.shape, x.dtype, dy_seed)
    return output, indices, dy, backward(dy, spec, **residual_of(options, x, indices))


def residual_of(options, x, indices):
    if options["mode"] == "lp" or options.get("tie_policy", "first") != "first":
        return {"input": x}
    return {"input_shape": x.shape} | ({} if indices is None else {"indices": indices})


def assert_all_same_bits(some, others):
    for one, other in zip(some, others, strict=True):
        if one is not None:
            oracle.assert_same_bits(other, one)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("options", "sizes"), CASES, ids=cases.name_of)
def test_results_do_not_depend_on_threads_or_blocks(options, sizes, dtype, run_with):
    x = cases.normal((2, 3, *sizes), dtype)
    with run_with(threads=1):
        expected = both_ways(options, x)
    for block_bytes, threads in ((8, 1), (8, 4), (100, 2), (300, 3), (1 << 20, 5)):
        with run_with(block_bytes, threads):
            assert_all_same_bits(expected, both_ways(options, x))
            assert_all_same_bits(expected, both_ways(options, x))


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
@pytest.mark.parametrize("has_nan", [False, True], ids=["zeros", "NaNs"])
def test_special_values_do_not_depend_on_threads_or_blocks(mode, has_nan, run_with):
    for window, sizes in WINDOWS:
        x = cases.hard((2, 2, *sizes), has_nan=has_nan)
        with run_with(threads=1):
            expected = both_ways(mode | window, x)
        with run_with(8, 3):
            assert_all_same_bits(expected, both_ways(mode | window, x))


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_the_sign_of_a_zero_sum_does_not_depend_on_bands(mode, run_with):
    spec = PoolSpec(mode, 3, 1, 1)
    x = np.full((1, 1, 6), -0.0, np.float32)
    expected = forward(x, spec).output
    with run_with(block_bytes=8):
        oracle.assert_same_bits(forward(x, spec).output, expected)


@every_type
@pytest.mark.parametrize(("options", "sizes"), SPLIT_CASES, ids=cases.name_of)
def test_results_do_not_depend_on_the_rest_of_the_batch(options, sizes, dtype):
    x = cases.normal((3, 2, *sizes), dtype)
    output, indices, dy, dx = both_ways(options, x)
    loud = np.concatenate([x[1:2], cases.hard((2, 2, *sizes), dtype)])
    spec = PoolSpec(**options)
    selects = indices is not None
    again, marks = forward(loud, spec, return_indices=selects)
    oracle.assert_same_bits(again[:1], output[1:2])
    noise = np.concatenate([dy[1:2], cases.hard((2, *dy.shape[1:]), dtype)])
    gradient = backward(noise, spec, **residual_of(options, loud, marks))
    oracle.assert_same_bits(gradient[:1], dx[1:2])


@every_type
@pytest.mark.parametrize(("options", "sizes"), SPLIT_CASES, ids=cases.name_of)
def test_single_planes_give_the_same_bits(options, sizes, dtype):
    x = cases.normal((2, 3, *sizes), dtype)
    output, indices, dy, dx = both_ways(options, x)
    spec = PoolSpec(**options)
    for n, c in np.ndindex(2, 3):
        part = np.s_[n : n + 1, c : c + 1]
        oracle.assert_same_bits(forward(x[part], spec).output, output[part])
        marks = None if indices is None else indices[part]
        gradient = backward(dy[part], spec, **residual_of(options, x[part], marks))
        oracle.assert_same_bits(gradient, dx[part])


@pytest.mark.parametrize(("options", "sizes"), CASES, ids=cases.name_of)
def test_layouts_give_the_same_bits(options, sizes):
    x = cases.normal((2, 3, *sizes))
    output, _, dy, dx = both_ways(options, x)
    options = options | {"layout": "channels_last"}
    spec = PoolSpec(**options)
    last = np.moveaxis(x, 1, -1)
    selects = options["mode"] in ("max", "min")
    theirs, indices = forward(last, spec, return_indices=selects)
    oracle.assert_same_bits(np.moveaxis(theirs, -1, 1), output)
    gradient = backward(np.moveaxis(dy, 1, -1), spec, **residual_of(options, last, indices))
    oracle.assert_same_bits(np.moveaxis(gradient, -1, 1), dx)
