"""Calls divided into row bands along the first spatial axis: bit-identical to a single call.

A forward band has the input rows that its windows reach. A backward band has the rows of the
output gradient that reach its rows. Padding that remains lies outside of those rows. The contract
divides a plane that is too large for one message in this way. All tensors here are channels
first; the engine receives them in the layout of the options.
"""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases, oracle

SELECTING = ({"mode": "max"}, {"mode": "min"})
POLICIES = tuple(
    mode | policies
    for mode in SELECTING
    for policies in (
        {"tie_policy": "all"},
        {"tie_policy": "split"},
        {"nan_policy": "ignore"},
        {"tie_policy": "all", "nan_policy": "ignore"},
        {"tie_policy": "split", "nan_policy": "ignore"},
    )
)
REJECTING = tuple(mode | {"nan_policy": "error"} for mode in SELECTING)
INTEGER_MODES = tuple(mode for mode in cases.MODES if mode["mode"] != "lp")
DTYPES = ("float16", ml_dtypes.bfloat16, "float32", "float64")
LAYOUTS = ("channels_first", "channels_last")
WINDOWS = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (13, 6)),
    ({"kernel": (4, 3), "stride": (1, 2), "padding": ((3, 1), (0, 1))}, (11, 9)),
    (
        {"kernel": 3, "stride": (2, 3), "dilation": (3, 1), "padding": (4, 1), "ceil_mode": True},
        (14, 7),
    ),
    ({"kernel": 2, "stride": 5, "ceil_mode": True}, (16,)),
    ({"kernel": 2, "stride": 3, "dilation": 2, "padding": [(2, 1)]}, (11,)),
    ({"kernel": 3, "stride": 1, "padding": "same_lower", "dilation": (2, 1, 1)}, (7, 3, 4)),
    ({"kernel": 5, "stride": 1, "padding": 4}, (9, 3)),
    ({"kernel": 2, "stride": 1, "padding": (1, 0, 0, 1)}, (5, 2, 3, 1)),
)


class Pooled(NamedTuple):
    output: np.ndarray
    indices: np.ndarray | None


def pool(options, x):
    """Return the output and the window indices, or None."""
    spec, selects = PoolSpec(**options), options["mode"] in ("max", "min")
    result = forward(cases.to_layout(options, x), spec, return_indices=selects)
    indices = cases.from_layout(options, result.indices) if selects else None
    return Pooled(cases.from_layout(options, result.output), indices)


def gradient(options, dy, x, indices):
    """Return the gradient of the input, from the indices if the mode accepts them."""
    shape = cases.to_layout(options, x).shape
    if options["mode"] in ("average", "sum"):
        residual = {"input_shape": shape}
    elif options["mode"] == "lp" or options.get("tie_policy", "first") != "first":
        residual = {"input": cases.to_layout(options, x)}
    else:
        residual = {"input_shape": shape, "indices": cases.to_layout(options, indices)}
    dx = backward(cases.to_layout(options, dy), PoolSpec(**options), **residual)
    return cases.from_layout(options, dx)


def band_of(options, sizes, start, stop):
    """Return the rows and the options of a call for outputs [start, stop) of the first axis."""
    windows = cases.windows_of(options, sizes)
    kernel, stride, dilation, before, after = windows[0]
    first = start * stride - before
    last = (stop - 1) * stride - before + (kernel - 1) * dilation + 1
    rows = max(0, first), min(sizes[0], last)
    pads = max(0, -first), max(0, min(last, sizes[0] + after) - rows[1])
    names = ("kernel", "stride", "dilation")
    band = {name: tuple(window[at] for window in windows) for at, name in enumerate(names)}
    band["padding"] = (pads, *(window[3:] for window in windows[1:]))
    return slice(*rows), options | band


def in_bands(options, x, outputs_per_band):
    """Return the output and the indices, assembled from bands of `per_band` outputs."""
    windows = cases.windows_of(options, x.shape[2:])
    outputs = oracle.output_size(x.shape[2], windows[0], options.get("ceil_mode", False))
    results = []
    for start in range(0, outputs, outputs_per_band):
        stop = min(start + outputs_per_band, outputs)
        rows, band = band_of(options, x.shape[2:], start, stop)
        results.append(pool(band, x[:, :, rows]))
        assert results[-1].output.shape[2] == stop - start
    output, indices = zip(*results, strict=True)
    has_indices = indices[0] is not None
    joined = np.concatenate(indices, axis=2) if has_indices else None
    return Pooled(np.concatenate(output, axis=2), joined)


def gradient_in_bands(options, dy, x, indices, rows_per_band):
    """Return the gradient, assembled from bands of rows with all outputs that reach them."""
    kernel, stride, dilation, before, _ = cases.windows_of(options, x.shape[2:])[0]
    extent = (kernel - 1) * dilation + 1
    dx = np.zeros(x.shape, dy.dtype)
    for start in range(0, x.shape[2], rows_per_band):
        stop = min(start + rows_per_band, x.shape[2])
        first = max(0, -((extent - 1 - start - before) // stride))
        last = min(dy.shape[2], (stop - 1 + before) // stride + 1)
        if first >= last:  # no window reaches them
            continue
        rows, band = band_of(options, x.shape[2:], first, last)
        marks = None if indices is None else indices[:, :, first:last]
        part = gradient(band, dy[:, :, first:last], x[:, :, rows], marks)
        rows_of_band = slice(max(start, rows.start), min(stop, rows.stop))
        dx[:, :, rows_of_band] = part[
            :, :, rows_of_band.start - rows.start : rows_of_band.stop - rows.start
        ]
    return dx


def assert_same_in_bands(options, x, per_band):
    """Compare the bits of the output, the indices and, for floats, the gradient."""
    whole, bands = pool(options, x), in_bands(options, x, per_band)
    oracle.assert_same_bits(bands.output, whole.output)
    if whole.indices is not None:
        oracle.assert_same_bits(bands.indices, whole.indices)
    if x.dtype.kind in "iu":
        return
    dy = cases.normal(whole.output.shape, x.dtype, seed=1)
    expected = gradient(options, dy, x, whole.indices)
    actual = gradient_in_bands(options, dy, x, bands.indices, per_band)
    oracle.assert_same_bits(actual, expected)


@pytest.mark.parametrize(
    ("dtype", "layout"),
    list(zip(DTYPES, LAYOUTS * 2, strict=True)),
    ids=[np.dtype(dtype).name for dtype in DTYPES],
)
@pytest.mark.parametrize(("options", "sizes"), cases.all_cases(windows=WINDOWS), ids=cases.name_of)
def test_bands_of_every_mode_and_type(options, sizes, layout, dtype):
    x = cases.normal((1, 2, *sizes), dtype)
    for per_band in (1, 2, 5):
        assert_same_in_bands(options | {"layout": layout}, x, per_band)


@pytest.mark.parametrize(
    ("has_nan", "layout"), list(zip((False, True), LAYOUTS, strict=True)), ids=["zeros", "NaNs"]
)
@pytest.mark.parametrize(
    ("options", "sizes"), cases.all_cases(cases.MODES + POLICIES, WINDOWS), ids=cases.name_of
)
def test_bands_of_special_values_with_every_policy(options, sizes, layout, has_nan):
    x = cases.hard((1, 2, *sizes), has_nan=has_nan)
    for per_band in (1, 3):
        assert_same_in_bands(options | {"layout": layout}, x, per_band)


@pytest.mark.parametrize(
    ("options", "sizes"), cases.all_cases(REJECTING, WINDOWS), ids=cases.name_of
)
def test_bands_without_nan_where_nan_is_an_error(options, sizes):
    assert_same_in_bands(options, cases.hard((1, 2, *sizes), has_nan=False), 2)


@pytest.mark.parametrize("dtype", cases.INTEGERS)
@pytest.mark.parametrize(
    ("options", "sizes"), cases.all_cases(INTEGER_MODES, WINDOWS), ids=cases.name_of
)
def test_bands_of_integers(options, sizes, dtype):
    assert_same_in_bands(options, cases.integers((1, 2, *sizes), dtype), 2)


@cases.many_examples
@given(case=cases.cases(modes=cases.MODES + POLICIES, most_axes=2), per_band=st.integers(1, 3))
def test_random_bands(case, per_band, run_with):
    draw = cases.normal if case.seed % 2 else cases.hard
    x = draw(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        assert_same_in_bands(case.options, x, per_band)


@pytest.mark.parametrize("policy", ["all", "split"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_shared_gradients_are_added_in_the_same_order(mode, policy):
    """The taps that reach the most outputs differ between bands; the order of sums must not."""
    options = {"mode": mode, "tie_policy": policy, "kernel": 3, "stride": 1, "dilation": 2}
    for seed in range(20):
        x = np.random.default_rng(seed).integers(0, 2, (2, 3, 5)).astype(np.float64)
        assert_same_in_bands(options | {"padding": 3}, x, 1)


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_bands_keep_the_sign_of_zeros(mode):
    options = {"mode": mode, "kernel": 3, "stride": 1, "padding": 1}
    assert_same_in_bands(options, np.full((1, 1, 5), -0.0, np.float32), 1)


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
@pytest.mark.parametrize(("outputs", "sizes"), [((3, 2), (7, 5)), ((5, 2), (4, 6)), ((4,), (11,))])
def test_bands_of_single_adaptive_outputs(outputs, sizes, mode):
    x = cases.normal((1, 2, *sizes))
    whole = forward(x, PoolSpec(**mode, adaptive_output=outputs)).output
    spec = PoolSpec(**mode, adaptive_output=(1, *outputs[1:]))
    windows = oracle.adaptive_windows(sizes[0], outputs[0])
    bands = [forward(x[:, :, rows.start : rows.stop], spec).output for rows in windows]
    oracle.assert_same_bits(np.concatenate(bands, axis=2), whole)
