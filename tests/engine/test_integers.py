"""Integer tensors: selection in their type; sums and averages that are exact or an error."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import (
    InvalidTensorError,
    PoolSpec,
    UnsupportedError,
    backward,
    forward,
)
from tests.engine import support
from tests.support import cases, oracle

pytestmark = pytest.mark.once

MODES = tuple(mode for mode in cases.MODES if mode["mode"] != "lp")
SUMMING = tuple(mode for mode in MODES if mode not in support.SELECTING)
NO_TAP = {"kernel": 2, "stride": 2, "padding": 1, "dilation": 2}
LEAST, MOST = -(2**63), 2**63 - 1


def assert_overflow(spec, x):
    """Assert that the engine rejects a sum that exceeds int64."""
    with pytest.raises(InvalidTensorError, match="sum overflows") as error:
        forward(x, spec)
    assert error.value.field == "input"


# (options, element type, spatial values, outputs, positions in the plane); more in
# `tests/support/golden.py`, cases 9, 11 and 30
SELECTIONS = (
    ({"mode": "min"} | NO_TAP, "int32", [[7]], [[2**31 - 1]], [[-1]]),
    ({"mode": "min"} | NO_TAP, "uint8", [[7]], [[255]], [[-1]]),
    ({"mode": "max"} | NO_TAP, "int64", [[7]], [[LEAST]], [[-1]]),
    ({"mode": "min"} | NO_TAP, "int64", [[7]], [[MOST]], [[-1]]),
    ({"mode": "min", "kernel": 2}, "uint8", [[0, 5], [6, 7]], [[0]], [[0]]),
    ({"mode": "min", "kernel": 2}, "int64", [[LEAST, 5], [6, 7]], [[LEAST]], [[0]]),
)


@pytest.mark.parametrize(("options", "dtype", "x", "y", "cells"), SELECTIONS)
def test_selections_computed_by_hand(options, dtype, x, y, cells):
    x = np.array([[x]], dtype)
    expected = cases.expected_forward(options, x)
    assert expected.output.tolist() == [[y]]
    assert expected.cells.tolist() == [[cells]]
    support.assert_forward(options, x)


# (mode, element type, the values of one window, its output, the type of the output)
BY_HAND = (
    ({"mode": "sum"}, "int8", [127, 127, -1], 253, "int64"),
    ({"mode": "sum"}, "uint8", [200, 200], 400, "int64"),
    ({"mode": "sum"}, "int32", [2**31 - 1] * 3, 3 * (2**31 - 1), "int64"),
    ({"mode": "sum"}, "int64", [2**53, 1], 2**53 + 1, "int64"),
    ({"mode": "average"}, "int8", [-1, -2, -2, -2], -1.75, "float32"),
    ({"mode": "average"}, "uint8", [255, 255], 255, "float32"),
    ({"mode": "average"}, "int16", [-(2**15)] * 5, -(2**15), "float32"),
    ({"mode": "average"}, "int32", [2**31 - 1] * 3, 2**31, "float32"),
    ({"mode": "average"}, "int32", [2**24, 1, 1, 2], 2**22 + 1, "float32"),
    ({"mode": "average"}, "int32", [2**24 + 1], 2**24, "float32"),
    ({"mode": "average"}, "int32", [2**24 + 3], 2**24 + 4, "float32"),
    ({"mode": "average"}, "int64", [2**24 + 1], 2**24 + 1, "float64"),
    ({"mode": "average"}, "int64", [1, 2, 2], 5 / 3, "float64"),
    # Rounding the sum to a float64 before the division gives 3002399751580332.
    ({"mode": "average"}, "int64", [2**53, 3, 0], 3002399751580331.5, "float64"),
    ({"mode": "average", "divisor_override": -2}, "int16", [1, 2], -1.5, "float32"),
    ({"mode": "average", "divisor_override": 0.25}, "uint8", [1, 2], 12, "float32"),
)


@pytest.mark.parametrize(("mode", "dtype", "values", "total", "returns"), BY_HAND)
def test_sums_and_averages_computed_by_hand(mode, dtype, values, total, returns):
    options, x = mode | {"kernel": len(values)}, np.array([[values]], dtype)
    for output in (forward(x, PoolSpec(**options)).output, cases.expected_forward(options, x)[0]):
        assert output.dtype == returns
        assert output.tolist() == [[[total]]]


@pytest.mark.parametrize("dtype", cases.INTEGERS)
@pytest.mark.parametrize(
    ("options", "sizes"),
    cases.all_cases(MODES, cases.WINDOWS + cases.SIZED_WINDOWS),
    ids=cases.name_of,
)
def test_forward_agrees_with_the_oracle(options, sizes, dtype):
    support.assert_forward(options, cases.integers((2, 2, *sizes), dtype))
    if options in support.SELECTING:
        support.assert_forward(options, cases.extremes((2, 2, *sizes), dtype))


@cases.many_examples
@given(case=cases.cases(modes=support.SELECTING, dtypes=cases.INTEGERS))
def test_random_selections_agree_with_the_oracle(case, run_with):
    x = cases.extremes(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(case.options, x, cases.DISGUISES[case.disguise])


@cases.many_examples
@given(case=cases.cases(modes=SUMMING, dtypes=cases.INTEGERS), is_extreme=st.booleans())
def test_random_sums_agree_with_the_oracle_or_overflow(case, is_extreme, run_with):
    draw = cases.extremes if is_extreme else cases.integers
    x = draw(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        try:
            cases.expected_forward(case.options, x)
        except OverflowError:
            assert_overflow(PoolSpec(**case.options), cases.to_layout(case.options, x))
        else:
            support.assert_forward(case.options, x, cases.DISGUISES[case.disguise])


def test_many_averages_are_correctly_rounded():
    for dtype in ("int32", "int64"):
        x = cases.integers((1, 1, 3000), dtype)
        for mode in ({"mode": "average"}, {"mode": "average", "divisor_override": 7}):
            support.assert_forward(mode | {"kernel": 3, "stride": 2}, x)


@pytest.mark.parametrize("divisor", [10_007, 8_589_934_609, 1e9 + 0.123, 1.5e308, -1e-280, 0.7, 2])
def test_averages_are_rounded_once(divisor):
    """A wider type may round half of the quotients near a midpoint in the wrong direction.

    The first of the totals are the ends, and those whose half or whole is half way.
    """
    x = cases.integers((1, 1, 50_000), "int64", seed=3)
    x[..., ::2] >>= 13
    x[..., :9] = LEAST, MOST, MOST - 1, 0, 1, -1, 2**54 + 2, -(2**54) - 6, 2**53 + 1
    output = forward(x, PoolSpec("average", 1, divisor_override=divisor)).output
    exact = [float(Fraction(int(total)) / Fraction(divisor)) for total in x.flat]
    oracle.assert_same_bits(output.ravel(), np.array(exact))


def test_an_average_may_be_infinite():
    x = np.array([[[MOST, -1, 1, 0]]])
    output = forward(x, PoolSpec("average", 1, divisor_override=-1e-300)).output
    assert output.tolist() == [[[-np.inf, 1 / 1e-300, -1 / 1e-300, 0]]]


# (one window of the kernel's shape, its exact sum, or None if it exceeds int64)
SUMS = (
    ([MOST], MOST),
    ([LEAST], LEAST),
    ([MOST, 1], None),
    ([LEAST, -1], None),
    ([MOST, -1, 1], MOST),
    ([MOST, 1, -1], MOST),
    ([LEAST, -1, 1], LEAST),
    ([2**62, 2**62, -1], MOST),
    ([2**62, 2**62, -(2**62)], 2**62),
    ([2**62] * 4, None),
    ([2**62] * 5, None),
    ([LEAST] * 4, None),
    ([LEAST, MOST] * 3, -3),
    ([[2**62, 2**62], [-(2**62), -(2**62)]], 0),
    ([[2**62, -(2**62)], [2**62, -(2**62)]], 0),
    ([[2**62, 2**62], [2**62, 2**62]], None),
    ([[LEAST, LEAST], [LEAST, LEAST]], None),
)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("mode", ["sum", "average"])
@pytest.mark.parametrize(("values", "total"), SUMS)
def test_only_the_overflow_of_a_whole_sum_is_an_error(values, total, mode, layout, run_with):
    window = np.array(values, np.int64)
    x = cases.to_layout({"layout": layout}, np.stack([np.full_like(window, 3), window])[None])
    for options in ({"kernel": window.shape}, {"global_window": True}):
        spec = PoolSpec(mode, **options, layout=layout)
        for block_bytes in (8, 1 << 20):
            with run_with(block_bytes):
                if total is None:
                    assert_overflow(spec, x)
                    continue
                expected = [3 * window.size, total]
                if mode == "average":
                    expected = [each / window.size for each in expected]
                assert forward(x, spec).output.ravel().tolist() == expected


def test_one_overflow_in_a_large_tensor_is_found(run_with):
    spec = PoolSpec("sum", 3, 2)
    x = cases.integers((2, 3, 21, 17), "int64")
    forward(x, spec)
    for where in ((0, 0, 0, 0), (1, 2, 20, 16), (0, 2, 9, 5)):
        loud = x.copy()
        loud[where] = MOST
        loud[where[:2]] = np.where(loud[where[:2]] == MOST, MOST, 1)
        for block_bytes, threads in ((8, 3), (1 << 20, 1)):
            with run_with(block_bytes, threads):
                assert_overflow(spec, loud)


@pytest.mark.parametrize("dtype", cases.INTEGERS)
def test_windows_with_more_taps_than_elements(dtype):
    """Sums of all taps could overflow 64 bits in every type; sums of the few elements cannot."""
    most = 2**31 - 1
    options = {"kernel": most, "stride": 1, "padding": [(most - 2, 1), (most - 1, 0)]}
    legal = np.iinfo(dtype)
    x = np.array([[[[legal.min, -1, 5], [legal.max, 0, 3]]]]).astype(dtype)
    sums = [np.cumsum(x[0, 0, :rows].astype(np.int64).sum(0)).tolist() for rows in (2, 2)]
    assert forward(x, PoolSpec("sum", **options)).output.tolist() == [[sums]]
    for value in (2**31, -1):
        mean = PoolSpec("average", **options, divisor_override=value)
        expected = np.array(sums, np.float64) / value
        np.testing.assert_array_equal(
            forward(x, mean).output,
            expected[None, None].astype(pooling_engine.plan(mean, x.shape, dtype).output_dtype),
        )


def test_elements_in_no_window_cause_no_overflow():
    x = np.array([[[1, MOST, MOST, 2, MOST, MOST]]])
    assert forward(x, PoolSpec("sum", 1, 3)).output.tolist() == [[[1, 2]]]


@pytest.mark.parametrize("dtype", cases.INTEGERS)
@pytest.mark.parametrize("dilation", [1, 2])
def test_max_agrees_with_pytorch(dilation, dtype):
    import torch

    x = cases.extremes((2, 3, 9, 8), dtype)
    theirs, cells = torch.nn.functional.max_pool2d(
        torch.from_numpy(x), 3, 2, 1, dilation, return_indices=True
    )
    spec = PoolSpec("max", 3, 2, 1, dilation)
    ours = forward(x, spec, return_indices=True, index_format="plane")
    oracle.assert_same_bits(ours.output, theirs.numpy())
    oracle.assert_same_bits(ours.indices, cells.numpy())


@pytest.mark.parametrize("dtype", cases.INTEGERS)
def test_norms_of_integers_are_rejected(dtype):
    with pytest.raises((InvalidTensorError, UnsupportedError)) as error:
        forward(np.ones((1, 1, 2), dtype), PoolSpec("lp", 2))
    assert dtype in str(error.value)


@pytest.mark.parametrize("dtype", cases.INTEGERS)
@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_integer_gradients_are_rejected(mode, dtype):
    spec, dy = PoolSpec(**mode, kernel=2), np.ones((1, 1, 1), dtype)
    sent = {"input_shape": (1, 1, 2)}
    if mode["mode"] in ("max", "min"):
        with pytest.raises(InvalidTensorError) as error:
            backward(dy, spec, **sent, indices=np.zeros((1, 1, 1), np.uint8))
        assert error.value.field == "output_gradient"
    if mode["mode"] in ("max", "min", "lp"):
        sent["input"] = np.ones((1, 1, 2), dtype)
    with pytest.raises(InvalidTensorError, match=dtype) as error:
        backward(dy, spec, **sent)
    assert error.value.field == "output_gradient"


def test_indices_of_integers_work_with_a_gradient_of_floats():
    x = cases.extremes((2, 2, 6, 5), "int16")
    spec = PoolSpec("max", 3, 2, 1)
    dy, indices = forward(x, spec, return_indices=True)
    dy = dy.astype(np.float32)
    dx = backward(dy, spec, input_shape=x.shape, indices=indices)
    oracle.assert_same_bits(dx, backward(dy, spec, input=x.astype(np.float32)))
    with pytest.raises(InvalidTensorError) as error:
        backward(dy, spec, input=x)
    assert error.value.field == "input"


@pytest.mark.parametrize(("mode", "dtype"), [("max", "int8"), ("sum", "int64"), ("average", "f4")])
def test_out_has_the_type_of_the_output(mode, dtype):
    spec, x = PoolSpec(mode, 2), np.array([[[3, 4, -5, -7]]], np.int8)
    expected = forward(x, spec).output
    out = np.full((1, 1, 2), 77, dtype)
    assert forward(x, spec, out=out).output is out
    oracle.assert_same_bits(out, expected)
    with pytest.raises(InvalidTensorError) as error:
        forward(x, spec, out=np.empty((1, 1, 2), np.float64))
    assert error.value.field == "out"


@pytest.mark.parametrize("dtype", cases.INTEGERS)
@pytest.mark.parametrize("mode", MODES, ids=cases.name_of)
def test_empty_batches_and_blocks(mode, dtype, run_with):
    options = mode | {"kernel": 3, "stride": 2, "padding": 1}
    empty = np.empty((0, 2, 6, 5), dtype)
    output = forward(empty, PoolSpec(**options)).output
    assert output.shape == (0, 2, 3, 3)
    assert output.dtype == oracle.result_type(mode["mode"], empty.dtype)
    x = cases.integers((2, 2, 6, 5), dtype)
    support.assert_same_for_all_blocks(options, x, run_with)
