"""Bitwise the same: from run to run, and however many threads, planes or bands share the work."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward

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


def both_ways(options, x, dy_seed=1):
    """The output, the indices or None, and the gradient."""
    spec = PoolSpec(**options)
    selects = options["mode"] in ("max", "min")
    output, indices = forward(x, spec, return_indices=selects)
    dy = cases.normal(output.shape, x.dtype, dy_seed)
    return output, indices, dy, backward(dy, spec, **residual_of(options, x, indices))


def residual_of(options, x, indices):
    if indices is not None:
        return {"input_shape": x.shape, "indices": indices}
    return {"input": x} if options["mode"] == "lp" else {"input_shape": x.shape}


def assert_all_same_bits(some, others):
    for one, other in zip(some, others, strict=True):
        if one is not None:
            oracle.assert_same_bits(other, one)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("options", "sizes"), CASES, ids=cases.name_of)
def test_threads_and_blocks_change_no_bit(options, sizes, dtype, run_with):
    x = cases.normal((2, 3, *sizes), dtype)
    with run_with(threads=1):
        expected = both_ways(options, x)
    for block_bytes, threads in ((8, 1), (8, 4), (100, 2), (300, 3), (1 << 20, 5)):
        with run_with(block_bytes, threads):
            assert_all_same_bits(expected, both_ways(options, x))
            assert_all_same_bits(expected, both_ways(options, x))


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
@pytest.mark.parametrize("has_nan", [False, True], ids=["zeros", "NaNs"])
def test_threads_and_blocks_change_no_bit_of_hard_values(mode, has_nan, run_with):
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


@pytest.mark.parametrize(("options", "sizes"), CASES, ids=cases.name_of)
def test_the_rest_of_the_batch_changes_no_bit(options, sizes):
    x = cases.normal((3, 2, *sizes))
    output, indices, dy, dx = both_ways(options, x)
    loud = np.concatenate([x[1:2], cases.hard((2, 2, *sizes))])
    spec = PoolSpec(**options)
    selects = indices is not None
    again, marks = forward(loud, spec, return_indices=selects)
    oracle.assert_same_bits(again[:1], output[1:2])
    noise = np.concatenate([dy[1:2], cases.hard((2, *dy.shape[1:]))])
    gradient = backward(noise, spec, **residual_of(options, loud, marks))
    oracle.assert_same_bits(gradient[:1], dx[1:2])


@pytest.mark.parametrize(("options", "sizes"), CASES, ids=cases.name_of)
def test_planes_one_by_one_give_the_same_bits(options, sizes):
    x = cases.normal((2, 3, *sizes))
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


def band_of(options, sizes, start, stop):
    """Outputs [start, stop) of the first axis as a call of their own: its rows and its options.

    The band takes the rows that its windows span, and of the padding what lies beside them.
    Ceil mode lets the last window hang over, where it does so in the whole.
    """
    windows = cases.windows_of(options, sizes)
    kernel, stride, dilation, before, after = windows[0]
    first = start * stride - before
    last = (stop - 1) * stride - before + (kernel - 1) * dilation + 1
    rows = max(0, first), min(sizes[0], last)
    ends = max(0, -first), max(0, min(last, sizes[0] + after) - rows[1])
    names = ("kernel", "stride", "dilation", "padding")
    bands = {name: tuple(w[at] for w in windows) for at, name in enumerate(names[:3])}
    bands["padding"] = (ends, *(w[3:] for w in windows[1:]))
    return rows, options | bands | {"ceil_mode": True}


def fits_ceil_mode(options, sizes):
    """Whether ceil mode changes nothing on the axes after the first, so that a band may use it."""
    windows = cases.windows_of(options, sizes)
    return options.get("ceil_mode", False) or all(
        oracle.output_size(size, window, True) == oracle.output_size(size, window)
        for size, window in zip(sizes[1:], windows[1:], strict=True)
    )


def bands_forward(options, x, rows_per_band):
    """The output put together from bands of so many outputs, and the indices or None."""
    outputs, indices = [], []
    total = forward(x, PoolSpec(**options)).output.shape[2]
    for start in range(0, total, rows_per_band):
        stop = min(start + rows_per_band, total)
        rows, band = band_of(options, x.shape[2:], start, stop)
        selects = options["mode"] in ("max", "min")
        result = forward(x[:, :, slice(*rows)], PoolSpec(**band), return_indices=selects)
        assert result.output.shape[2] == stop - start
        outputs.append(result.output)
        indices.append(result.indices)
    taps = None if indices[0] is None else np.concatenate(indices, axis=2)
    return np.concatenate(outputs, axis=2), taps


def bands_backward(options, x, dy, indices, rows_per_band):
    """The gradient put together from bands of so many rows, each with all outputs that reach it."""
    sizes = x.shape[2:]
    kernel, stride, dilation, before, _ = cases.windows_of(options, sizes)[0]
    extent = (kernel - 1) * dilation + 1
    dx = np.zeros_like(x)
    for start in range(0, sizes[0], rows_per_band):
        stop = min(start + rows_per_band, sizes[0])
        first = max(0, -((extent - 1 - start - before) // stride))
        last = min(dy.shape[2], (stop - 1 + before) // stride + 1)
        if first >= last:
            continue
        rows, band = band_of(options, sizes, first, last)
        part = x[:, :, slice(*rows)]
        marks = None if indices is None else indices[:, :, first:last]
        gradient = backward(
            dy[:, :, first:last], PoolSpec(**band), **residual_of(options, part, marks)
        )
        kept = slice(max(start, rows[0]), min(stop, rows[1]))
        dx[:, :, kept] = gradient[:, :, kept.start - rows[0] : kept.stop - rows[0]]
    return dx


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("options", "sizes"), [row for row in CASES if fits_ceil_mode(*row)], ids=cases.name_of
)
def test_bands_cut_by_hand_give_the_same_bits(options, sizes, dtype):
    x = cases.normal((1, 2, *sizes), dtype)
    output, indices, dy, dx = both_ways(options, x)
    for rows_per_band in (1, 2, 5):
        pooled = bands_forward(options, x, rows_per_band)
        assert_all_same_bits((output, indices), pooled)
        gradient = bands_backward(options, x, dy, indices, rows_per_band)
        oracle.assert_same_bits(gradient, dx)


@cases.many_examples
@given(case=cases.cases(most_axes=2), rows_per_band=st.integers(1, 3))
def test_random_bands_give_the_same_bits(case, rows_per_band):
    options = case.options | {"layout": "channels_first"}
    x = cases.normal(case.shape, case.dtype, case.seed)
    if not fits_ceil_mode(options, x.shape[2:]):
        options["ceil_mode"] = True
    if isinstance(options["padding"], str) and not fits_ceil_mode(options, x.shape[2:]):
        return
    output, indices, dy, dx = both_ways(options, x)
    assert_all_same_bits((output, indices), bands_forward(options, x, rows_per_band))
    oracle.assert_same_bits(bands_backward(options, x, dy, indices, rows_per_band), dx)


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_bands_of_negative_zeros_give_the_same_bits(mode):
    options = {"mode": mode, "kernel": 3, "stride": 1, "padding": 1}
    x = np.full((1, 1, 5), -0.0, np.float32)
    assert_all_same_bits(both_ways(options, x)[:2], bands_forward(options, x, 1))
